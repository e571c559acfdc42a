"""DeepLIFT's rules: multipliers m with sum_i m_i (x_i - x'_i) equal to the change of the output.

A linear operation's multipliers are its weights, which its own backward pass gives. These are the
others. A multiplier travels as the gradient does, so the chain rule of Shrikumar et al. (2017),
equation 3, is torch's backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine import Call, Kept, derivative
from whyglass.propagation.weighted import along, norm_scale, scaled, unbiased, weight_place

PIECEWISE = frozenset({"relu", "relu6", "hardtanh", "leaky_relu", "threshold", "clamp", "abs"})
# Below this share of its size a difference is rounding, and the slope there the derivative.
SAME = {torch.float64: 1e-13, torch.float32: 1e-6}


class _Scaled(torch.autograd.Function):
    """y as it is; backwards each multiplier times a slope of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return multipliers[0] * slope, None, None


class Scratch:
    """Memory for one difference at a time: fresh memory costs more than the subtraction."""

    def __init__(self) -> None:
        self._held = torch.empty(0)

    def difference(self, x: Tensor, before: Tensor) -> Tensor:
        """x - x', until something else is asked for."""
        held = self._held
        if held.dtype != x.dtype or held.device != x.device or held.numel() < x.numel():
            held = self._held = x.new_empty(x.numel())
        return torch.sub(x, before, out=held[: x.numel()].view(x.shape))

    def gaps(self, slope: Tensor) -> Tensor:
        """Where a slope is no number, as a flat mask, until something else is asked for."""
        flat = slope.flatten()
        return torch.ne(flat, flat, out=self._held.view(torch.bool)[: flat.numel()])


def rescale(call: Call, scratch: Scratch) -> Tensor:
    """Elementwise y = f(x): m_x = m_y (y - y') / (x - x'), the derivative where x = x'.

    Shrikumar et al. (2017), section 3.5.2.
    """
    x, before = call.leaves[call.operands[0]], call.baseline_leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run({call.operands[0]: x.detach()})
        slope = _mean_slope(call, x.detach(), before, y, scratch)
    return _Scaled.apply(x, y, slope)


def _mean_slope(call: Call, x: Tensor, before: Tensor, y: Tensor, scratch: Scratch) -> Tensor:
    if call.op in CLOSED:
        return CLOSED[call.op](x, before, y, call.at_baseline)
    step = scratch.difference(x, before)
    slope = (y - call.at_baseline).div_(step)
    if call.op in PIECEWISE:
        return _without_gaps(call, x, slope, scratch)
    # Masks of minus infinity are equal and have no difference.
    size = torch.maximum(x.abs(), before.abs())
    near = (x == before) | (step.abs() <= SAME.get(x.dtype, 1e-6) * size)
    if not near.any():
        return slope
    # A square root at zero has no slope; without a change it needs none.
    return torch.where(near, derivative(call).nan_to_num(0.0, 0.0, 0.0), slope)


def _without_gaps(call: Call, x: Tensor, slope: Tensor, scratch: Scratch) -> Tensor:
    """On straight pieces a slope is right but where there is no difference: there 0 / 0."""
    if math.isfinite(slope.sum()):
        return slope
    gaps = scratch.gaps(slope)
    if any(isinstance(leaf, Tensor) and leaf is not x for leaf in call.leaves[1:]):
        return torch.where(gaps.view(x.shape), derivative(call), slope)
    places = _places(gaps)
    slope.view(-1)[places] = derivative(call, x.flatten()[places]).nan_to_num(0.0, 0.0, 0.0)
    return slope


def _places(mask: Tensor) -> Tensor:
    """Where a flat mask is true: on a processor numpy finds them many times faster."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return mask.nonzero()[:, 0]


def batch_norm(call: Call) -> Tensor:
    """A scale and a shift a channel: the multipliers times the scale."""
    x = call.leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run()
    return _Scaled.apply(x, y, along(norm_scale(call), y))


@dataclass(frozen=True)
class Sum:
    """A weighted operation as the source of a sum; `scale` is that of a batch norm behind it."""

    call: Call
    scale: Tensor | None = None


class _Apart(torch.autograd.Function):
    """y as it is; backwards a multiplier for the positive terms of the sum and one for the negative."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, y: Tensor, cancelled: _Cancelled) -> Tensor:
        ctx.cancelled = cancelled
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None]:
        return ctx.cancelled.back(multipliers[0]), None, None


@dataclass(frozen=True)
class _Cancelled:
    """The positive and negative terms of a sum, as graphs over the rises and falls of its input."""

    parts: tuple[Tensor, Tensor]
    ways: tuple[Tensor, Tensor]
    slopes: tuple[Tensor, Tensor]

    def back(self, multiplier: Tensor) -> Tensor:
        over = [multiplier * slope for slope in self.slopes]
        up, down = torch.autograd.grad(self.parts, self.ways, over, retain_graph=True)
        rise, fall = self.ways
        return torch.where(rise > 0, up, torch.where(fall < 0, down, (up + down) / 2))


def reveal_cancel(call: Call, source: Sum) -> Tensor:
    """Elementwise y = f(x) of a sum x, whose positive and negative terms have a multiplier each.

    Each is the mean effect of adding those terms before the others and after them:
    dy+ = (f(x' + dx+) - f(x') + f(x' + dx+ + dx-) - f(x' + dx-)) / 2, and dy- likewise.
    Shrikumar et al. (2017), section 3.5.3.
    """
    place, before = call.operands[0], call.baseline_leaves[call.operands[0]]
    given = source.call.operands[0]
    u, start = source.call.leaves[given], source.call.baseline_leaves[given]
    weights = weight_place(source.call)
    assert weights is not None
    w = scaled(source.call.leaves[weights].detach(), source.scale)
    step = u.detach() - start
    ways = (step.clamp_min(0).requires_grad_(), step.clamp_max(0).requires_grad_())
    with torch.enable_grad():
        terms = [
            [unbiased(source.call, {given: way}, part) for way in ways]
            for part in (w.clamp_min(0), w.clamp_max(0))
        ]
        parts = (terms[0][0] + terms[1][1], terms[0][1] + terms[1][0])
    with torch.no_grad():
        y = call.run({place: call.leaves[place].detach()})
        at_start = call.at_baseline
        alone = [call.run({place: before + part}) for part in parts]
        slopes: list[Tensor] = []
        size = torch.maximum(call.leaves[place].detach().abs(), before.abs())
        for part, one, other in zip(parts, alone, alone[::-1], strict=True):
            slope = (one - at_start + y - other) / (2 * part)
            near = part.abs() <= SAME.get(y.dtype, 1e-6) * size
            if bool(near.any()):
                slope = torch.where(near, (derivative(call) + derivative(call, before)) / 2, slope)
            slopes.append(slope)
    cancelled = _Cancelled(parts, ways, (slopes[0], slopes[1]))
    return _Apart.apply(u, y, cancelled)


def _square_root(x: Tensor, x0: Tensor, y: Tensor, y0: Tensor) -> Tensor:
    """1 / (y + y'); where nothing changed from zero there is nothing to scale."""
    total = y + y0
    return torch.where(total == 0, 0.0, 1 / total)


# Mean slopes that have a closed form, of (x, x', y, y').
CLOSED: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "square": lambda x, x0, _y, _y0: x + x0,
    "sqrt": _square_root,
    "reciprocal": lambda _x, _x0, y, y0: -y * y0,
}


class _Product(torch.autograd.Function):
    """y as it is; backwards the product of matrices with the other one's mean of both ends."""

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
    """Bilinear y = f(a, b): each operand's multiplier is f with the other's mean of both ends.

    f(a, b) - f(a', b') = f(a - a', (b + b') / 2) + f((a + a') / 2, b - b'): the Shapley value of two
    players, of which one is a and the other b. Both are the gradient of f at the means.
    """
    with torch.no_grad():
        value = call.run()
    pairs = [(call.leaves[place], call.baseline_leaves[place]) for place in call.operands]
    shapes = [pair[0].shape for pair in pairs]
    matrices = call.op in {"matmul", "bmm"} and min(map(len, shapes)) >= 2
    if matrices and shapes[0][:-2] == shapes[1][:-2]:
        (a, a0), (b, b0) = pairs
        return _Product.apply(a, b, value, a0, b0)
    means: dict[int, Tensor] = {}
    with torch.no_grad():
        halfway = {p: (call.leaves[p] + call.baseline_leaves[p]) / 2 for p in call.operands}
    for place, middle in halfway.items():
        means[place] = Kept.apply(call.leaves[place], middle)
    return Kept.apply(call.run(means), value)


def quotient(call: Call) -> Tensor:
    """y = a / b: the product rule of a = y b, solved for y.

    y - y' = (a - a' - (y + y') / 2 (b - b')) / ((b + b') / 2). Where b changes its sign that could
    divide by zero: there it is the product of a and 1 / b. A product throughout would give the
    reciprocal of a denominator near zero, as norms have at a baseline of zero, half of all the weight.
    """
    (a, a0), (b, b0) = zip(call.leaves, call.baseline_leaves, strict=True)
    with torch.no_grad():
        y, total = call.run(), b + b0
        per_a, per_b = 2 / total, -(y + call.at_baseline) / total
        same = (b > 0) == (b0 > 0)
        if not same.all():
            per_a = torch.where(same, per_a, (1 / b + 1 / b0) / 2)
            per_b = torch.where(same, per_b, -(a + a0) / (2 * b * b0))
    parts = [call.leaves[place] * (per_a, per_b)[place] for place in call.operands]
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return Kept.apply(total.expand_as(y), y)


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
    found = _Scaled.apply(x, y, weights)
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


class _Routed(torch.autograd.Function):
    """y as it is; backwards each multiplier goes, scaled, to two places of the flat input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, places: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(places, scales)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None, None]:
        places, scales = ctx.saved_tensors
        flat = multipliers[0].new_zeros(ctx.shape).flatten(0, 1).flatten(1)
        found = (multipliers[0] * scales).flatten(1, 2).flatten(2)
        for way, place in zip(found, places.flatten(1, 2).flatten(2), strict=True):
            flat.scatter_add_(1, place, way)
        return flat.reshape(ctx.shape), None, None, None


def max_pool(call: Call) -> Any:
    """y = max over a window, overlapping or not; exact for the change of every output.

    With m = max(y, y'), the rise m - y' goes to the input's largest place and the fall y - m to the
    baseline's largest place. Both places changed by at least as much, so no multiplier exceeds 1.
    """
    place = call.operands[0]
    x, before = call.leaves[place], call.baseline_leaves[place]
    dims = int(call.op.rstrip("d")[-1])
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
    if call.op.startswith("adaptive"):
        pool = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[dims]
    batched = x if x.dim() == dims + 2 else x.unsqueeze(0)
    settings = _settings(call)
    with torch.no_grad():
        other = before if before.dim() == dims + 2 else before.unsqueeze(0)
        y, here = pool(batched.detach(), **settings, return_indices=True)
        y0, there = pool(other, **settings, return_indices=True)
        highest = torch.maximum(y, y0)
        step = (batched.detach() - other).flatten(2)
        scales = [
            torch.where(change == 0, 0.0, change / step.gather(2, at.flatten(2)).view_as(change))
            for change, at in ((highest - y0, here), (y - highest, there))
        ]
    found = _Routed.apply(batched, y, torch.stack([here, there]), torch.stack(scales))
    return found if batched is x else found.squeeze(0)


def _settings(call: Call) -> dict[str, Any]:
    """Arguments of a pooling call by name."""
    names = ("output_size",) if call.op.startswith("adaptive") else (
        "kernel_size", "stride", "padding", "dilation", "ceil_mode",
    )  # fmt: skip
    args, kwargs = call.arguments()
    given = dict(zip(names, args[1:], strict=False)) | kwargs
    return {name: given[name] for name in names if given.get(name) is not None}
