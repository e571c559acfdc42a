"""DeepLIFT's rules: multipliers m with sum_i m_i (x_i - x'_i) equal to the change of the output.

A linear operation's multipliers are its weights, which its own backward pass gives. This module holds
the other rules. A multiplier travels as the gradient does, so the chain rule of Shrikumar et al.
(2017), equation 3, is torch's backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call, StraightThrough, derivative
from whyglass.propagation.engine.linear_operations import norm_scale, per_channel

PIECEWISE = frozenset({"relu", "relu6", "hardtanh", "leaky_relu", "threshold", "clamp", "abs"})
# A difference below this share of its operands is rounding, and the slope there is the derivative.
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-6}


class Scaled(torch.autograd.Function):
    """Forwards y is unchanged; backwards each multiplier is scaled by a slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return multipliers[0] * slope, None, None


class Scratch:
    """Reused memory for one difference: fresh memory costs more than the subtraction."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def difference(self, x: Tensor, before: Tensor) -> Tensor:
        """x - x', valid until the next call."""
        memory = self._memory
        if memory.dtype != x.dtype or memory.device != x.device or memory.numel() < x.numel():
            memory = self._memory = x.new_empty(x.numel())
        return torch.sub(x, before, out=memory[: x.numel()].view(x.shape))


def rescale(call: Call, scratch: Scratch) -> Tensor:
    """The Rescale rule of y = f(x): m_x = m_y (y - y') / (x - x'), the derivative where x = x'.

    Shrikumar et al. (2017), section 3.5.2.
    """
    x, before = call.leaves[call.operands[0]], call.baseline_leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run({call.operands[0]: x.detach()})
        slope = _mean_slope(call, x.detach(), before, y, scratch)
    return Scaled.apply(x, y, slope)


def _mean_slope(call: Call, x: Tensor, before: Tensor, y: Tensor, scratch: Scratch) -> Tensor:
    if call.op in CLOSED:
        return CLOSED[call.op](x, before, y, call.at_baseline)
    step = scratch.difference(x, before)
    slope = (y - call.at_baseline).div_(step)
    if call.op in PIECEWISE:
        return _with_derivatives(call, x, slope)
    # Masks of minus infinity are equal and have no difference.
    size = torch.maximum(x.abs(), before.abs())
    near = (x == before) | (step.abs() <= ROUNDING.get(x.dtype, 1e-6) * size)
    if not near.any():
        return slope
    # A square root at zero has no slope; without a change it needs none.
    return torch.where(near, derivative(call).nan_to_num(0.0, 0.0, 0.0), slope)


def _with_derivatives(call: Call, x: Tensor, slope: Tensor) -> Tensor:
    """The slopes, with the derivative where 0 / 0 left none; elsewhere straight pieces need none."""
    if math.isfinite(slope.sum()):
        return slope
    if any(isinstance(leaf, Tensor) and leaf is not x for leaf in call.leaves[1:]):
        return torch.where(slope.isnan(), derivative(call), slope)
    slope = slope.contiguous()
    flat = slope.view(-1)
    positions = _undefined(flat)
    flat[positions] = derivative(call, x.flatten()[positions]).nan_to_num(0.0, 0.0, 0.0)
    return slope


def _undefined(flat: Tensor) -> Tensor:
    """The places of NaN, which numpy finds ten times faster on a CPU."""
    if flat.device.type == "cpu" and flat.dtype in ROUNDING:
        return torch.from_numpy(np.flatnonzero(np.isnan(flat.numpy())))
    return flat.isnan().nonzero()[:, 0]


def batch_norm(call: Call) -> Tensor:
    """The multipliers of a batch norm by running statistics: a scale for each channel."""
    x = call.leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run()
    return Scaled.apply(x, y, per_channel(norm_scale(call), y))


def _square_root(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    """The slope 1 / (y + y'), or 0 where both are zero and nothing changed."""
    total = y + y0
    return torch.where(total == 0, 0.0, 1 / total)


# Mean slopes that have a closed form, of (x, x', y, y').
CLOSED: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "square": lambda x, x0, _y, _y0: x + x0,
    "sqrt": _square_root,
    "reciprocal": lambda _x, _x0, y, y0: -y * y0,
}


class _Product(torch.autograd.Function):
    """Forwards y is unchanged; backwards each matrix meets the mean of the other at both ends."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, y: Tensor, a0: Tensor, b0: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, a0, b0)
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor | None, ...]:
        a, b, a0, b0 = ctx.saved_tensors
        half = multipliers[0] / 2
        return half @ (b + b0).mT, (a + a0).mT @ half, None, None, None


def product(call: Call) -> Tensor:
    """The multipliers of a bilinear y = f(a, b): f with the mean of the other operand at both ends.

    f(a, b) - f(a', b') = f(a - a', (b + b') / 2) + f((a + a') / 2, b - b'): each term is the Shapley
    value of one of two players, a and b. Both multipliers are the gradient of f at the means.
    """
    with torch.no_grad():
        value = call.run()
    pairs = [(call.leaves[position], call.baseline_leaves[position]) for position in call.operands]
    shapes = [pair[0].shape for pair in pairs]
    matrices = call.op in {"matmul", "bmm"} and min(map(len, shapes)) >= 2
    if matrices and shapes[0][:-2] == shapes[1][:-2]:
        (a, a0), (b, b0) = pairs
        return _Product.apply(a, b, value, a0, b0)
    means: dict[int, Tensor] = {}
    with torch.no_grad():
        halfway = {p: (call.leaves[p] + call.baseline_leaves[p]) / 2 for p in call.operands}
    for position, middle in halfway.items():
        means[position] = StraightThrough.apply(call.leaves[position], middle)
    return StraightThrough.apply(call.run(means), value)


def quotient(call: Call) -> Tensor:
    """The multipliers of y = a / b: the product rule of a = y b, solved for y.

    y - y' = (a - a' - (y + y') / 2 (b - b')) / ((b + b') / 2). Where b changes its sign that could
    divide by zero, and the multipliers are those of the product of a and 1 / b. Norms have a
    denominator near zero at a baseline of zero: a product throughout would give it half the weight.
    """
    (a, a0), (b, b0) = zip(call.leaves, call.baseline_leaves, strict=True)
    with torch.no_grad():
        y, total = call.run(), b + b0
        per_a, per_b = 2 / total, -(y + call.at_baseline) / total
        same = (b > 0) == (b0 > 0)
        if not same.all():
            per_a = torch.where(same, per_a, (1 / b + 1 / b0) / 2)
            per_b = torch.where(same, per_b, -(a + a0) / (2 * b * b0))
    parts = [call.leaves[position] * (per_a, per_b)[position] for position in call.operands]
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return StraightThrough.apply(total.expand_as(y), y)
