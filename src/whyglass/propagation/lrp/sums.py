"""Operations that add up their operands, with the factor of each."""

from __future__ import annotations

from whyglass.propagation.engine.calls import Call

# Sums with weights that are not negative, for which a rule for sums is meant.
AVERAGES = frozenset(
    "mean sum nansum cumsum trace sum_to_size fold col2im avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d".split()
)


def factor_in_sum(call: Call, position: int) -> float:
    """The factor with which a sum takes the operand in this position."""
    second = {"rsub": 0, "index_add": 3}.get(call.op, 1)
    if position != second:
        return 1
    alpha: float = call.arguments()[1].get("alpha", 1)
    return -alpha if call.op in {"sub", "subtract", "rsub"} else alpha
