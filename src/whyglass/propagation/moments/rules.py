"""Rules for means and variances, operation by operation, as if what enters were Gaussian.

Exact for affine operations; for the ReLU and its kin in closed form, for smooth functions by
Gauss-Hermite quadrature; for the larger of two by Clark (1961); for softmax to first order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.operations import STRUCTURAL
from whyglass.propagation.moments.functions import SMOOTH, log_sum_exp, relu_like, smooth, softmax
from whyglass.propagation.moments.moments import (
    Covariance,
    RandomOperand,
    Result,
    Rule,
    combined_factors,
    linear_part,
)
from whyglass.propagation.moments.pooling import average_pool, max_pool

# Among them what cuts the gradient: scores of coalitions do not feel that.
SAME = frozenset(
    "clone contiguous dropout dropout1d dropout2d dropout3d requires_grad detach detach_copy "
    "data".split()
)


def structural(call: Call, operands: list[RandomOperand]) -> Result:
    """Operations that move entries."""
    if call.op in SAME and len(operands) == 1:
        return call.run(), operands[0].covariance
    mean = call.run()
    if not isinstance(mean, Tensor):
        return None
    apply = linear_part(call, operands)
    return mean, Covariance(
        apply([o.covariance.diagonal for o in operands]), *combined_factors(operands, apply)
    )


def additive(call: Call, operands: list[RandomOperand]) -> Result:
    """Sums: diagonal variances add up by squared slopes, factors by slopes."""
    mean, apply = call.run(), linear_part(call, operands)
    diagonal = torch.zeros_like(mean)
    for index, operand in enumerate(operands):
        # The slope of this operand in the sum, a number.
        one = [
            torch.full_like(o.mean, float(position == index)) for position, o in enumerate(operands)
        ]
        diagonal = diagonal + apply(one) ** 2 * operand.covariance.diagonal
    return mean, Covariance(diagonal, *combined_factors(operands, apply))


def scaled(call: Call, operands: list[RandomOperand]) -> Result:
    """Maps that are affine entry by entry: batch norm, a product with a constant."""
    if len(operands) > 1 or (call.op in {"batch_norm", "div"} and operands[0].position):
        return None
    if call.op == "div" and "rounding_mode" in call.arguments()[1]:
        return None
    (x,) = operands
    slope = linear_part(call, operands)([torch.ones_like(x.mean)])
    diagonal, mean = slope**2 * x.covariance.diagonal, call.run()
    if diagonal.shape != mean.shape or x.mean.shape != mean.shape:
        return None
    factors = None if x.covariance.factors is None else slope * x.covariance.factors
    return mean, Covariance(diagonal, factors, x.covariance.sign)


def linear(call: Call, operands: list[RandomOperand]) -> Result:
    """y = W x + b: variances by the squares of the weights, factors by the weights."""
    args, kwargs = call.arguments()
    names = ("input", "weight", "bias")
    arguments = dict(zip(names, args, strict=False)) | {
        n: kwargs.pop(n) for n in names if n in kwargs
    }
    weight = arguments.get("weight")
    if len(operands) != 1 or arguments["input"] is not operands[0].mean or weight is None:
        return None
    return _mixed(
        call, operands[0], lambda x, w: call.function(x, w, None, *args[3:], **kwargs), weight
    )


def matmul(call: Call, operands: list[RandomOperand]) -> Result:
    """A product with a constant matrix."""
    args, kwargs = call.arguments()
    if len(operands) != 1 or kwargs or args[0] is not operands[0].mean or args[1].dim() != 2:
        return None
    return _mixed(call, operands[0], call.function, args[1])


def _mixed(
    call: Call, x: RandomOperand, run: Callable[[Tensor, Tensor], Tensor], weight: Tensor
) -> Result:
    diagonal, factors = run(x.covariance.diagonal, weight**2), None
    if x.covariance.factors is not None:
        many = x.covariance.factors
        factors = run(many.flatten(0, 1), weight).unflatten(0, many.shape[:2])
    return call.run(), Covariance(diagonal, factors, x.covariance.sign).without_subtraction()


def mean_or_sum(call: Call, operands: list[RandomOperand]) -> Result:
    """Sums and means over axes."""
    (x,) = operands
    mean = call.run()
    if (
        not isinstance(mean, Tensor)
        or mean.numel() == 0
        or not mean.dim()
        or len(mean) != len(x.mean)
    ):
        return None
    count = x.mean.numel() // mean.numel()
    apply = linear_part(call, operands)
    diagonal = apply([x.covariance.diagonal])
    diagonal = diagonal / count if call.op == "mean" else diagonal
    return mean, Covariance(diagonal, *combined_factors(operands, apply)).without_subtraction()


RULES: dict[str, Rule] = {
    **dict.fromkeys(STRUCTURAL | SAME, structural),
    **dict.fromkeys("add sub rsub neg negative".split(), additive),
    **dict.fromkeys("batch_norm mul multiply rmul div".split(), scaled),
    **dict.fromkeys(
        "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split(),
        linear,
    ),
    **dict.fromkeys("matmul mm".split(), matmul),
    **dict.fromkeys("mean sum".split(), mean_or_sum),
    **dict.fromkeys(
        [f"{k}avg_pool{d}d" for k in ("", "adaptive_") for d in (1, 2, 3)], average_pool
    ),
    **dict.fromkeys([f"max_pool{d}d" for d in (1, 2, 3)], max_pool),
    **dict.fromkeys(
        "relu relu6 leaky_relu prelu hardtanh hardsigmoid abs clamp clamp_min".split(), relu_like
    ),
    **dict.fromkeys(SMOOTH, smooth),
    **dict.fromkeys("softmax log_softmax".split(), softmax),
    "logsumexp": log_sum_exp,
}
