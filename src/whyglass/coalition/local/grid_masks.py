"""Smooth random masks: a coarse grid of cells on or off, enlarged bilinearly and shifted at random.

A mask is an outer product of small matrices, one an axis, so it is made when it is needed and
thrown away. Masks come in blocks, each from a generator of its own: any of them can be made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 64
BINS = 8


class Block(NamedTuple):
    """The cells (BLOCK, *cells) of some masks, 1 for on, and their shifts (BLOCK, axes)."""

    cells: Tensor
    shifts: Tensor


@dataclass(frozen=True, eq=False)
class GridMasks:
    """Masks of `shape`, made of `cells` along each axis that are on with probability `keep`.

    `generators` gives the generator of a block. With `paired` masks 2i and 2i + 1 are antithetic:
    the same shift, and cells from the same numbers counted from the other end (where `keep` is 1/2,
    on for off). Source: Petsiuk, Das and Saenko (2018), section 3.2; where the text has the floor of
    the cell's size the authors' code has the ceiling, which covers the input.
    """

    shape: tuple[int, ...]
    cells: tuple[int, ...]
    keep: float
    paired: bool
    generators: Callable[[int], torch.Generator]
    like: Tensor

    @cached_property
    def sizes(self) -> list[int]:
        """Pixels of a cell along each axis, which is also how many shifts there are."""
        return [math.ceil(n / cells) for n, cells in zip(self.shape, self.cells, strict=True)]

    @cached_property
    def _enlarge(self) -> list[Tensor]:
        """Along each axis the ((cells + 1) size, cells) matrix that enlarges a grid."""
        return [
            enlarging(cells, (cells + 1) * size).to(self.like)
            for cells, size in zip(self.cells, self.sizes, strict=True)
        ]

    @cached_property
    def _blocks(self) -> Callable[[int], Block]:
        return lru_cache(4)(self._draw)

    def _draw(self, block: int) -> Block:
        generator = self.generators(block)
        count = BLOCK // 2 if self.paired else BLOCK
        levels = torch.rand((count, *self.cells), generator=generator, dtype=torch.float64)
        shifts = [torch.randint(size, (count,), generator=generator) for size in self.sizes]
        cells, positions = levels < self.keep, torch.stack(shifts, 1)
        if self.paired:
            cells = torch.stack([cells, levels > 1 - self.keep], 1).flatten(0, 1)
            positions = positions.repeat_interleave(2, 0)
        return Block(cells.to(self.like), positions.to(self.like.device))

    def make(self, first: int, last: int) -> Tensor:
        """Masks first to last - 1: (n, *shape), in [0, 1]."""
        masks, shifts = self.drawn(first, last)
        for axis, (enlarge, size) in enumerate(zip(self._enlarge, self.shape, strict=True)):
            positions = shifts[:, axis, None] + torch.arange(size, device=shifts.device)
            masks = _along(masks, enlarge[positions], axis + 1)
        return masks

    def drawn(self, first: int, last: int) -> Block:
        """Cells and shifts of masks first to last - 1."""
        blocks = [self._blocks(b) for b in range(first // BLOCK, (last - 1) // BLOCK + 1)]
        here = slice(first % BLOCK, first % BLOCK + last - first)
        cells, shifts = (torch.cat(parts)[here] for parts in zip(*blocks, strict=True))
        return Block(cells, shifts)

    def features(self, first: int, last: int) -> Tensor:
        """(n, F) means of masks over a coarse grid of bins, less their expectation: cheap to make."""
        cells, shifts = self.drawn(first, last)
        for axis, pooled in enumerate(self._pooled):
            cells = _along(cells, pooled[shifts[:, axis]], axis + 1)
        return cells.flatten(1).double() - self.keep

    def covariance(self, slopes: Tensor) -> Tensor:
        """(R, *shape) covariance of each pixel of a mask with R combinations (R, F) of features.

        Cells are independent and shifts are, along each axis, so it is a product over the axes.
        """
        total = slopes.reshape(-1, *[len(reach) for reach in self._reach])
        for axis, reach in enumerate(self._reach, 1):
            total = _along(total, reach.T.expand(len(total), -1, -1), axis)
        return self.keep * (1 - self.keep) * total

    @cached_property
    def _pools(self) -> list[Tensor]:
        """Along each axis the (bins, size) matrix of means over the bins."""
        return [_bins(min(size, BINS), size).to(self.like.device) for size in self.shape]

    @cached_property
    def _pooled(self) -> list[Tensor]:
        """Along each axis and for each shift, what enlarging and then pooling does to cells."""
        return [
            torch.stack([pool @ wide[s : s + size].double() for s in range(shifts)]).to(self.like)
            for pool, wide, size, shifts in zip(
                self._pools, self._enlarge, self.shape, self.sizes, strict=True
            )
        ]

    @cached_property
    def _reach(self) -> list[Tensor]:
        """Along each axis P E[A A'], pooling P, shifted enlarging A: (bins, size), float64."""
        reach: list[Tensor] = []
        for pool, enlarge, size, shifts in zip(
            self._pools, self._enlarge, self.shape, self.sizes, strict=True
        ):
            wide = enlarge.double()
            parts = [pool @ wide[s : s + size] @ wide[s : s + size].T for s in range(shifts)]
            reach.append(reduce(torch.add, parts) / shifts)
        return reach


def enlarging(cells: int, size: int) -> Tensor:
    """(size, cells): linear interpolation between the centres of cells, mirrored beyond the outer."""
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * cells / size - 0.5
    last = cells - 1
    position = (last - (last - centre.abs()).abs()).clamp(0, last)
    distance = (position[:, None] - torch.arange(cells)).abs()
    return (1 - distance).clamp_min(0)


def _bins(count: int, size: int) -> Tensor:
    edges = torch.arange(count + 1) * size // count
    position = torch.arange(size)
    inside = (position >= edges[:-1, None]) & (position < edges[1:, None])
    return inside.double() / inside.sum(1, keepdim=True)


def _along(tensor: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Multiply an axis of (n, ...) by n matrices (n, new, old)."""
    moved = tensor.movedim(axis, -1)
    made = moved.reshape(len(moved), -1, moved.shape[-1]) @ matrices.transpose(1, 2)
    return made.reshape(*moved.shape[:-1], -1).movedim(-1, axis)
