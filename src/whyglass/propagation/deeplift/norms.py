r"""DeepLIFT through layer, RMS, group and instance norm, in closed form.

A norm is y = n w + b, n = c / s, s^2 = mean c^2 + eps, with c = x - mean x or, in RMS norm, x. With
the mean slopes of the quotient, the square root and the square, g = m w and t = s + s',

.. math:: m_c = \frac{1}{t} \Big( 2 g - \frac{c + c'}{N} \, \frac{\sum_i g_i (n + n')_i}{t} \Big)

Centring takes the mean of m_c out of it, so that multipliers add up to zero, and a common shift of
all x has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.deeplift.rounding import Rounding
from whyglass.propagation.deeplift.rules import Scaled
from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.linear_operations import per_channel


@dataclass(frozen=True)
class _Ends:
    """What the multipliers need of input and baseline, in groups along the last axis.

    These are n + n', (c + c') / N, s + s' and the largest |x - x'|.
    """

    normalised: Tensor
    centred: Tensor
    deviation: Tensor
    largest: Tensor
    weight: Tensor | None
    centring: bool


class _Normed(torch.autograd.Function):
    """Forwards y is unchanged; backwards the multipliers of a norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, ends: _Ends, rounding: Rounding) -> Tensor:
        ctx.ends, ctx.note = ends, rounding.operation(x.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None, None]:
        ends: _Ends = ctx.ends
        g = multipliers[0] if ends.weight is None else multipliers[0] * ends.weight
        g = g.reshape(ends.normalised.shape)
        pull = (g * ends.normalised).sum(-1, keepdim=True).div_(ends.deviation)
        own, joint = (g * 2).div_(ends.deviation), (pull * ends.centred).div_(ends.deviation)
        m = own - joint
        if ends.centring:
            m = m.sub_(m.mean(-1, keepdim=True))
        ctx.note((own.abs_() + joint.abs_()).sum(-1, keepdim=True) * ends.largest)
        return m.reshape(multipliers[0].shape), None, None, None


def layer_norm(call: Call, rounding: Rounding) -> Tensor:
    """Layer norm over the last axes."""
    arguments = call.bound
    axes = len(tuple(arguments["normalized_shape"]))
    shape = (*call.leaves[call.operands[0]].shape[:-axes], -1)
    return _norm(call, rounding, shape, arguments.get("weight"), arguments.get("eps", 1e-5))


def rms_norm(call: Call, rounding: Rounding) -> Tensor:
    """RMS norm over the last axes, which does not centre."""
    arguments = call.bound
    x, axes = call.leaves[call.operands[0]], len(tuple(arguments["normalized_shape"]))
    eps = arguments.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    shape = (*x.shape[:-axes], -1)
    return _norm(call, rounding, shape, arguments.get("weight"), eps, centring=False)


def group_norm(call: Call, rounding: Rounding) -> Tensor:
    """Group norm: groups of channels, and all of space."""
    arguments = call.bound
    x = call.leaves[call.operands[0]]
    weight = _by_channel(arguments.get("weight"), x)
    shape = (len(x), arguments["num_groups"], -1)
    return _norm(call, rounding, shape, weight, arguments.get("eps", 1e-5))


def instance_norm(call: Call, rounding: Rounding) -> Tensor:
    """Instance norm: each channel over space, or a scale by running statistics."""
    arguments = call.bound
    x, eps = call.leaves[call.operands[0]], arguments.get("eps", 1e-5)
    weight = _by_channel(arguments.get("weight"), x)
    variance = arguments.get("running_var")
    if arguments.get("use_input_stats", True) or variance is None:
        return _norm(call, rounding, (*x.shape[:2], -1), weight, eps)
    with torch.no_grad():
        scale = per_channel(torch.rsqrt(variance + eps), x)
        return Scaled.apply(x, call.run(), scale if weight is None else scale * weight)


def _by_channel(weight: Tensor | None, x: Tensor) -> Tensor | None:
    return None if weight is None else per_channel(weight.detach(), x)


def _norm(
    call: Call,
    rounding: Rounding,
    shape: tuple[int, ...],
    weight: Tensor | None,
    eps: float,
    centring: bool = True,
) -> Tensor:
    """A norm of x in groups of this shape, times a weight shaped to meet x."""
    position = call.operands[0]
    x, x0 = call.leaves[position], call.baseline_leaves[position]
    with torch.no_grad():
        y = call.run()
        (c, s), (c0, s0) = (_standardised(at.reshape(shape), eps, centring) for at in (x, x0))
        ends = _Ends(
            c / s + c0 / s0,
            (c + c0).div_(c.shape[-1]),
            s + s0,
            (x - x0).reshape(shape).abs_().amax(-1, keepdim=True),
            weight,
            centring,
        )
    return _Normed.apply(x, y, ends, rounding)


def _standardised(x: Tensor, eps: float, centring: bool) -> tuple[Tensor, Tensor]:
    """c and s of a norm along the last axis."""
    c = x - x.mean(-1, keepdim=True) if centring else x
    return c, c.square().mean(-1, keepdim=True).add_(eps).sqrt_()
