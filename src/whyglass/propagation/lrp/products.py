"""How a product divides relevance among its factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeVar

from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.operations import ADDITIVE, STRUCTURAL

Products = Literal["signal", "half"]
K = TypeVar("K")

# These make a gate of their operand, a factor that gets no relevance.
SQUASHING = frozenset({"sigmoid", "hardsigmoid", "softmax"})
NORMALISERS = frozenset({"reciprocal", "rsqrt"})
# With a constant these leave a gate a gate: 1 - sigmoid(x).
_AFFINE = ADDITIVE | {"mul", "multiply"}


def remains_gate(call: Call) -> bool:
    """Whether the operation makes a gate of a gate: it moves it, or joins it with constants."""
    return call.op in STRUCTURAL or (len(call.operands) == 1 and call.op in _AFFINE)


def product_shares(gates: Mapping[K, bool]) -> dict[K, float]:
    """The share of each factor, by whether it is a gate: the others divide all relevance equally.

    Where every factor is a gate, all of them do.
    """
    signals = [factor for factor, gate in gates.items() if not gate] or list(gates)
    return {factor: 1 / len(signals) if factor in signals else 0.0 for factor in gates}
