r"""The integral of the gradient along a path, refined where it matters.

Between two neighbouring points a, b of the path, with gradients g_a, g_b, way d = gamma(b) - gamma(a)
and scores F_a, F_b (which come free with the gradients), the trapezoid gives (g_a + g_b) d / 2. Two
things tell how wrong that is: the jump (g_a - g_b) d, feature by feature, and the gap
F_b - F_a - sum of the trapezoid. Each round bisects the intervals of a row where

    |jump| / |map| + |gap| / |change of score|

is largest, until the row's estimated errors are below the tolerance or its budget is spent.

Along a real network's path the gradient is as rough as a random walk. For a Brownian bridge between
the two ends the trapezoid's variance is jump^2 / 12 a feature and interval, which is the standard
error returned: on photographs it is close to the true one (figures in benchmarks/README.md).

In the end the weights of each interval's two ends move from 1/2 by the least amount (least squares)
that makes the map add up to the change of score. With one kink on the path that is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.core.inputs import Leaves, flat_sum, multiply, per_row
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.gradient.path_integral import Path

FIRST = 9
PER_ROUND = 8
WORTH = 0.4
NODE_BYTES = 2**28


@dataclass(frozen=True)
class Refined:
    """What `refine` found for every row: float64 leaves; `gap` (B,) or (B, K) before adjusting."""

    values: Leaves
    std_error: Leaves
    gap: Tensor
    scores: Tensor
    start_scores: Tensor


def refine(scorer: Scorer, path: Path, here: Evaluated, budget: int, tol: float) -> Refined:
    """Integrate each row of `here` (evaluated at the path's end) with at most `budget` gradients."""
    row_bytes = sum(g[:1].numel() * g.element_size() for g in here.gradients)
    group = max(1, NODE_BYTES // (row_bytes * budget))
    parts = [
        _Group(scorer, path, here, rows, budget, tol).run()
        for rows in torch.arange(scorer.rows).split(group)
    ]
    return Refined(
        tuple(torch.cat(leaf) for leaf in zip(*(part.values for part in parts), strict=True)),
        tuple(torch.cat(leaf) for leaf in zip(*(part.std_error for part in parts), strict=True)),
        torch.cat([part.gap for part in parts]),
        here.scores,
        torch.cat([part.start_scores for part in parts]),
    )


@dataclass
class _Intervals:
    """I intervals: their row in the group, ends (alpha and node), gap and sums of the jump."""

    row: Tensor
    low: Tensor
    high: Tensor
    left: Tensor
    right: Tensor
    gap: Tensor
    jump_sum: Tensor
    jump_square: Tensor

    def pick(self, which: Tensor) -> _Intervals:
        return _Intervals(*(value[which] for value in vars(self).values()))

    def join(self, other: _Intervals) -> _Intervals:
        own, others = vars(self).values(), vars(other).values()
        return _Intervals(*(torch.cat(pair) for pair in zip(own, others, strict=True)))


class _Group:
    """Rows whose gradients are kept until the end."""

    def __init__(
        self, scorer: Scorer, path: Path, here: Evaluated, rows: Tensor, budget: int, tol: float
    ) -> None:
        self.scorer, self.path, self.rows, self.budget, self.tol = scorer, path, rows, budget, tol
        device_rows = rows.to(here.gradients[0].device)
        self.gradients = [gradient[device_rows] for gradient in here.gradients]
        self.nodes = [
            gradient.new_empty((len(rows) * budget, *gradient.shape[1:]))
            for gradient in self.gradients
        ]
        self.scores = here.scores.new_empty((len(rows) * budget, *here.scores.shape[1:])).double()
        self.used = 0
        zeros = [torch.zeros_like(gradient, dtype=torch.float64) for gradient in self.gradients]
        self.map, self.variance, self.lean = ([z.clone() for z in zeros] for _ in range(3))
        self.end = self._keep(self.gradients, here.scores[rows.to(here.scores.device)])

    def run(self) -> Refined:
        intervals = self._first()
        self.start_scores = self.scores[intervals.left[intervals.low == 0]]
        while len(chosen := self._worst(intervals)):
            old = intervals.pick(chosen)
            unchanged = torch.ones(len(intervals.row), dtype=torch.bool)
            unchanged[chosen] = False
            self._add(old, -1)
            middle = (old.low + old.high) / 2
            node = self._evaluate(old.row, middle)
            intervals = intervals.pick(unchanged)
            for ends in ((old.low, middle, old.left, node), (middle, old.high, node, old.right)):
                intervals = intervals.join(self._measure(old.row, *ends))
        return self._finish(intervals)

    def _first(self) -> _Intervals:
        """Equal intervals, so that nothing wide is overlooked."""
        count, width = min(FIRST, self.budget) - 1, len(self.rows)
        alpha = torch.arange(count, dtype=torch.float64) / count
        row = torch.arange(width).repeat(count)
        node = self._evaluate(row, alpha.repeat_interleave(width)).reshape(count, width)
        node = torch.cat([node, self.end[None]])
        edges = torch.cat([alpha, torch.ones(1, dtype=torch.float64)])
        low, high = edges[:-1].repeat_interleave(width), edges[1:].repeat_interleave(width)
        return self._measure(row, low, high, node[:-1].flatten(), node[1:].flatten())

    def _evaluate(self, row: Tensor, alpha: Tensor) -> Tensor:
        """Node numbers of new points."""
        rows = self.rows[row]
        nodes = [
            self._keep(part.gradients, part.scores)
            for part in self.scorer.gradients_at(
                lambda piece: self.path.at(rows[piece], alpha[piece]), rows
            )
        ]
        return torch.cat(nodes)

    def _keep(self, gradients: Leaves | list[Tensor], scores: Tensor) -> Tensor:
        first, self.used = self.used, self.used + len(scores)
        for node, gradient in zip(self.nodes, gradients, strict=True):
            node[first : self.used] = gradient
        self.scores[first : self.used] = scores.double()
        return torch.arange(first, self.used)

    def _measure(
        self, row: Tensor, low: Tensor, high: Tensor, left: Tensor, right: Tensor
    ) -> _Intervals:
        """New intervals, added to the running sums."""
        nothing = torch.zeros(len(row), dtype=torch.float64)
        made = _Intervals(row, low, high, left, right, nothing, nothing, nothing)
        trapezoid, made.jump_sum, made.jump_square = self._add(made, 1)
        made.gap = (self.scores[right] - self.scores[left]).cpu() - trapezoid
        return made

    def _add(self, intervals: _Intervals, sign: int) -> tuple[Tensor, Tensor, Tensor]:
        """Add intervals to (or take them from) the map, its variance and its lean.

        The lean is the change of the map per unit of the adjustment that `_finish` makes. Returns
        the intervals' sums of trapezoid, jump and squared jump: (I,) or (I, K).
        """
        many = self.scorer.many
        sums: list[list[Tensor]] = [[], [], []]
        width = max(1, self.scorer.batches.size(len(intervals.row)) * 4)
        for piece in torch.arange(len(intervals.row)).split(width):
            part = intervals.pick(piece)
            ways = self.path.way(self.rows[part.row], part.low, part.high)
            here = [part.left.to(w.device) for w in ways], [part.right.to(w.device) for w in ways]
            a = multiply([n[i] for n, i in zip(self.nodes, here[0], strict=True)], ways, many)
            b = multiply([n[i] for n, i in zip(self.nodes, here[1], strict=True)], ways, many)
            mean = tuple((x + y) / 2 for x, y in zip(a, b, strict=True))
            # The square of a large jump is beyond the range of float32.
            jump = tuple((x - y).double() for x, y in zip(a, b, strict=True))
            square = tuple(x**2 for x in jump)
            totals = [flat_sum(leaves, many).cpu() for leaves in (mean, jump, square)]
            for parts, value in zip(sums, totals, strict=True):
                parts.append(value)
            for k, leaf in enumerate(jump):
                rows = part.row.to(leaf.device)
                shape = (-1, *[1] * (leaf.dim() - 1 - many), *totals[1].shape[1:])
                lean = leaf * totals[1].to(leaf).reshape(shape)
                for total, share in (
                    (self.map, mean[k]),
                    (self.variance, square[k] / 12),
                    (self.lean, lean),
                ):
                    total[k].index_add_(0, rows, share.double(), alpha=sign)
        trapezoid, jump_sum, jump_square = (torch.cat(parts) for parts in sums)
        return trapezoid, jump_sum, jump_square

    def _per_row(self, row: Tensor, figures: Tensor) -> Tensor:
        total = torch.zeros((len(self.rows), *figures.shape[1:]), dtype=torch.float64)
        return total.index_add_(0, row, figures)

    def _worst(self, intervals: _Intervals) -> Tensor:
        """Which intervals to bisect: the worst of each row that is neither done nor out of budget."""
        many, row = self.scorer.many, intervals.row
        tiny = torch.finfo(torch.float64).tiny
        size = flat_sum([leaf**2 for leaf in self.map], many).cpu().sqrt().clamp_min(tiny)
        change = (self.scores[self.end] - self.start_scores).abs().cpu().clamp_min(tiny)
        jump, gap = intervals.jump_square.sqrt() / size[row], intervals.gap.abs() / change[row]
        error = torch.maximum(
            self._per_row(row, jump**2).sqrt() / 12**0.5,
            torch.maximum(
                self._per_row(row, gap**2).sqrt(),
                self._per_row(row, intervals.gap).abs() / change,
            ),
        )
        wrong = jump + gap
        if many:
            error, wrong = error.amax(1), wrong.amax(1)
        spent = torch.bincount(row, minlength=len(self.rows)) + 1
        left = torch.where(error > self.tol, self.budget - spent, 0).clamp_max(PER_ROUND)
        worst = torch.zeros(len(self.rows), dtype=torch.float64).scatter_reduce(
            0, row, wrong, "amax", include_self=True
        )
        narrow = intervals.high - intervals.low < 1e-12
        candidates = torch.nonzero((wrong >= WORTH * worst[row]) & (wrong > 0) & ~narrow)[:, 0]
        candidates = candidates[torch.argsort(wrong[candidates], descending=True, stable=True)]
        candidates = candidates[torch.argsort(row[candidates], stable=True)]
        counts = torch.bincount(row[candidates], minlength=len(self.rows))
        rank = torch.arange(len(candidates)) - (counts.cumsum(0) - counts)[row[candidates]]
        return candidates[rank < left[row[candidates]]]

    def _finish(self, intervals: _Intervals) -> Refined:
        """Lean each interval's weights towards the end that makes the map complete.

        With the weights 1/2 + theta J and 1/2 - theta J, J the interval's summed jump, the map
        changes by theta sum_j J_j jump_j: theta = gap / sum_j J_j^2 closes the gap with the least sum
        of squared changes. No weight may leave [0, 1].
        """
        many = self.scorer.many
        gap = self._per_row(intervals.row, intervals.gap)
        squares = self._per_row(intervals.row, intervals.jump_sum**2)
        position = per_row(intervals.row, intervals.jump_sum).expand_as(intervals.jump_sum)
        largest = torch.zeros_like(gap).scatter_reduce(
            0, position, intervals.jump_sum.abs(), "amax", include_self=True
        )
        theta = torch.where(squares > 0, gap / squares, 0.0)
        limit = torch.where(largest > 0, 0.5 / largest, 0.0)
        theta = torch.maximum(torch.minimum(theta, limit), -limit)
        values: list[Tensor] = []
        for total, lean in zip(self.map, self.lean, strict=True):
            shape = (-1, *[1] * (lean.dim() - 1 - many), *theta.shape[1:])
            values.append(total + lean * theta.to(lean).reshape(shape))
        errors = tuple(leaf.clamp_min(0).sqrt() for leaf in self.variance)
        return Refined(tuple(values), errors, gap, self.scores[self.end], self.start_scores)
