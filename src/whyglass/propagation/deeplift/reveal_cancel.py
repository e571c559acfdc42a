"""DeepLIFT's RevealCancel rule: positive and negative terms of a sum have a multiplier each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.deeplift.rules import ROUNDING
from whyglass.propagation.engine.calls import Call, derivative
from whyglass.propagation.engine.linear_operations import (
    scale_output_channels,
    unbiased,
    weight_position,
)


@dataclass(frozen=True)
class WeightedSum:
    """A sum made by a weighted operation; `scale` is that of a batch norm behind it."""

    call: Call
    scale: Tensor | None = None


class _RevealCancel(torch.autograd.Function):
    """Forwards y is unchanged; backwards positive and negative terms have a multiplier each."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, y: Tensor, terms_by_sign: _SignedTerms) -> Tensor:
        ctx.terms_by_sign = terms_by_sign
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        return ctx.terms_by_sign.back(multipliers[0]), None, None


@dataclass(frozen=True)
class _SignedTerms:
    """The positive and negative terms of a sum, as graphs over the rises and falls of its input."""

    parts: tuple[Tensor, Tensor]
    changes: tuple[Tensor, Tensor]
    slopes: tuple[Tensor, Tensor]

    def back(self, multiplier: Tensor) -> Tensor:
        over = [multiplier * slope for slope in self.slopes]
        up, down = torch.autograd.grad(self.parts, self.changes, over, retain_graph=True)
        rise, fall = self.changes
        return torch.where(rise > 0, up, torch.where(fall < 0, down, (up + down) / 2))


def reveal_cancel(call: Call, source: WeightedSum) -> Tensor:
    """The RevealCancel rule of y = f(x), x being a sum: its positive and negative terms apart.

    Each multiplier is the mean effect of adding those terms before the others and after them:
    dy+ = (f(x' + dx+) - f(x') + f(x' + dx+ + dx-) - f(x' + dx-)) / 2, and dy- likewise.
    Shrikumar et al. (2017), section 3.5.3.
    """
    position, before = call.operands[0], call.baseline_leaves[call.operands[0]]
    operand = source.call.operands[0]
    u, u0 = source.call.leaves[operand], source.call.baseline_leaves[operand]
    weights = weight_position(source.call)
    assert weights is not None
    w = scale_output_channels(source.call.leaves[weights].detach(), source.scale)
    difference = u.detach() - u0
    changes = (difference.clamp_min(0).requires_grad_(), difference.clamp_max(0).requires_grad_())
    with torch.enable_grad():
        terms = [
            [unbiased(source.call, {operand: change}, part) for change in changes]
            for part in (w.clamp_min(0), w.clamp_max(0))
        ]
        parts = (terms[0][0] + terms[1][1], terms[0][1] + terms[1][0])
    with torch.no_grad():
        y = call.run({position: call.leaves[position].detach()})
        y0 = call.at_baseline
        alone = [call.run({position: before + part}) for part in parts]
        slopes: list[Tensor] = []
        size = torch.maximum(call.leaves[position].detach().abs(), before.abs())
        for part, one, other in zip(parts, alone, alone[::-1], strict=True):
            slope = (one - y0 + y - other) / (2 * part)
            near = part.abs() <= ROUNDING.get(y.dtype, 1e-6) * size
            if bool(near.any()):
                slope = torch.where(near, (derivative(call) + derivative(call, before)) / 2, slope)
            slopes.append(slope)
    terms_by_sign = _SignedTerms(parts, changes, (slopes[0], slopes[1]))
    return _RevealCancel.apply(u, y, terms_by_sign)
