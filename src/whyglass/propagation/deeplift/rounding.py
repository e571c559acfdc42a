"""How far rounding can move the sum of DeepLIFT's values, measured where multipliers cancel.

Softmax and norms ignore a common shift of their inputs: their multipliers add up to zero, or of
log sum exp to one, but only to rounding. What all inputs have in common is multiplied by that error,
which no later operation can tell from a value.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Sums of n numbers are off by some sqrt(n) roundings, in each of several operations.
ROUNDINGS = 4


class Rounding:
    """Bounds on rounding errors, one for each row, summed over operations."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._bounds: list[Tensor] = []

    def operation(self) -> Callable[[Tensor, torch.dtype], None]:
        """Where an operation notes the sizes |m| |x - x'| of what cancels, for each target."""
        place = len(self._bounds)
        self._bounds.append(torch.zeros(self._rows, dtype=torch.float64))

        def note(sizes: Tensor, dtype: torch.dtype) -> None:
            bound = self._by_row(sizes.double()) * (ROUNDINGS * torch.finfo(dtype).eps)
            self._bounds[place] = torch.maximum(self._bounds[place].to(bound), bound)

        return note

    def _by_row(self, sizes: Tensor) -> Tensor:
        if sizes.dim() and len(sizes) % self._rows == 0:
            return sizes.reshape(self._rows, -1).sum(1)
        # Rows are not on the first axis: the sum over all of them bounds each.
        return sizes.sum().expand(self._rows)

    def total(self) -> Tensor:
        """The bound of each row (B,), in units of the score; the largest over targets."""
        bounds = [bound.cpu() for bound in self._bounds]
        return sum(bounds, torch.zeros(self._rows, dtype=torch.float64))
