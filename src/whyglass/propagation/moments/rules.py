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
from whyglass.propagation.moments.moments import Found, Random, Rule, Spread, changes, shared
from whyglass.propagation.moments.pooling import average_pool, max_pool

SAME = frozenset("clone contiguous dropout dropout1d dropout2d dropout3d requires_grad".split())


def structural(call: Call, operands: list[Random]) -> Found:
    """Entries move."""
    if call.op in SAME and len(operands) == 1:
        return call.run(), operands[0].spread
    mean = call.run()
    if not isinstance(mean, Tensor):
        return None
    change = changes(call, operands)
    return mean, Spread(change([o.spread.own for o in operands]), *shared(operands, change))


def additive(call: Call, operands: list[Random]) -> Found:
    """Sums: variances that entries have for themselves add up, factors add."""
    mean, change = call.run(), changes(call, operands)
    own = torch.zeros_like(mean)
    for index, operand in enumerate(operands):
        # Its slope in the sum, a number.
        one = [torch.full_like(o.mean, float(place == index)) for place, o in enumerate(operands)]
        own = own + change(one) ** 2 * operand.spread.own
    return mean, Spread(own, *shared(operands, change))


def scaled(call: Call, operands: list[Random]) -> Found:
    """Entry by entry affine: batch norm, a product with a constant."""
    if len(operands) > 1 or (call.op in {"batch_norm", "div"} and operands[0].place):
        return None
    if call.op == "div" and "rounding_mode" in call.arguments()[1]:
        return None
    (x,) = operands
    slope = changes(call, operands)([torch.ones_like(x.mean)])
    own, mean = slope**2 * x.spread.own, call.run()
    if own.shape != mean.shape or x.mean.shape != mean.shape:
        return None
    shared = None if x.spread.shared is None else slope * x.spread.shared
    return mean, Spread(own, shared, x.spread.sign)


def linear(call: Call, operands: list[Random]) -> Found:
    """y = W x + b: variances by the squares of the weights, factors by the weights."""
    args, kwargs = call.arguments()
    names = ("input", "weight", "bias")
    given = dict(zip(names, args, strict=False)) | {n: kwargs.pop(n) for n in names if n in kwargs}
    weight = given.get("weight")
    if len(operands) != 1 or given["input"] is not operands[0].mean or weight is None:
        return None
    return _mixed(
        call, operands[0], lambda x, w: call.function(x, w, None, *args[3:], **kwargs), weight
    )


def matmul(call: Call, operands: list[Random]) -> Found:
    """A product with a constant matrix."""
    args, kwargs = call.arguments()
    if len(operands) != 1 or kwargs or args[0] is not operands[0].mean or args[1].dim() != 2:
        return None
    return _mixed(call, operands[0], call.function, args[1])


def _mixed(call: Call, x: Random, run: Callable[[Tensor, Tensor], Tensor], weight: Tensor) -> Found:
    own, shared = run(x.spread.own, weight**2), None
    if x.spread.shared is not None:
        many = x.spread.shared
        shared = run(many.flatten(0, 1), weight).unflatten(0, many.shape[:2])
    return call.run(), Spread(own, shared, x.spread.sign).alone()


def mean_or_sum(call: Call, operands: list[Random]) -> Found:
    """Sums over axes: a share 1/c of each of c entries."""
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
    change = changes(call, operands)
    own = change([x.spread.own])
    own = own / count if call.op == "mean" else own
    return mean, Spread(own, *shared(operands, change)).alone()


# Mean, variance and E[f'] (by Stein's lemma the slope of the covariance) of f at a Gaussian.


RULES: dict[str, Rule] = {
    **dict.fromkeys(STRUCTURAL, structural),
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
