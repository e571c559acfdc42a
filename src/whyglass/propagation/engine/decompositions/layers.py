"""Gated linear units, pooling by a power mean, differences and sampling at moving positions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.errors import Unsupported


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b), of the two halves."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def parametric_relu(input: Tensor, weight: Tensor) -> Tensor:
    """relu(x) - w relu(-x), a slope a channel."""
    slope = weight.reshape(-1, *[1] * max(input.dim() - 2, 0)) if weight.numel() > 1 else weight
    return torch.relu(input) - slope * torch.relu(-input)


def rows_of(input: Tensor) -> Iterator[Tensor]:
    """What a loop over a tensor gets."""
    return iter(torch.unbind(input))


def pool_with_indices(name: str) -> Any:
    """The largest of each window by its own rule, and where it stands, which is fixed."""

    def run(input: Tensor, *args: Any, return_indices: bool = True, **settings: Any) -> Any:
        pool = getattr(F, name)
        _, indices = pool(input.detach(), *args, return_indices=True, **settings)
        return pool(input, *args, **settings), indices

    return run


def power_mean_pool(axes: int) -> Any:
    """(sum of x^p in a window)^(1/p)."""
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[axes - 1]

    def run(
        input: Tensor,
        norm_type: float,
        kernel_size: int | tuple[int, ...],
        stride: Any = None,
        ceil_mode: bool = False,
    ) -> Tensor:
        sizes = (kernel_size,) * axes if isinstance(kernel_size, int) else kernel_size
        count = 1
        for size in sizes:
            count *= size
        mean = pool(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
        return (mean * count).pow(1 / norm_type)

    return run


def differences(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """x_2 - x_1, x_3 - x_2, ..., n times."""
    input = torch.cat([part for part in (prepend, input, append) if part is not None], dim)
    for _ in range(n):
        length = input.shape[dim] - 1
        input = input.narrow(dim, 1, length) - input.narrow(dim, 0, length)
    return input


def sample_at(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """`grid_sample` where the grid is tracked: its cells are fixed, the weights within them are not."""
    if mode == "nearest":
        return F.grid_sample(input, grid.detach(), mode, padding_mode, align_corners)
    if mode != "bilinear" or padding_mode == "reflection" or input.dim() != 4:
        raise Unsupported(
            "grid_sample at positions that depend on the input has a rule for images, where it is "
            f"bilinear or nearest and pads with zeros or the border, and none for mode={mode!r}, "
            f"padding_mode={padding_mode!r} and an input of {input.dim()} axes"
        )
    batch, channels, height, width = input.shape
    rows = input.reshape(batch, channels, -1)
    position: list[Tensor] = []
    for axis, size in enumerate((width, height)):
        at = grid[..., axis]
        at = (at + 1) * ((size - 1) / 2) if align_corners else (at + 1) * (size / 2) - 0.5
        position.append(at.clamp(0, size - 1) if padding_mode == "border" else at)
    x, y = position
    left, top = x.detach().floor(), y.detach().floor()
    total: Any = 0
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            index = index.reshape(batch, 1, -1).expand(-1, channels, -1)
            pixels = rows.gather(2, index).reshape(batch, channels, *grid.shape[1:3])
            total = total + pixels * (across * down * inside.to(input.dtype)).unsqueeze(1)
    return total
