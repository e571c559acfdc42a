"""The tokens of a vision transformer, arranged as the grid of its patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from whyglass.core.errors import BadInput


def to_grid(tensor: Tensor, grid: tuple[int, ...] | None, image: torch.Size) -> Tensor:
    """Tokens (B, P + h * w, D) as (B, D, h, w), the P special tokens first; others unchanged."""
    if tensor.dim() != 3:
        return tensor
    count = tensor.shape[1]
    shape = grid if grid and 0 <= count - math.prod(grid) <= 8 else _grid_like(count, image)
    if shape is None:
        raise BadInput(
            f"{count} tokens do not form a grid over an image of {tuple(image)}: "
            "choose a layer with one token a patch with at="
        )
    patches = tensor[:, count - math.prod(shape) :]
    return patches.transpose(1, 2).reshape(len(tensor), tensor.shape[2], *shape)


def _grid_like(count: int, image: torch.Size) -> tuple[int, ...] | None:
    """The grid with the proportions of the image that leaves the fewest special tokens over."""
    for special in range(9):
        for height in range(1, count):
            width, rest = divmod(count - special, height)
            if not rest and height * image[1] == width * image[0] and width > 1:
                return height, width
    return None
