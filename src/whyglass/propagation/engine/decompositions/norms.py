"""Normalisation, variances and norms in elementary operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.errors import Unsupported


def axes_of(x: Tensor, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes that `dim` means, counted from the front; all of them for None."""
    if dim is None or dim == () or not x.dim():
        return tuple(range(x.dim()))
    return tuple(d % x.dim() for d in ((dim,) if isinstance(dim, int) else dim))


def _standardise(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(torch.square(centred).mean(axes, keepdim=True) + eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias within groups of channels."""
    groups = input.reshape(input.shape[0], num_groups, -1)
    return _affine(_standardise(groups, (-1,), eps).reshape(input.shape), weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """The input standardised over space, or by the running statistics."""
    if use_input_stats or running_mean is None or running_var is None:
        return _affine(_standardise(input, tuple(range(2, input.dim())), eps), weight, bias)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)


def with_tracked_weights(name: str) -> Callable[..., Tensor]:
    """A norm without weights, times the weight, plus the bias."""
    norm = getattr(F, name)

    def run(
        input: Tensor,
        *,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        cudnn_enabled: bool = True,
        cudnn_enable: bool = True,
        **settings: Any,
    ) -> Tensor:
        if name == "batch_norm":
            statistics = settings.pop("running_mean"), settings.pop("running_var")
            settings.pop("training", None)
            return _affine(norm(input, *statistics, **settings), weight, bias)
        if name == "instance_norm":
            return _affine(norm(input, **settings), weight, bias)
        if name == "group_norm":
            return _affine(norm(input, settings.pop("num_groups"), **settings), weight, bias)
        result = norm(input, settings.pop("normalized_shape"), **settings)
        result = result if weight is None else result * weight
        return result if bias is None else result + bias

    return run


def variance(
    input: Tensor,
    dim: int | Sequence[int] | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """sum (x - mean)^2 / (n - correction)."""
    axes = axes_of(input, dim)
    count = math.prod(input.shape[axis] for axis in axes)
    free = count - (float(unbiased) if correction is None else correction)
    centred = input - input.mean(axes, keepdim=True)
    return torch.square(centred).sum(axes, keepdim=keepdim) / free


def deviation(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The square root of the variance."""
    return torch.sqrt(variance(input, *args, **kwargs))


def variance_and_mean(
    input: Tensor, dim: int | Sequence[int] | None = None, *, keepdim: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """The variance and the mean along the same axes."""
    mean = input.mean(axes_of(input, dim), keepdim=keepdim)
    return variance(input, dim, keepdim=keepdim, **kwargs), mean


def deviation_and_mean(input: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """The square root of the variance, and the mean."""
    squared, mean = variance_and_mean(input, *args, **kwargs)
    return torch.sqrt(squared), mean


def norm(
    input: Tensor,
    p: float | str | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
    *,
    ord: float | str | None = None,
) -> Tensor:
    """(sum |x|^p)^(1/p), or the largest size."""
    order = p if ord is None else ord
    axes = axes_of(input, dim)
    if isinstance(order, str) and order not in {"fro", "inf", "-inf"}:
        raise Unsupported(
            f"the norm {order!r} of a matrix has no rule; that of its entries has one"
        )
    if ord not in {None, "fro", 2} and len(axes) == 2:
        raise Unsupported(
            f"the norm ord={ord!r} of a matrix has no rule: flatten it for that of its entries"
        )
    input = input if dtype is None else input.to(dtype)
    order = 2.0 if order is None or order == "fro" else float(order)
    if not order:
        raise Unsupported("the norm of order 0 counts entries that are not zero, which has no rule")
    if order == 2:
        return torch.sqrt(torch.square(input).sum(axes, keepdim=keepdim))
    size = input.abs()
    if math.isinf(order):
        return size.amax(axes, keepdim) if order > 0 else size.amin(axes, keepdim)
    if order == 1:
        return size.sum(axes, keepdim=keepdim)
    return size.pow(order).sum(axes, keepdim=keepdim).pow(1 / order)


def distance(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The norm of a difference."""
    return norm(input - other, p)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The norm of each row's difference."""
    return norm(x1 - x2 + eps, p, -1, keepdim)


def distance_matrix(
    x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | int | None = None
) -> Tensor:
    """The norm of the difference of every row of one and every row of the other."""
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> Tensor:
    """x / max(|x|, eps)."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps))."""
    sizes = [x.norm(2, dim).clamp_min(eps) for x in (x1, x2)]
    return (x1 * x2).sum(dim) / sizes[0] / sizes[1]


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha mean x^2)^beta, the mean over `size` neighbouring channels."""
    rows = torch.square(input).flatten(2).transpose(1, 2)
    padded = F.pad(rows, (size // 2, (size - 1) // 2))
    mean = F.avg_pool1d(padded, size, 1).transpose(1, 2).reshape(input.shape)
    return input / (mean * alpha + k).pow(beta)
