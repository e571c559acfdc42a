"""DeepLIFT through softmax and norms: the rules of their elementary operations, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.deeplift.rules import Scaled
from whyglass.propagation.engine.calls import Call


def _mean_decay(d: Tensor) -> Tensor:
    """The mean of exp(-t) for t from 0 to d >= 0, which is (1 - exp(-d)) / d, or 1 at d = 0."""
    d = d.clamp_min(torch.finfo(d.dtype).tiny)
    return torch.expm1(-d).div_(d).neg_()


def logsumexp(call: Call) -> Tensor:
    """The multipliers of y = log sum_j exp(x_j), by the Rescale rule of exp and log, in logarithms.

    With L(u, v) = (u - v) / log(u / v) the multipliers are L(exp x_j, exp x'_j) / L(exp y, exp y').
    The logarithmic mean L is concave and homogeneous, so they add up to at most 1, however far apart
    input and baseline are.
    """
    place = call.operands[0]
    x, before = call.leaves[place], call.baseline_leaves[place]
    args, kwargs = call.arguments()
    arguments = dict(zip(("dim", "keepdim"), args[1:], strict=False)) | kwargs
    with torch.no_grad():
        y = torch.logsumexp(x, arguments["dim"], keepdim=True)
        weights, _ = _log_sum_weights(x.detach(), before, arguments["dim"])
    kept = Scaled.apply(x, y, weights)
    return kept if arguments.get("keepdim") else kept.squeeze(arguments["dim"])


class _Softmax(torch.autograd.Function):
    """Forwards y is unchanged; backwards the rules of y = exp(x - log sum exp x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, dim: int, slope: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(slope, weights)
        ctx.dim = dim
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor | None, ...]:
        slope, weights = ctx.saved_tensors
        of_logs = multipliers[0] * slope
        return of_logs - weights * of_logs.sum(ctx.dim, keepdim=True), None, None, None, None


def softmax(call: Call) -> Tensor:
    """The multipliers of y = exp(x - log sum exp x), by the Rescale rule of exp and by `logsumexp`."""
    place = call.operands[0]
    x, before = call.leaves[place], call.baseline_leaves[place]
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    with torch.no_grad():
        y, y0 = call.run(), call.at_baseline
        x, before = x.to(y.dtype), before.to(y.dtype)
        weights, change = _log_sum_weights(x.detach(), before, dim)
        largest = torch.maximum(y, y0)
        slope = largest * _mean_decay((x.detach() - before - change).abs())
        slope = torch.where(largest == 0, 0.0, slope)
    return _Softmax.apply(call.leaves[place].to(y.dtype), y, dim, slope, weights)


def _log_sum_weights(x: Tensor, before: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The multipliers of log sum exp, and its change, with the axis kept."""
    y, y0 = (torch.logsumexp(at, dim, keepdim=True) for at in (x, before))
    share = torch.exp(torch.maximum(x, before) - torch.maximum(y, y0))
    weights = share * _mean_decay((x - before).abs()) / _mean_decay((y - y0).abs())
    return torch.where(share == 0, 0.0, weights), y - y0


class _Normed(torch.autograd.Function):
    """Forwards y is unchanged; backwards the rules of y = n w + b, n = c / s, s^2 = mean c^2 + eps.

    With the quotient's, the square root's and the square's mean slopes, g = m w and t = s + s',
    m_c = (2 g - (c + c') / N sum_i g_i (n + n')_i / t) / t.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, ends: _NormEnds) -> Tensor:
        ctx.ends = ends
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        ends: _NormEnds = ctx.ends
        g = multipliers[0] if ends.weight is None else multipliers[0] * ends.weight
        pull = (g * ends.normalised).sum(ends.axes, keepdim=True).div_(ends.deviation)
        m = torch.addcmul(g * 2, pull, ends.centred, value=-1).div_(ends.deviation)
        if ends.centring:
            m = m.sub_(m.mean(ends.axes, keepdim=True))
        return m, None, None


@dataclass(frozen=True)
class _NormEnds:
    """What a norm's multipliers need of input and baseline: n + n', (c + c') / N and s + s'."""

    axes: tuple[int, ...]
    weight: Tensor | None
    normalised: Tensor
    centred: Tensor
    deviation: Tensor
    centring: bool


def norm(call: Call) -> Tensor:
    """Layer and RMS norm by the rules of their elementary operations, in closed form."""
    place = call.operands[0]
    centring = call.op == "layer_norm"
    names = ("input", "normalized_shape", "weight", *(("bias",) if centring else ()), "eps")
    args, kwargs = call.arguments()
    arguments = dict(zip(names, args, strict=False)) | kwargs
    axes = tuple(range(-len(tuple(arguments["normalized_shape"])), 0))
    eps = arguments.get("eps", 1e-5 if centring else None)
    with torch.no_grad():
        y = call.run()
        moments: list[tuple[Tensor, Tensor]] = []
        for x in (call.leaves[place], call.baseline_leaves[place]):
            c = x - x.mean(axes, keepdim=True) if centring else x
            small = torch.finfo(x.dtype).eps if eps is None else eps
            moments.append((c, c.square().mean(axes, keepdim=True).add_(small).sqrt_()))
        (c, s), (c0, s0) = moments
        count = c.numel() // s.numel()
        ends = _NormEnds(
            axes, arguments.get("weight"), c / s + c0 / s0, (c + c0).div_(count), s + s0, centring
        )
    return _Normed.apply(call.leaves[place], y, ends)
