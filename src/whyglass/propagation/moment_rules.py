"""Rules for means and variances, operation by operation, as if what enters were Gaussian.

Exact for affine operations; for the ReLU and its kin in closed form, for smooth functions by
Gauss-Hermite quadrature; for the larger of two by Clark (1961); for softmax to first order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine import Call
from whyglass.propagation.moments import Random, Rule, Spread, changes
from whyglass.propagation.operations import STRUCTURAL

INF = math.inf
NODES, _weights = np.polynomial.hermite_e.hermegauss(24)
WEIGHTS = _weights / _weights.sum()
SMOOTH = (
    "sigmoid tanh gelu silu mish elu celu selu softplus softsign hardswish logsigmoid log_sigmoid exp "
    "square tanhshrink"
).split()
SAME = frozenset("clone contiguous dropout dropout1d dropout2d dropout3d requires_grad".split())
# What a line does between two of its kinks: from, to, slope, offset.
Segment = tuple[float, float, "float | Tensor", float]
Found = tuple[Tensor, Spread] | None


def structural(call: Call, operands: list[Random]) -> Found:
    """Entries move."""
    if call.op in SAME and len(operands) == 1:
        return call.run(), operands[0].spread
    mean = call.run()
    if not isinstance(mean, Tensor):
        return None
    change = changes(call, operands)
    return mean, Spread(change([o.spread.own for o in operands]), *_shared(operands, change))


def _shared(
    operands: list[Random], run: Callable[[list[Tensor]], Tensor]
) -> tuple[Tensor | None, int]:
    """Factors of what a call makes, and their sign: all operands have them, or those count as zero."""
    known = [o.spread.shared for o in operands if o.spread.shared is not None]
    if not known:
        return None, 1
    parts = [
        o.spread.shared
        if o.spread.shared is not None
        else torch.zeros_like(o.mean).expand(len(known[0]), *o.mean.shape)
        for o in operands
    ]
    made = [run([part[r] for part in parts]) for r in range(len(known[0]))]
    return torch.stack(made), max(o.spread.sign for o in operands if o.spread.shared is not None)


def additive(call: Call, operands: list[Random]) -> Found:
    """Sums: variances that entries have for themselves add up, factors add."""
    mean, change = call.run(), changes(call, operands)
    own = torch.zeros_like(mean)
    for index, operand in enumerate(operands):
        # Its slope in the sum, a number.
        one = [torch.full_like(o.mean, float(place == index)) for place, o in enumerate(operands)]
        own = own + change(one) ** 2 * operand.spread.own
    return mean, Spread(own, *_shared(operands, change))


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
    return mean, Spread(own, *_shared(operands, change)).alone()


def average_pool(call: Call, operands: list[Random]) -> Found:
    """Means over windows."""
    (x,) = operands
    axes = int(call.op[-2])
    args, kwargs = call.arguments()
    shape = x.mean.shape[-axes:]
    if call.op.startswith("adaptive"):
        sizes = call.run().shape[-axes:]
        weights = [_adaptive(n, m) for n, m in zip(shape, sizes, strict=True)]
        count = torch.ones(()).to(x.mean)
        for axis, sums in enumerate(weights):
            count = count * sums.to(x.mean).reshape(-1, *[1] * (axes - 1 - axis))
    else:
        names = (
            "input kernel_size stride padding ceil_mode count_include_pad divisor_override".split()
        )
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.get("ceil_mode"):
            return None
        kernel = _each(given["kernel_size"], axes)
        count = torch.tensor(float(given.get("divisor_override") or math.prod(kernel))).to(x.mean)
        if not given.get("count_include_pad", True) and not given.get("divisor_override"):
            ones = torch.ones_like(x.mean[:1])
            pool: Any = getattr(F, call.op)
            padded = [given.get(n) for n in ("kernel_size", "stride", "padding")]
            count = count * pool(ones, padded[0], padded[1], padded[2] or 0)
    change = changes(call, operands)
    own = change([x.spread.own]) / count
    return call.run(), Spread(own, *_shared(operands, change)).alone()


def _adaptive(size: int, out: int) -> Tensor:
    """How many entries each bin of adaptive pooling holds."""
    low = torch.arange(out) * size // out
    return -(-torch.arange(1, out + 1) * size // out) - low


def _each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def elementwise(mean: Tensor, spread: Spread, moments: Moment) -> tuple[Tensor, Spread]:
    """y_i = f(x_i): factors pass by the mean slope, and what they leave of the variance is own."""
    spread = spread.alone()
    made, variance, slope = moments(mean, spread.variance())
    if spread.shared is None:
        return made, Spread(variance)
    shared = slope * spread.shared
    return made, Spread((variance - shared.square().sum(0)).clamp_min(0), shared)


# Mean, variance and E[f'] (by Stein's lemma the slope of the covariance) of f at a Gaussian.
Moment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def piecewise(
    segments: Sequence[Segment], mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a continuous function made of lines, in closed form.

    Moments are taken about f(mean), so that nothing cancels far from the kinks.
    """
    deviation = _deviation(var)
    here = torch.zeros_like(mean)
    for low, high, slope, offset in segments:
        here = torch.where((mean >= low) & (mean < high), slope * mean + offset, here)
    first, second, slopes = (torch.zeros_like(mean) for _ in range(3))
    # At an end: the distribution, the density, and the density times the place.
    below, left, left_times = (torch.zeros_like(mean) for _ in range(3))
    for _, high, slope, offset in segments:
        if high == INF:
            above, right, right_times = torch.ones_like(mean), 0.0, 0.0
        else:
            z, above, right = _gauss((high - mean) / deviation)
            right_times = z * right
        part, base = above - below, slope * mean + offset - here
        line, square = deviation * (left - right), var * (part + left_times - right_times)
        first = first + slope * line + base * part
        second = second + slope**2 * square + 2 * slope * base * line + base**2 * part
        slopes = slopes + slope * part
        below, left, left_times = above, right, right_times
    return here + first, (second - first**2).clamp_min(0), slopes


def _gauss(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z, its distribution and density; z is kept finite, where the density is zero."""
    z = z.clamp(-40, 40)
    return z, torch.special.ndtr(z), torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)


def _deviation(var: Tensor) -> Tensor:
    return var.clamp_min(torch.finfo(var.dtype).tiny).sqrt()


def quadrature(
    f: Callable[[Tensor], Tensor], mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of a smooth function, at 24 nodes."""
    deviation, here = _deviation(var), f(mean)
    first, second, covariance = (torch.zeros_like(mean) for _ in range(3))
    for node, weight in zip(NODES.tolist(), WEIGHTS.tolist(), strict=True):
        off = f(mean + deviation * node) - here
        first, second = first + weight * off, second + weight * off**2
        covariance = covariance + weight * node * off
    return here + first, (second - first**2).clamp_min(0), covariance / deviation


def relu_like(call: Call, operands: list[Random]) -> Found:
    """Functions made of lines."""
    args, kwargs = call.arguments()
    if len(operands) > 1 or not args or args[0] is not operands[0].mean:
        return None
    segments = _segments(call.op, args, kwargs)
    if segments is None:
        return None
    return elementwise(operands[0].mean, operands[0].spread, partial(piecewise, segments))


def _segments(op: str, args: list[Any], kwargs: dict[str, Any]) -> list[Segment] | None:
    def argument(place: int, name: str, default: Any) -> Any:
        return args[place] if len(args) > place else kwargs.get(name, default)

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


def smooth(call: Call, operands: list[Random]) -> Found:
    """Elementwise functions without kinks, or with gentle ones."""
    if len(operands) > 1:
        return None
    (x,) = operands
    return elementwise(
        x.mean, x.spread, partial(quadrature, lambda value: call.run({x.place: value}))
    )


def larger(a: tuple[Tensor, Spread], b: tuple[Tensor, Spread]) -> tuple[Tensor, Spread]:
    """Of two Gaussians: Clark (1961), equations 2 and 3 for the moments."""
    (m, s), (n, t) = a, b
    v, w = s.variance(), t.variance()
    both = torch.zeros_like(v)
    if s.shared is not None and t.shared is not None:
        both = (s.shared * t.shared).sum(0)
    width = _deviation(v + w - 2 * both)
    _, share, density = _gauss((m - n) / width)
    # About the larger mean, so that nothing cancels.
    base = torch.maximum(m, n)
    m, n = m - base, n - base
    mean = m * share + n * (1 - share) + width * density
    square = (m**2 + v) * share + (n**2 + w) * (1 - share) + (m + n) * width * density
    variance = (square - mean**2).clamp_min(0)
    if s.shared is None or t.shared is None:
        return mean + base, Spread(variance)
    shared = share * s.shared + (1 - share) * t.shared
    return mean + base, Spread((variance - shared.square().sum(0)).clamp_min(0), shared)


def max_pool(call: Call, operands: list[Random]) -> Found:
    """The largest of each window, two by two."""
    (x,) = operands
    axes = int(call.op[-2])
    args, kwargs = call.arguments()
    names = "input kernel_size stride padding dilation ceil_mode return_indices".split()
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.get("return_indices"):
        return None
    shape = x.mean.shape[-axes:]
    kernel = _each(given["kernel_size"], axes)
    stride = _each(given.get("stride") or kernel, axes)
    padding, dilation = _each(given.get("padding", 0), axes), _each(given.get("dilation", 1), axes)
    out = call.run().shape[-axes:]
    sides: list[int] = []
    for axis in reversed(range(axes)):
        needed = (out[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        sides += [padding[axis], max(0, needed - shape[axis] - padding[axis])]
    spread = x.spread.alone()
    # Beyond the border, so far below that it is never the largest.
    floor = float(x.mean.min() - 50 * _deviation(spread.variance()).max() - 1)
    mean = F.pad(x.mean, sides, value=floor)
    own = F.pad(spread.own, sides)
    shared = None if spread.shared is None else F.pad(spread.shared, sides)
    parts: list[tuple[Tensor, Spread]] = []
    for corner in itertools.product(*[range(k) for k in kernel]):
        window = (
            ...,
            *[
                slice(c * d, c * d + s * (o - 1) + 1, s)
                for c, d, s, o in zip(corner, dilation, stride, out, strict=True)
            ],
        )
        parts.append(
            (mean[window], Spread(own[window], None if shared is None else shared[window]))
        )
    while len(parts) > 1:
        rest = parts[-1:] if len(parts) % 2 else []
        parts = [larger(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)] + rest
    return parts[0]


def log_sum_exp(call: Call, operands: list[Random]) -> Found:
    """To first order: log sum exp of the means, variances by the softmax there."""
    (x,) = operands
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    keep = bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False))
    if isinstance(dim, tuple | list):
        (dim,) = dim
    if not isinstance(dim, int):
        return None
    share, spread = x.mean.softmax(dim), x.spread.alone()
    own = (share**2 * spread.own).sum(dim, keepdim=keep)
    if spread.shared is None:
        return call.run(), Spread(own)
    shared = torch.stack([(share * part).sum(dim, keepdim=keep) for part in spread.shared])
    return call.run(), Spread(own, shared)


def softmax(call: Call, operands: list[Random]) -> Found:
    """The sigmoid of log-odds, which are Gaussian to first order; log_softmax to first order."""
    (x,) = operands
    args, kwargs = call.arguments()
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    if not isinstance(dim, int):
        return None
    spread, share = x.spread.alone(), x.mean.softmax(dim)
    logs = call.op == "log_softmax"
    rest = (1 - share).clamp_min(torch.finfo(share.dtype).eps)
    odds = x.mean.log_softmax(dim) - (0 if logs else rest.log())
    # The derivative of entry c by c is `mine`, by another one that one's share times -`weight`.
    mine, weight = (
        (1 - share, torch.ones_like(share)) if logs else (torch.ones_like(share), 1 / rest)
    )

    def without(part: Tensor, power: int) -> Tensor:
        terms = share**power * part
        mixed = terms.sum(dim, keepdim=True) - terms
        return mine**power * part + (-weight) ** power * mixed

    own, shared = without(spread.own, 2), None
    if spread.shared is not None:
        shared = torch.stack([without(part, 1) for part in spread.shared])
    if logs:
        return odds, Spread(own, shared)
    return elementwise(odds, Spread(own, shared), partial(quadrature, torch.sigmoid))


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
