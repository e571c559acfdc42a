"""Means and variances of functions of one number, and of softmax, as if what enters were Gaussian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call
from whyglass.propagation.moments.moments import Covariance, RandomOperand, Result

INF = math.inf


NODES, _weights = np.polynomial.hermite_e.hermegauss(24)
WEIGHTS = _weights / _weights.sum()

SMOOTH = (
    "sigmoid tanh gelu silu mish elu celu selu softplus softsign hardswish logsigmoid log_sigmoid exp "
    "square tanhshrink"
).split()

# A straight piece of a function between two kinks: from, to, slope, offset.
Segment = tuple[float, float, "float | Tensor", float]

# Mean, variance and E[f'] (by Stein's lemma the slope of the covariance) of f at a Gaussian.
Moment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def elementwise(mean: Tensor, covariance: Covariance, moments: Moment) -> tuple[Tensor, Covariance]:
    """y_i = f(x_i): factors pass by the mean slope, the rest of the variance is diagonal."""
    covariance = covariance.without_subtraction()
    made, variance, slope = moments(mean, covariance.variance())
    if covariance.factors is None:
        return made, Covariance(variance)
    factors = slope * covariance.factors
    return made, Covariance((variance - factors.square().sum(0)).clamp_min(0), factors)


def piecewise(
    segments: Sequence[Segment], mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of a continuous piecewise linear function, in closed form.

    They are taken about f(mean), so that nothing cancels far from the kinks.
    """
    deviation = deviation_of(var)
    at_mean = torch.zeros_like(mean)
    for low, high, slope, offset in segments:
        at_mean = torch.where((mean >= low) & (mean < high), slope * mean + offset, at_mean)
    first, second, slopes = (torch.zeros_like(mean) for _ in range(3))
    # These are the distribution, the density and the density times z at the lower end of a segment.
    below, left, left_times = (torch.zeros_like(mean) for _ in range(3))
    for _, high, slope, offset in segments:
        if high == INF:
            above, right, right_times = torch.ones_like(mean), 0.0, 0.0
        else:
            z, above, right = gauss((high - mean) / deviation)
            right_times = z * right
        part, base = above - below, slope * mean + offset - at_mean
        line, square = deviation * (left - right), var * (part + left_times - right_times)
        first = first + slope * line + base * part
        second = second + slope**2 * square + 2 * slope * base * line + base**2 * part
        slopes = slopes + slope * part
        below, left, left_times = above, right, right_times
    return at_mean + first, (second - first**2).clamp_min(0), slopes


def gauss(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z kept finite, with the standard normal distribution and density there."""
    z = z.clamp(-40, 40)
    return z, torch.special.ndtr(z), torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def deviation_of(var: Tensor) -> Tensor:
    """The standard deviation, never zero."""
    return var.clamp_min(torch.finfo(var.dtype).tiny).sqrt()


def quadrature(
    f: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Moments of a smooth function, by 24 nodes of Gauss-Hermite quadrature."""
    deviation, at_mean = deviation_of(var), f(mean)
    first, second, covariance = (torch.zeros_like(mean) for _ in range(3))
    for node, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True):
        off = f(mean + deviation * node) - at_mean
        first, second = first + weight * off, second + weight * off**2
        covariance = covariance + weight * node * off
    return at_mean + first, (second - first**2).clamp_min(0), covariance / deviation


def relu_like(call: Call, operands: list[RandomOperand]) -> Result:
    """Moments of piecewise linear functions such as ReLU."""
    args, kwargs = call.arguments()
    if len(operands) > 1 or not args or args[0] is not operands[0].mean:
        return None
    segments = _segments(call.op, args, kwargs)
    if segments is None:
        return None
    return elementwise(operands[0].mean, operands[0].covariance, partial(piecewise, segments))


def _segments(op: str, args: list[Any], kwargs: dict[str, Any]) -> list[Segment] | None:
    def argument(position: int, name: str, default: Any) -> Any:
        return args[position] if len(args) > position else kwargs.get(name, default)

    if op == "relu":
        return [(-INF, 0, 0, 0), (0, INF, 1, 0)]
    if op == "leaky_relu":
        return [(-INF, 0, argument(1, "negative_slope", 0.01), 0), (0, INF, 1, 0)]
    if op == "prelu":
        weight = argument(1, "weight", None)
        weight = weight.reshape(-1, *[1] * max(args[0].dim() - 2, 0))
        return [(-INF, 0, weight, 0), (0, INF, 1, 0)]
    if op == "abs":
        return [(-INF, 0, -1, 0), (0, INF, 1, 0)]
    if op == "hardsigmoid":
        return [(-INF, -3, 0, 0), (-3, 3, 1 / 6, 0.5), (3, INF, 0, 1)]
    ends: tuple[Any, Any] = {
        "relu6": (0.0, 6.0),
        "hardtanh": (argument(1, "min_val", -1.0), argument(2, "max_val", 1.0)),
        "clamp": (argument(1, "min", None), argument(2, "max", None)),
        "clamp_min": (argument(1, "min", None), None),
    }[op]
    low, high = (-INF if ends[0] is None else ends[0], INF if ends[1] is None else ends[1])
    if not all(isinstance(end, int | float) for end in (low, high)) or low >= high:
        return None
    line: list[Segment] = [(low, high, 1, 0)]
    below: list[Segment] = [] if low == -INF else [(-INF, low, 0, low)]
    above: list[Segment] = [] if high == INF else [(high, INF, 0, high)]
    return below + line + above


def smooth(call: Call, operands: list[RandomOperand]) -> Result:
    """Moments of elementwise functions without kinks, or with gentle ones."""
    if len(operands) > 1:
        return None
    (x,) = operands
    return elementwise(
        x.mean, x.covariance, partial(quadrature, lambda value: call.run({x.position: value}))
    )


def log_sum_exp(call: Call, operands: list[RandomOperand]) -> Result:
    """log sum exp to first order: its value at the means, variances by the softmax there."""
    (x,) = operands
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    keep = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    if isinstance(dim, tuple | list):
        (dim,) = dim
    if not isinstance(dim, int):
        return None
    share, covariance = x.mean.softmax(dim), x.covariance.without_subtraction()
    diagonal = (share**2 * covariance.diagonal).sum(dim, keepdim=keep)
    if covariance.factors is None:
        return call.run(), Covariance(diagonal)
    factors = torch.stack([(share * part).sum(dim, keepdim=keep) for part in covariance.factors])
    return call.run(), Covariance(diagonal, factors)


def softmax(call: Call, operands: list[RandomOperand]) -> Result:
    """Softmax as the sigmoid of log-odds, Gaussian to first order; log_softmax to first order."""
    (x,) = operands
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(dim, int):
        return None
    covariance, share = x.covariance.without_subtraction(), x.mean.softmax(dim)
    logs = call.op == "log_softmax"
    rest = (1 - share).clamp_min(torch.finfo(share.dtype).eps)
    odds = x.mean.log_softmax(dim) - (0 if logs else rest.log())
    # The derivative of entry c by itself is `by_itself`, by entry j the share of j times -`weight`.
    by_itself, weight = (
        (1 - share, torch.ones_like(share)) if logs else (torch.ones_like(share), 1 / rest)
    )

    def without(part: Tensor, power: int) -> Tensor:
        terms = share**power * part
        mixed = terms.sum(dim, keepdim=True) - terms
        return by_itself**power * part + (-weight) ** power * mixed

    diagonal, factors = without(covariance.diagonal, 2), None
    if covariance.factors is not None:
        factors = torch.stack([without(part, 1) for part in covariance.factors])
    if logs:
        return odds, Covariance(diagonal, factors)
    return elementwise(odds, Covariance(diagonal, factors), partial(quadrature, torch.sigmoid))
