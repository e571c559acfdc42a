"""DeepLIFT through softmax and norms: the rules of the operations they are made of, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.deeplift.rules import Scaled
from whyglass.propagation.engine.calls import Call


def _falling(d: Tensor) -> Tensor:
    """(1 - exp(-d)) / d for d >= 0, which is 1 at zero."""
    d = d.clamp_min(torch.finfo(d.dtype).tiny)
    return torch.expm1(-d).div_(d).neg_()


def logsumexp(call: Call) -> Tensor:
    """y = log sum_j exp(x_j) by the Rescale rule of exp and log, in logarithms.

    With L(u, v) = (u - v) / log(u / v) the multipliers are L(exp x_j, exp x'_j) / L(exp y, exp y').
    The logarithmic mean L is concave and homogeneous, so they add up to at most 1, however far apart
    input and baseline are.
    """
    place = call.operands[0]
    x, before = call.leaves[place], call.baseline_leaves[place]
    args, kwargs = call.arguments()
    given = dict(zip(("dim", "keepdim"), args[1:], strict=False)) | kwargs
    with torch.no_grad():
        y = torch.logsumexp(x, given["dim"], keepdim=True)
        weights, _ = _log_sum_weights(x.detach(), before, given["dim"])
    found = Scaled.apply(x, y, weights)
    return found if given.get("keepdim") else found.squeeze(given["dim"])


class _Softmax(torch.autograd.Function):
    """y as it is; backwards the rules of y = exp(x - log sum exp x), whose slopes are given."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dim: int, slope: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(slope, weights)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor | None, ...]:
        slope, weights = ctx.saved_tensors
        found = multipliers[0] * slope
        return found - weights * found.sum(ctx.dim, keepdim=True), None, None, None, None


def softmax(call: Call) -> Tensor:
    """y = exp(x - log sum exp x), by the Rescale rule of exp and `logsumexp`'s."""
    place = call.operands[0]
    x, before = call.leaves[place], call.baseline_leaves[place]
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    with torch.no_grad():
        y, y0 = call.run(), call.at_baseline
        x, before = x.to(y.dtype), before.to(y.dtype)
        weights, change = _log_sum_weights(x.detach(), before, dim)
        largest = torch.maximum(y, y0)
        slope = largest * _falling((x.detach() - before - change).abs())
        slope = torch.where(largest == 0, 0.0, slope)
    return _Softmax.apply(call.leaves[place].to(y.dtype), y, dim, slope, weights)


def _log_sum_weights(x: Tensor, before: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The multipliers of log sum exp, and its change with the axis kept."""
    y, y0 = (torch.logsumexp(at, dim, keepdim=True) for at in (x, before))
    share = torch.exp(torch.maximum(x, before) - torch.maximum(y, y0))
    weights = share * _falling((x - before).abs()) / _falling((y - y0).abs())
    return torch.where(share == 0, 0.0, weights), y - y0


class _Normed(torch.autograd.Function):
    """y as it is; backwards the rules of y = n w + b, n = c / s, s^2 = mean c^2 + eps.

    With the quotient's, the square root's and the square's mean slopes, g = m w and t = s + s',
    m_c = (2 g - (c + c') / N sum_i g_i (n + n')_i / t) / t.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, given: _Spread) -> Tensor:
        ctx.given = given
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        given: _Spread = ctx.given
        g = multipliers[0] if given.weight is None else multipliers[0] * given.weight
        pull = (g * given.values).sum(given.axes, keepdim=True).div_(given.spread)
        found = torch.addcmul(g * 2, pull, given.centred, value=-1).div_(given.spread)
        if given.centring:
            found = found.sub_(found.mean(given.axes, keepdim=True))
        return found, None, None


@dataclass(frozen=True)
class _Spread:
    """Of a norm at both ends: n + n', (c + c') / N and s + s'."""

    axes: tuple[int, ...]
    weight: Tensor | None
    values: Tensor
    centred: Tensor
    spread: Tensor
    centring: bool


def norm(call: Call) -> Tensor:
    """Layer and RMS norm by the rules of the operations they are made of, in closed form."""
    place = call.operands[0]
    centring = call.op == "layer_norm"
    names = ("input", "normalized_shape", "weight", *(("bias",) if centring else ()), "eps")
    args, kwargs = call.arguments()
    given = dict(zip(names, args, strict=False)) | kwargs
    axes = tuple(range(-len(tuple(given["normalized_shape"])), 0))
    eps = given.get("eps", 1e-5 if centring else None)
    with torch.no_grad():
        y = call.run()
        ends: list[tuple[Tensor, Tensor]] = []
        for x in (call.leaves[place], call.baseline_leaves[place]):
            c = x - x.mean(axes, keepdim=True) if centring else x
            small = torch.finfo(x.dtype).eps if eps is None else eps
            ends.append((c, c.square().mean(axes, keepdim=True).add_(small).sqrt_()))
        (c, s), (c0, s0) = ends
        count = c.numel() // s.numel()
        spread = _Spread(
            axes, given.get("weight"), c / s + c0 / s0, (c + c0).div_(count), s + s0, centring
        )
    return _Normed.apply(call.leaves[place], y, spread)
