"""Monte-Carlo averages of something made from gradients, with standard errors.

Sample s is the same for every row of the batch, so a batch and its rows one by one give the same
numbers. Rows stop on their own once their relative standard error reaches the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.core.checks import relative_error, worst_target
from whyglass.core.inputs import Leaves, concatenate, flat_sum, multiply, per_row
from whyglass.core.scorer import Scorer
from whyglass.core.standard_errors import SampledFeatures

ROUND = 8
# The points of one sample for some rows, and what their gradients are multiplied by, if anything.
Drawn = Callable[[Tensor], tuple[Leaves, Leaves | None]]
Draw = Callable[[], Drawn]


@dataclass
class Moments:
    """Sums over the samples of each row of (c - shift)^p, p = 1, 2, ...: float64 leaves a power.

    The shift is the row's first sample, which keeps a small spread around a large mean exact.
    `features` holds c itself at some features.
    """

    count: Tensor
    shift: list[Tensor]
    sums: list[list[Tensor]]
    totals: list[Tensor]
    features: SampledFeatures

    def around_shift(self, power: int) -> Leaves:
        """E[(c - shift)^p]."""
        return tuple(part / self.samples(part) for part in self.sums[power - 1])

    def samples(self, like: Tensor) -> Tensor:
        """The number of samples of each row, shaped to divide a leaf."""
        return per_row(self.count.to(like.device), like)

    def mean(self) -> Leaves:
        """E[c]."""
        return tuple(s + m for s, m in zip(self.shift, self.around_shift(1), strict=True))

    def std_error(self) -> Leaves:
        """Standard error of the mean, sqrt(var / n) with the unbiased variance."""
        return tuple(
            ((square - mean**2).clamp_min(0) / (self.samples(mean) - 1)).sqrt()
            for mean, square in zip(self.around_shift(1), self.around_shift(2), strict=True)
        )

    def total(self) -> tuple[Tensor, Tensor]:
        """Mean of the sum of a row's values, and its standard error: (B,) or (B, K) each."""
        n = per_row(self.count, self.totals[0])
        mean = self.totals[0] / n
        return mean, ((self.totals[1] / n - mean**2).clamp_min(0) / (n - 1)).sqrt()


Estimate = Callable[[Moments], tuple[Leaves, Leaves]]


def average(
    scorer: Scorer,
    draw: Draw,
    samples: int,
    tol: float | None,
    estimate: Estimate,
    *,
    powers: int = 2,
    squared: bool = False,
) -> Moments:
    """Sums over at most `samples` draws a row of the gradient, times the step if there is one.

    `squared` takes the gradient's square instead. With `tol` a row stops once the estimate made of
    its sums, values and standard errors, is that exact.
    """
    targets = (len(scorer.target.terms),) if scorer.many else ()

    def zeros() -> list[Tensor]:
        return [p.new_zeros((*p.shape, *targets), dtype=torch.float64) for p in scorer.points]

    moments = Moments(
        torch.zeros(scorer.rows, dtype=torch.float64),
        zeros(),
        [zeros() for _ in range(powers)],
        [torch.zeros((scorer.rows, *targets), dtype=torch.float64) for _ in range(2)],
        SampledFeatures(scorer.points, math.prod(targets), samples),
    )
    active, first = torch.arange(scorer.rows), 0
    while first < samples and len(active):
        count = samples - first if tol is None else min(ROUND, samples - first)
        _round(scorer, draw, moments, active, count, squared)
        first += count
        if tol is not None:
            error = relative_error(*estimate(moments), scorer.many)
            active = active[torch.tensor(worst_target(error))[active] > tol]
    return moments


def _round(
    scorer: Scorer, draw: Draw, moments: Moments, active: Tensor, count: int, squared: bool
) -> None:
    """The next `count` samples of the active rows, sample after sample."""
    width, new = len(active), not bool(moments.count.any())
    drawn: dict[int, Drawn] = {}
    steps: list[Leaves] = []

    def points(piece: slice) -> Leaves:
        steps.clear()
        parts: list[Leaves] = []
        first = piece.start // width
        for sample in range(first, (piece.stop - 1) // width + 1):
            if sample not in drawn:
                drawn[sample] = draw()
            low = max(piece.start - sample * width, 0)
            made, step = drawn[sample](active[low : piece.stop - sample * width])
            parts.append(made)
            if step is not None:
                steps.append(step)
        for sample in [known for known in drawn if known < first]:
            del drawn[sample]
        return concatenate(parts)

    rows, first_sample = active.repeat(count), int(moments.count.max())
    for evaluated in scorer.gradients_at(points, rows, width):
        here = rows[evaluated.piece]
        drawn_leaves = evaluated.gradients
        if steps:
            drawn_leaves = multiply(drawn_leaves, concatenate(steps), scorer.many)
        if squared:
            drawn_leaves = tuple(leaf**2 for leaf in drawn_leaves)
        position = torch.arange(evaluated.piece.start, evaluated.piece.stop)
        moments.features.add(first_sample + position // width, here, drawn_leaves)
        fresh = max(0, min(width - evaluated.piece.start, len(here))) if new else 0
        whole = width == scorer.rows and not (evaluated.piece.start % width or len(here) % width)
        for index, leaf in enumerate(drawn_leaves):
            position = here.to(leaf.device)
            shift = moments.shift[index]
            if fresh:
                shift[position[:fresh]] = leaf[:fresh].double()
            if whole:
                off = leaf.reshape(-1, *shift.shape) - shift.to(leaf.dtype)
            else:
                off = leaf - shift[position].to(leaf.dtype)
            raised = off
            for power, sums in enumerate(moments.sums, 1):
                if power > 1:
                    raised = raised * off
                if whole:
                    # Within a batch the precision of the gradients will do: the shift is gone.
                    sums[index] += raised.sum(0)
                else:
                    sums[index].index_add_(0, position, raised.double())
        if steps:
            total = flat_sum(drawn_leaves, scorer.many).cpu()
            for power, accumulated in enumerate(moments.totals, 1):
                accumulated.index_add_(0, here, total**power)
        moments.count.index_add_(0, here, torch.ones(len(here), dtype=torch.float64))
