"""Means and variances of pooling: exact for averages, by Clark (1961) for the larger of two."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine.calls import Call
from whyglass.propagation.moments.functions import deviation_of, gauss
from whyglass.propagation.moments.moments import (
    Covariance,
    RandomOperand,
    Result,
    combined_factors,
    linear_part,
)


def average_pool(call: Call, operands: list[RandomOperand]) -> Result:
    """Moments of means over windows."""
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
        arguments = dict(zip(names, args, strict=False)) | kwargs
        if arguments.get("ceil_mode"):
            return None
        kernel = _each(arguments["kernel_size"], axes)
        count = torch.tensor(float(arguments.get("divisor_override") or math.prod(kernel))).to(
            x.mean
        )
        if not arguments.get("count_include_pad", True) and not arguments.get("divisor_override"):
            ones = torch.ones_like(x.mean[:1])
            pool: Any = getattr(F, call.op)
            padded = [arguments.get(n) for n in ("kernel_size", "stride", "padding")]
            count = count * pool(ones, padded[0], padded[1], padded[2] or 0)
    apply = linear_part(call, operands)
    diagonal = apply([x.covariance.diagonal]) / count
    return call.run(), Covariance(
        diagonal, *combined_factors(operands, apply)
    ).without_subtraction()


def _adaptive(size: int, out: int) -> Tensor:
    """The number of entries in each bin of adaptive pooling."""
    low = torch.arange(out) * size // out
    return -(-torch.arange(1, out + 1) * size // out) - low


def _each(value: Any, axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def larger(a: tuple[Tensor, Covariance], b: tuple[Tensor, Covariance]) -> tuple[Tensor, Covariance]:
    """The larger of two Gaussians, by Clark (1961), equations 2 and 3."""
    (m, s), (n, t) = a, b
    v, w = s.variance(), t.variance()
    both = torch.zeros_like(v)
    if s.factors is not None and t.factors is not None:
        both = (s.factors * t.factors).sum(0)
    width = deviation_of(v + w - 2 * both)
    _, share, density = gauss((m - n) / width)
    # Moments are taken about the larger mean, so that nothing cancels.
    base = torch.maximum(m, n)
    m, n = m - base, n - base
    mean = m * share + n * (1 - share) + width * density
    square = (m**2 + v) * share + (n**2 + w) * (1 - share) + (m + n) * width * density
    variance = (square - mean**2).clamp_min(0)
    if s.factors is None or t.factors is None:
        return mean + base, Covariance(variance)
    factors = share * s.factors + (1 - share) * t.factors
    return mean + base, Covariance((variance - factors.square().sum(0)).clamp_min(0), factors)


def max_pool(call: Call, operands: list[RandomOperand]) -> Result:
    """The largest of each window, by pairs."""
    (x,) = operands
    axes = int(call.op[-2])
    args, kwargs = call.arguments()
    names = "input kernel_size stride padding dilation ceil_mode return_indices".split()
    arguments = dict(zip(names, args, strict=False)) | kwargs
    if arguments.get("return_indices"):
        return None
    shape = x.mean.shape[-axes:]
    kernel = _each(arguments["kernel_size"], axes)
    stride = _each(arguments.get("stride") or kernel, axes)
    padding, dilation = (
        _each(arguments.get("padding", 0), axes),
        _each(arguments.get("dilation", 1), axes),
    )
    out = call.run().shape[-axes:]
    sides: list[int] = []
    for axis in reversed(range(axes)):
        needed = (out[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        sides += [padding[axis], max(0, needed - shape[axis] - padding[axis])]
    covariance = x.covariance.without_subtraction()
    # The padding is so low that it is never the largest.
    floor = float(x.mean.min() - 50 * deviation_of(covariance.variance()).max() - 1)
    mean = F.pad(x.mean, sides, value=floor)
    diagonal = F.pad(covariance.diagonal, sides)
    factors = None if covariance.factors is None else F.pad(covariance.factors, sides)
    parts: list[tuple[Tensor, Covariance]] = []
    for corner in itertools.product(*[range(k) for k in kernel]):
        window = (
            ...,
            *[
                slice(c * d, c * d + s * (o - 1) + 1, s)
                for c, d, s, o in zip(corner, dilation, stride, out, strict=True)
            ],
        )
        parts.append(
            (
                mean[window],
                Covariance(diagonal[window], None if factors is None else factors[window]),
            )
        )
    while len(parts) > 1:
        rest = parts[-1:] if len(parts) % 2 else []
        parts = [larger(a, b) for a, b in zip(parts[::2], parts[1::2], strict=False)] + rest
    return parts[0]
