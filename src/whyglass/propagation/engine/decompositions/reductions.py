"""Extremes, products, sorting and choices along an axis, in elementary operations.

An index is no number that relevance could pass through: which entry was chosen counts as fixed, what
the entry holds does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine.decompositions.norms import axes_of


def log_softmax(input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """x - log sum exp x."""
    axis = _softmax_axis(input, dim)
    input = input if dtype is None else input.to(dtype)
    return input - torch.logsumexp(input, axis, keepdim=True)


def softmin(input: Tensor, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """The softmax of -x."""
    return torch.softmax(-input, _softmax_axis(input, dim), dtype)


def _softmax_axis(input: Tensor, dim: int | None) -> int:
    """Where `F.softmax` without an axis takes one: the first of 0, 1 and 3 axes, else the second."""
    return dim if dim is not None else int(input.dim() not in {0, 1, 3})


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp x + exp y)."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2^x + 2^y)."""
    return logaddexp(input * math.log(2), other * math.log(2)) / math.log(2)


def highest(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """max x, as one pooling window over the axes."""
    if not input.dim():
        return input * 1
    axes = axes_of(input, dim)
    others = [axis for axis in range(input.dim()) if axis not in axes]
    sizes = [input.shape[axis] for axis in others]
    rows = input.permute(*others, *axes).reshape(math.prod(sizes), 1, -1)
    shape = [1 if axis in axes else size for axis, size in enumerate(input.shape)]
    return F.max_pool1d(rows, rows.shape[-1]).reshape(shape if keepdim else sizes)


def lowest(input: Tensor, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
    """-max(-x)."""
    return -highest(-input, dim, keepdim)


def both_extremes(
    input: Tensor, *, dim: int | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """The smallest and the largest."""
    return torch.return_types.aminmax((lowest(input, dim, keepdim), highest(input, dim, keepdim)))


def extreme(
    values: Callable[..., Tensor], indices: Any, pair: Any, binary: Callable[..., Tensor]
) -> Callable[..., Any]:
    """`max` and `min`: of all entries, along an axis with their indices, or of two tensors."""

    def run(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None
    ) -> Any:
        if other is not None:
            return binary(input, other)
        largest = values(input, dim, keepdim)
        return largest if dim is None else pair((largest, indices(input, dim, keepdim)))

    return run


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """larger + relu(smaller - larger): beside a bound of -1e38 no digit is lost."""
    larger, smaller = _ordered(input, other)
    return larger + torch.relu(smaller - larger)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """smaller - relu(smaller - larger)."""
    larger, smaller = _ordered(input, other)
    return smaller - torch.relu(smaller - larger)


def _ordered(input: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Entry by entry the larger at the inputs, and the other: a choice that is fixed."""
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]  no other way
        first = input.detach() >= other.detach()
    return torch.where(first, input, other), torch.where(first, other, input)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """The input kept between bounds that are tensors."""
    input = input if min is None else maximum(input, min)
    return input if max is None else minimum(input, max)


def product(
    input: Tensor,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """x_1 x_2 ... x_n, one factor after the other."""
    input = input if dtype is None else input.to(dtype)
    if dim is None or not input.dim():
        return reduce(torch.mul, input.flatten().unbind(0))
    result = reduce(torch.mul, input.unbind(dim))
    return result.unsqueeze(dim) if keepdim else result


def cumulative_product(input: Tensor, dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """x_1, x_1 x_2, ..."""
    if not input.dim():
        return input * 1
    factors = (input if dtype is None else input.to(dtype)).unbind(dim)
    products = [factors[0]]
    for factor in factors[1:]:
        products.append(products[-1] * factor)
    return torch.stack(products, dim)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log sum exp of the first entries."""
    if not input.dim():
        return input * 1
    ends = range(1, input.shape[dim] + 1)
    return torch.stack([torch.logsumexp(input.narrow(dim, 0, end), dim) for end in ends], dim)


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
    """The entries in their order, which is fixed."""
    order = torch.argsort(input, dim=dim, descending=descending, stable=bool(stable))
    return torch.return_types.sort((input.gather(dim, order), order))


def msort(input: Tensor) -> Tensor:
    """The entries sorted along the first axis."""
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest, whose choice is fixed."""
    order = torch.argsort(input, dim=dim, descending=largest, stable=True).narrow(dim, 0, k)
    return torch.return_types.topk((input.gather(dim, order), order))


def kth_value(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest."""
    return torch.return_types.kthvalue(_ranked(input, k - 1, dim, keepdim))


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The entry in the middle, the lower of two."""
    if dim is None:
        return _ranked(input.flatten(), (input.numel() - 1) // 2, 0, False)[0]
    count = input.shape[dim] if input.dim() else 1
    return torch.return_types.median(_ranked(input, (count - 1) // 2, dim, keepdim))


def _ranked(input: Tensor, rank: int, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    order = torch.argsort(input, dim=dim, stable=True)
    if not input.dim():
        return input * 1, order
    index = order.narrow(dim, rank, 1)
    entry = input.gather(dim, index)
    return (entry, index) if keepdim else (entry.squeeze(dim), index.squeeze(dim))


def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Any:
    """A mean of two neighbours in the order of the entries."""
    if interpolation != "linear" or (isinstance(q, Tensor) and q.dim()):
        return NotImplemented
    shape = [1] * input.dim() if keepdim else []
    whole = dim is None or not input.dim()
    input, axis = (input.flatten(), 0) if whole else (input, dim or 0)
    position = float(q) * (input.shape[axis] - 1)
    low = math.floor(position)
    ordered = sort(input, axis).values
    ends = [ordered.narrow(axis, min(rank, input.shape[axis] - 1), 1) for rank in (low, low + 1)]
    middle = ends[0] * (1 - position + low) + ends[1] * (position - low)
    if whole:
        return middle.reshape(shape)
    return middle if keepdim else middle.squeeze(axis)


def cumulative_extreme(better: Callable[[Tensor, Tensor], Tensor], pair: Any) -> Callable[..., Any]:
    """`cummax` and `cummin`: the entry that is the extreme so far, whose choice is fixed."""

    def run(input: Tensor, dim: int) -> Any:
        if not input.dim():
            return pair((input * 1, torch.zeros((), dtype=torch.long, device=input.device)))
        entries = input.unbind(dim)
        best = [torch.zeros_like(entries[0], dtype=torch.long)]
        value = entries[0]
        for position, entry in enumerate(entries[1:], 1):
            taken = better(entry, value)
            best.append(torch.where(taken, torch.full_like(best[-1], position), best[-1]))
            value = input.gather(dim, best[-1].unsqueeze(dim)).squeeze(dim)
        index = torch.stack(best, dim)
        return pair((input.gather(dim, index), index))

    return run


def scatter_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Any:
    """Sums and means of what is written to one entry."""
    if reduce not in {"sum", "mean"}:
        return NotImplemented
    if not include_self:
        ones = torch.ones_like(index, dtype=torch.bool)
        input = input.masked_fill(
            torch.zeros_like(input, dtype=torch.bool).scatter(dim, index, ones), 0
        )
    total = input.scatter_add(dim, index, src)
    if reduce == "sum":
        return total
    counts = torch.full_like(input, float(include_self))
    counts = counts.scatter_add(dim, index, torch.ones_like(index, dtype=input.dtype))
    return total / counts.clamp_min(1)


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | None = None,
    value: float | None = None,
    *,
    reduce: str | None = None,
) -> Any:
    """A sum with `reduce="add"`, otherwise a move."""
    if reduce != "add" or src is None:
        return NotImplemented
    return input.scatter_add(dim, index, src)
