"""Tokens of a vision transformer as the grid of patches that they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from whyglass.core.errors import BadInput


def to_grid(tensor: Tensor, grid: tuple[int, ...] | None, image: torch.Size) -> Tensor:
    """Tokens (B, P + h * w, D) as (B, D, h, w), the P special tokens first; others unchanged."""
    if tensor.dim() != 3:
        return tensor
    count = tensor.shape[1]
    shape = grid if grid and 0 <= count - _product(grid) <= 8 else _guess(count, image)
    if shape is None:
        raise BadInput(
            f"{count} tokens do not form a grid over an image of {tuple(image)}: "
            "choose a layer with one token a patch with at="
        )
    patches = tensor[:, count - _product(shape) :]
    return patches.transpose(1, 2).reshape(len(tensor), tensor.shape[2], *shape)


def _guess(count: int, image: torch.Size) -> tuple[int, ...] | None:
    """The grid of the image's proportions with the fewest special tokens left over."""
    for special in range(9):
        for height in range(1, count):
            width, rest = divmod(count - special, height)
            if not rest and height * image[1] == width * image[0] and width > 1:
                return height, width
    return None


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
