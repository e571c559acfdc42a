"""How far rounding can move the sum of DeepLIFT's values, measured where multipliers cancel.

Softmax and norms ignore a common shift of their inputs: their multipliers add up to zero, or of
log sum exp to one, but only to rounding. What all inputs have in common is multiplied by that error,
which no later operation can tell from a value. Scores and values have roundings of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from whyglass.core.inputs import flat_sum

# Sums of n numbers are off by some sqrt(n) roundings, in each of several operations.
ROUNDINGS = 4


class Rounding:
    """Sizes of terms that cancel in one pass, and `eps` of the coarsest format that it met."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._sizes: list[Tensor] = []
        self.eps = 0.0

    def meet(self, dtype: torch.dtype) -> None:
        """Note a format that an operation computes in."""
        self.eps = max(self.eps, torch.finfo(dtype).eps)

    def operation(self, dtype: torch.dtype) -> Callable[[Tensor], None]:
        """Where an operation notes, for each target, the sizes of terms of m (x - x') that cancel."""
        self.meet(dtype)
        position = len(self._sizes)
        self._sizes.append(torch.zeros(self._rows, dtype=torch.float64))

        def note(sizes: Tensor) -> None:
            by_row = self._by_row(sizes.double())
            self._sizes[position] = torch.maximum(self._sizes[position].to(by_row), by_row)

        return note

    def _by_row(self, sizes: Tensor) -> Tensor:
        if sizes.dim() and len(sizes) % self._rows == 0:
            return sizes.reshape(self._rows, -1).sum(1)
        # Rows are not on the first axis: the sum over all of them bounds each.
        return sizes.sum().expand(self._rows)

    def noted(self) -> Tensor:
        """The sizes of each row (B,), summed over operations; of targets the largest counts."""
        sizes = [size.cpu() for size in self._sizes]
        return sum(sizes, torch.zeros(self._rows, dtype=torch.float64))


def rounding_bound(
    noted: Tensor, eps: float, values: Sequence[Tensor], score: Tensor, baseline_score: Tensor
) -> Tensor:
    """How far rounding can move the sum of the values and the change of score: (B,) or (B, K)."""
    many = score.dim() == 2
    scale = torch.maximum(score.abs(), baseline_score.abs()).double().cpu()
    total = flat_sum([value.abs() for value in values], many).cpu()
    return (scale + total + (noted[:, None] if many else noted)) * (ROUNDINGS * eps)
