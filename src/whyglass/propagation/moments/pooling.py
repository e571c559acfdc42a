"""Means and variances of pools: exact for averages, by Clark (1961) for the larger of two."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine.calls import Call
from whyglass.propagation.moments.functions import gauss, root
from whyglass.propagation.moments.moments import Found, Random, Spread, changes, shared


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
    return call.run(), Spread(own, *shared(operands, change)).alone()


def _adaptive(size: int, out: int) -> Tensor:
    """How many entries each bin of adaptive pooling holds."""
    low = torch.arange(out) * size // out
    return -(-torch.arange(1, out + 1) * size // out) - low


def _each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def larger(a: tuple[Tensor, Spread], b: tuple[Tensor, Spread]) -> tuple[Tensor, Spread]:
    """Of two Gaussians: Clark (1961), equations 2 and 3 for the moments."""
    (m, s), (n, t) = a, b
    v, w = s.variance(), t.variance()
    both = torch.zeros_like(v)
    if s.shared is not None and t.shared is not None:
        both = (s.shared * t.shared).sum(0)
    width = root(v + w - 2 * both)
    _, share, density = gauss((m - n) / width)
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
    floor = float(x.mean.min() - 50 * root(spread.variance()).max() - 1)
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
