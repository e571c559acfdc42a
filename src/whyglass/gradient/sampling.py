"""Monte-Carlo averages of something made from gradients, with standard errors.

Sample s is the same for every row of the batch, so a batch and its rows one by one give the same
numbers. Rows stop on their own once their relative standard error reaches the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.checks import Check, worst_target
from whyglass.inputs import Leaves, concatenate, flat_sum, per_row, times
from whyglass.scorer import Scorer

ROUND = 8
# The points of one sample for some rows, and what their gradients are multiplied by, if anything.
Drawn = Callable[[Tensor], tuple[Leaves, Leaves | None]]
Draw = Callable[[], Drawn]


@dataclass
class Moments:
    """Power sums 1..p over the samples of each row, float64, a tuple of leaves a power."""

    count: Tensor
    sums: list[list[Tensor]]
    totals: list[Tensor]

    def mean(self, power: int = 1) -> Leaves:
        """E[c^p]."""
        return tuple(part / per_row(self.count.to(part.device), part) for part in self.sums[power - 1])

    def std_error(self) -> Leaves:
        """Standard error of the mean, sqrt(var / n) with the unbiased variance; inf for n = 1."""
        n = self.count
        return tuple(
            ((square - mean**2).clamp_min(0) / per_row((n - 1).to(mean.device), mean)).sqrt()
            for mean, square in zip(self.mean(1), self.mean(2), strict=True)
        )

    def total(self) -> tuple[Tensor, Tensor]:
        """Mean of the sum of a row's values, and its standard error: (B,) or (B, K) each."""
        n = per_row(self.count, self.totals[0])
        mean = self.totals[0] / n
        return mean, ((self.totals[1] / n - mean**2).clamp_min(0) / (n - 1)).sqrt()


def average(
    scorer: Scorer,
    draw: Draw,
    samples: int,
    tol: float | None,
    powers: int = 2,
) -> Moments:
    """Power sums, over at most `samples` draws a row, of the gradient (times the step, if any)."""
    targets = (len(scorer.target.terms),) if scorer.many else ()
    like = [
        point.new_zeros((*point.shape, *targets), dtype=torch.float64) for point in scorer.points
    ]
    shape = (scorer.rows, *targets)
    moments = Moments(
        torch.zeros(scorer.rows, dtype=torch.float64),
        [[torch.zeros_like(leaf) for leaf in like] for _ in range(powers)],
        [torch.zeros(shape, dtype=torch.float64) for _ in range(2)],
    )
    active, first = torch.arange(scorer.rows), 0
    while first < samples and len(active):
        count = samples - first if tol is None else min(ROUND, samples - first)
        _round(scorer, draw, moments, active, count)
        first += count
        if tol is not None:
            error = relative_error(moments.mean(), moments.std_error(), scorer.many)
            active = active[torch.tensor(worst_target(error))[active] > tol]
    return moments


def _round(scorer: Scorer, draw: Draw, moments: Moments, active: Tensor, count: int) -> None:
    """The next `count` samples of the active rows, sample after sample."""
    width = len(active)
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

    rows = active.repeat(count)
    for evaluated in scorer.gradients_at(points, rows):
        here = rows[evaluated.piece]
        found = evaluated.gradients
        if steps:
            found = times(found, concatenate(steps), scorer.many)
        total = flat_sum(found, scorer.many).cpu()
        whole = width == scorer.rows and evaluated.piece.start % width == 0 and len(here) % width == 0
        for power, sums in enumerate(moments.sums, 1):
            for leaf, accumulated in zip(found, sums, strict=True):
                raised = leaf if power == 1 else leaf**power
                if whole:
                    folded = raised.reshape(-1, width, *leaf.shape[1:])
                    accumulated += folded.sum(0, dtype=torch.float64)
                else:
                    accumulated.index_add_(0, here.to(leaf.device), raised.double())
        for power, accumulated in enumerate(moments.totals, 1):
            accumulated.index_add_(0, here, total**power)
        moments.count.index_add_(0, here, torch.ones(len(here), dtype=torch.float64))


def precision(values: Leaves, errors: Leaves, many: bool, tolerance: float) -> Check:
    """How large the sampling error is beside the values."""
    rows = worst_target(relative_error(values, errors, many))
    worst = max(rows)
    return Check(
        "sampling error",
        worst,
        tolerance,
        "pass" if worst <= tolerance else "warn",
        f"the standard errors are {worst:.0%} of the values (Euclidean norms); four times the samples "
        "halve that",
        rows,
    )


def relative_error(values: Leaves, errors: Leaves, many: bool) -> Tensor:
    """|standard errors| / |values|, Euclidean norms over a row: (B,) or (B, K), zero for 0 / 0."""
    noise = flat_sum([error**2 for error in errors], many)
    size = flat_sum([value**2 for value in values], many)
    return torch.where(noise == 0, torch.zeros_like(noise), (noise / size).sqrt()).cpu()
