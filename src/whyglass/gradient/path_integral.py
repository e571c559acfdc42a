"""The integral of the gradient along a path, by a fixed rule: constant memory at any T."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable, multiply, per_row
from whyglass.core.scorer import Scorer
from whyglass.gradient.quadrature import nodes

_F32 = torch.float32

# (start, end, alpha) -> point, for one leaf: start and end (n, ...), alpha (n, 1, ..., 1) in [0, 1].
Curve = Callable[[Tensor, Tensor, Tensor], Tensor]


def straight(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """The line from start to end."""
    return torch.lerp(start, end, alpha)


class Path:
    """A curve from the baselines to the points of a scorer, for every leaf."""

    def __init__(self, starts: Leaves, ends: Leaves, curve: Curve) -> None:
        self.starts, self._ends, self._curve = starts, ends, curve
        if curve is not straight:
            every = torch.arange(len(starts[0]))
            for alpha, wanted, name in ((0.0, starts, "baseline"), (1.0, ends, "input")):
                reached = self.at(every, torch.full((len(every),), alpha, dtype=torch.float64))
                for got, want in zip(reached, wanted, strict=True):
                    if got.shape != want.shape or not torch.allclose(got, want, 1e-4, 1e-5):
                        raise BadInput(
                            f"path: at alpha={alpha:g} it must be at the {name}, and is not"
                        )

    def at(self, rows: Tensor, alpha: Tensor) -> Leaves:
        """gamma(alpha) for n pairs of row and alpha; held leaves stay as they are."""
        made: list[Tensor] = []
        for start, end in zip(self.starts, self._ends, strict=True):
            here = rows.to(end.device)
            if not differentiable(end):
                made.append(end[here])
                continue
            a, b = (start[:1], end[:1]) if len(end) == 1 else (start[here], end[here])
            made.append(self._curve(a, b, per_row(alpha.to(end), end)))
        return tuple(made)

    def way(self, rows: Tensor, low: Tensor, high: Tensor) -> Leaves:
        """gamma(high) - gamma(low), zero for held leaves."""
        if self._curve is not straight:
            ends = zip(self.at(rows, low), self.at(rows, high), strict=True)
            return tuple(
                b - a if differentiable(b) else torch.zeros_like(b, dtype=_F32) for a, b in ends
            )
        ways: list[Tensor] = []
        for start, end in zip(self.starts, self._ends, strict=True):
            here = rows.to(end.device)
            if differentiable(end):
                share = per_row((high - low).to(end), end)
                ways.append((end[here] - start[here]) * share)
            else:
                ways.append(torch.zeros_like(end[here], dtype=_F32))
        return tuple(ways)


def integrate(scorer: Scorer, path: Path, rule: str, steps: int) -> Leaves:
    """Sum over T points of gradient times the piece of the path it stands for: float64."""
    points, edges = nodes(rule, steps)
    width = scorer.rows
    rows = torch.arange(width).repeat(steps)
    step = torch.arange(steps).repeat_interleave(width)
    targets = (len(scorer.target.terms),) if scorer.many else ()
    totals = [
        point.new_zeros((*point.shape, *targets), dtype=torch.float64) for point in scorer.points
    ]
    evaluated = scorer.gradients_at(lambda piece: path.at(rows[piece], points[step[piece]]), rows)
    for part in evaluated:
        here, index = rows[part.piece], step[part.piece]
        ways = path.way(here, edges[index], edges[index + 1])
        for total, share in zip(totals, multiply(part.gradients, ways, scorer.many), strict=True):
            total.index_add_(0, here.to(share.device), share.double())
    return tuple(totals)
