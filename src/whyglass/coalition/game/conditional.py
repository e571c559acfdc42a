"""Maskers of tables whose absent columns depend on those present."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from whyglass.coalition.game.masker import Masker, refuse
from whyglass.coalition.game.players import FeatureGroups, feature_mask, with_every_row
from whyglass.coalition.game.replace import Replace
from whyglass.core.baseline import Conditional, Gaussian
from whyglass.core.checks import PRECISION, Check
from whyglass.core.errors import BadInput
from whyglass.core.guards import NonfiniteScore
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import positive_integer
from whyglass.core.scorer import Scorer

BLOCK = 2**22
MOST_SLOPES = 2**23
# Distances are sums of squares whose last digits depend on the order of the rows.
TIE = 1e-9
# The largest distance of the neighbours beside that of all rows.
FAR = 0.5


@dataclass
class Table(Masker):
    """Abstract. One table, each column of which belongs to a player or is held fixed."""

    groups: FeatureGroups
    point: Tensor
    data: Tensor

    def __post_init__(self) -> None:
        self._mask = self.groups.masks[0].to(self.point.device)
        self._unconditional = Replace(self.groups, (self.point,), (self.data,), True, None)
        self.sample_size = len(self.data)
        self.start: Leaves | None = None

    @property
    def of_nobody(self) -> Masker:
        return self._unconditional

    def unchanged(self, rows: int, players: int) -> Tensor:
        return self._unconditional.unchanged(rows, players)

    def columns(self, present: Tensor) -> Tensor:
        """(E, columns): the columns that are present, those held fixed included."""
        return feature_mask(present, self._mask)


@dataclass
class Nearby(Table):
    """The masker of `whyglass.core.baseline.Conditional`: scores are means over the nearest rows."""

    neighbours: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cost = min(self.neighbours, len(self.data))
        deviation = self.data.double().std(0, correction=0)
        self._units = torch.where(deviation > 0, deviation, torch.ones_like(deviation))

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, background_rows = with_every_row(present, rows, background_rows)
        return (torch.where(self.columns(present), self.point[rows], self.data[background_rows]),)

    def checks(self, rows: int) -> tuple[Check, ...]:
        """How far the neighbours are in all columns, beside the rows of the data on average."""
        device = self.point.device
        everybody = torch.ones(1, self.groups.count, dtype=torch.bool, device=device)
        figures: list[float] = []
        for own in torch.arange(rows, device=device).split(max(1, BLOCK // self.data.numel())):
            distance = self._distances(everybody, own)[0]
            near = torch.where(self._nearest(distance), distance, torch.nan).nanmean(1)
            ratio = torch.where(near > 0, (near / distance.mean(1)).sqrt(), 0.0)
            figures += ratio.tolist()
        worst = max(figures)
        return (
            Check(
                "neighbours",
                worst,
                FAR,
                "pass" if worst <= FAR else "warn",
                f"the {self.cost} nearest rows are {worst:.0%} as far from the input as all rows are "
                "(root mean squares): more rows, or fewer columns, bring them nearer",
                tuple(figures),
            ),
        )

    def near(self, present: Tensor, rows: Tensor) -> Tensor:
        """(S, R, N): which rows of the data are nearest, with all that are as near as the last."""
        return self._nearest(self._distances(present, rows))

    def _distances(self, present: Tensor, rows: Tensor) -> Tensor:
        """(S, R, N): squared distances in the columns that are present."""
        keep = self.columns(present).double()
        off = (self.point[rows].double()[:, None] - self.data.double()) / self._units
        return torch.einsum("rnc,sc->srn", off.square(), keep)

    def _nearest(self, distance: Tensor) -> Tensor:
        last = distance.kthvalue(self.cost, dim=-1, keepdim=True).values
        return distance <= last * (1 + TIE)

    def evaluate(
        self, scorer: Scorer, coalitions: Tensor, background_rows: Tensor, rows: Tensor
    ) -> Tensor:
        device = self.point.device
        by_rows: list[Tensor] = []
        for own in rows.split(max(1, BLOCK // self.data.numel())):
            step = max(1, BLOCK // (len(own) * len(self.data)))
            parts = (
                self._means(scorer, part.to(device), own.to(device))
                for part in coalitions.split(step)
            )
            by_rows.append(torch.cat(list(parts)))
        return torch.cat(by_rows, 1)

    def _means(self, scorer: Scorer, present: Tensor, rows: Tensor) -> Tensor:
        near = self.near(present, rows)
        coalition, row, chosen = near.nonzero(as_tuple=True)

        def points(piece: slice) -> Leaves:
            keep = self.columns(present[coalition[piece]])
            here, other = self.point[rows[row[piece]]], self.data[chosen[piece]]
            return (torch.where(keep, here, other),)

        try:
            scores = scorer.scores(points, rows[row].cpu())
        except NonfiniteScore as error:
            at = coalition[error.position], row[error.position]
            refuse(error, present[at[0]].cpu(), int(rows[at[1]]))
        # Differences to the first score of each: equal scores have exactly that mean.
        wide, count = scores.double(), near.sum(2)
        owner = (coalition * len(rows) + row).to(wide.device)
        first = (count.flatten().cumsum(0) - count.flatten()).to(wide.device)
        sums = torch.zeros_like(wide[first]).index_add_(0, owner, wide - wide[first[owner]])
        share = count.flatten().to(sums).reshape(-1, *[1] * (sums.dim() - 1))
        return (wide[first] + sums / share).unflatten(0, tuple(near.shape[:2]))


@dataclass
class Regressed(Table):
    """The masker of `whyglass.core.baseline.Gaussian`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.background_size = len(self.data)
        self._covariance = self.data.double().T.cov(correction=0).reshape(2 * [self.data.shape[1]])
        self._slopes: dict[bytes, Tensor] = {}

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, background_rows = with_every_row(present, rows, background_rows)
        keep, here, base = self.columns(present), self.point[rows], self.data[background_rows]
        made = torch.where(keep, here, base)
        distinct, position = keep.unique(dim=0, return_inverse=True)
        for index, known in enumerate(distinct):
            if known.any() and not known.all():
                own = position == index
                off = (here[own] - base[own])[:, known].double()
                moved = base[own][:, ~known] + (off @ self._slope(known)).to(base)
                made[own] = made[own].index_copy(1, (~known).nonzero()[:, 0], moved)
        return (made,)

    def checks(self, rows: int) -> tuple[Check, ...]:
        """The error of regression coefficients, beside the deviation about the regression.

        For r independent columns from N rows it is the root of r / (N - 1 - r).
        """
        columns = int(torch.linalg.matrix_rank(self._covariance, rtol=1e-10, hermitian=True))
        left = len(self.data) - 1 - columns
        error = (columns / max(left, 1)) ** 0.5
        return (
            Check(
                "regression",
                error,
                PRECISION,
                "pass" if error <= PRECISION else "warn",
                f"{len(self.data)} rows determine the covariance of {columns} independent columns to "
                f"about {error:.0%}, without shrinkage; {17 * columns + 1} rows or more make that 25%",
                (error,) * rows,
            ),
        )

    def _slope(self, known: Tensor) -> Tensor:
        """The matrix that predicts the absent columns from those present."""
        key = known.cpu().numpy().tobytes()
        if key not in self._slopes:
            if len(self._slopes) * known.numel() ** 2 > MOST_SLOPES:
                self._slopes.clear()
            inner = self._covariance[known][:, known]
            # The pseudo-inverse: constant or repeated columns of the data are no obstacle.
            inverse = torch.linalg.pinv(inner, rtol=1e-10, hermitian=True)
            self._slopes[key] = inverse @ self._covariance[known][:, ~known]
        return self._slopes[key]


def table_of(
    baseline: Conditional | Gaussian, points: Leaves, groups: FeatureGroups
) -> Nearby | Regressed:
    """The masker of a conditional baseline."""
    name, data = type(baseline).__name__, cast("Any", baseline.data)
    point = points[0]
    if len(points) > 1 or point.dim() != 2 or not differentiable(point):
        raise BadInput(f"{name} is for one table of floats (B, columns)")
    if not isinstance(data, Tensor) or data.dim() != 2 or data.shape[1] != point.shape[1]:
        raise BadInput(f"{name} data must be a tensor of shape (N, {point.shape[1]})")
    if len(data) < 2 or not math.isfinite(float(data.sum())):
        raise BadInput(f"{name} data must hold two rows or more, all finite")
    if bool(point.isnan().any()):
        raise BadInput(
            f"{name} compares the inputs with data, and inputs hold NaN: take Background(data), which "
            "may hold NaN, too"
        )
    if isinstance(baseline, Gaussian):
        return Regressed(groups, point, data.to(point))
    positive_integer("Conditional neighbours", baseline.neighbours)
    return Nearby(groups, point, data.to(point), baseline.neighbours)
