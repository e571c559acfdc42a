"""What absence is: a masker makes the inputs in which only a coalition is present.

An evaluation keeps the players of a coalition and takes the rest from one of `background_size`
background rows. These are used equally: the value of a coalition is the mean score over them. A masker
makes the points of every evaluation for every row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from whyglass.coalition.game.inpainting import inpainted
from whyglass.coalition.game.players import FeatureGroups, feature_mask, with_every_row
from whyglass.core.baseline import (
    Background,
    Baseline,
    Conditional,
    Deletion,
    Gaussian,
    Inpaint,
    background,
    resolve,
)
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import positive_integer
from whyglass.core.scorer import Scorer


class Masker(Protocol):
    """A masker; `start` is the baseline that an explanation shows, if each row has one."""

    background_size: int
    start: Leaves | None

    @property
    def nothing(self) -> Masker:
        """The masker for nobody present: itself, or one with another background."""
        ...

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        """S R points, evaluation after evaluation, each for every one of the `rows` (R,).

        Players are absent where `present` (S, n) is false, and then as in one of the
        `background_rows` (S,). All three are on the points' device.
        """
        ...


@dataclass
class Replace:
    """Absent features come from `others`: a row for each row explained, or a set for all."""

    groups: FeatureGroups
    points: Leaves
    others: Leaves
    shared: bool
    start: Leaves | None

    def __post_init__(self) -> None:
        self.background_size = len(self.others[0]) if self.shared else 1
        device = self.points[0].device
        self._masks = [mask.to(device) for mask in self.groups.masks]
        self._all = [
            None if bool((mask < 0).all()) else bool((mask >= 0).all())
            for mask in self.groups.masks
        ]
        # A leaf whose features are players in order needs no look-up.
        self._runs = [
            int(mask.flatten()[0])
            if torch.equal(mask.flatten(), torch.arange(mask.numel()) + mask.flatten()[0])
            else None
            for mask in self.groups.masks
        ]

    @property
    def nothing(self) -> Masker:
        return self

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        made: list[Tensor] = []
        for point, other, mask, replaced, run in zip(
            self.points, self.others, self._masks, self._all, self._runs, strict=True
        ):
            here = point[rows]
            if replaced is None:
                made.append(here.repeat(len(present), *[1] * (here.dim() - 1)))
                continue
            if run is not None and replaced:
                keep = present[:, run : run + mask.numel()].reshape(-1, *mask.shape)
            else:
                keep = feature_mask(present, mask)
            away = other[background_rows][:, None] if self.shared else other[rows]
            made.append(torch.where(keep[:, None], here, away).flatten(0, 1))
        return tuple(made)


@dataclass
class Table:
    """Abstract. One table, each column of which belongs to a player or is held fixed."""

    groups: FeatureGroups
    point: Tensor
    data: Tensor

    def __post_init__(self) -> None:
        self.start: Leaves | None = None
        self._mask = self.groups.masks[0].to(self.point.device)
        self._nothing = Replace(self.groups, (self.point,), (self.data,), True, None)

    @property
    def nothing(self) -> Masker:
        return self._nothing

    def columns(self, present: Tensor) -> Tensor:
        """(E, columns): the columns that are present, those held fixed included."""
        return feature_mask(present, self._mask)


@dataclass
class Nearby(Table):
    """`whyglass.core.baseline.Conditional`."""

    neighbours: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.background_size = min(self.neighbours, len(self.data))
        spread = self.data.std(0, correction=0)
        self._units = torch.where(spread > 0, spread, torch.ones_like(spread))

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, background_rows = with_every_row(present, rows, background_rows)
        keep, here = self.columns(present), self.point[rows]
        away = ((here[:, None] - self.data) / self._units) ** 2
        distance = torch.where(keep[:, None], away, torch.zeros_like(away)).sum(2)
        near = distance.argsort(dim=1, stable=True).gather(1, background_rows[:, None])[:, 0]
        return (torch.where(keep, here, self.data[near]),)


@dataclass
class Regressed(Table):
    """`whyglass.core.baseline.Gaussian`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.background_size = len(self.data)
        self._covariance = self.data.double().T.cov(correction=0).reshape(2 * [self.data.shape[1]])
        self._slopes: dict[bytes, Tensor] = {}

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, background_rows = with_every_row(present, rows, background_rows)
        keep, here, base = self.columns(present), self.point[rows], self.data[background_rows]
        made = torch.where(keep, here, base)
        distinct, place = keep.unique(dim=0, return_inverse=True)
        for index, known in enumerate(distinct):
            if known.any() and not known.all():
                own = place == index
                off = (here[own] - base[own])[:, known].double()
                moved = base[own][:, ~known] + (off @ self._slope(known)).to(base)
                made[own] = made[own].index_copy(1, (~known).nonzero()[:, 0], moved)
        return (made,)

    def _slope(self, known: Tensor) -> Tensor:
        """The matrix that predicts the absent columns from those known."""
        key = known.cpu().numpy().tobytes()
        if key not in self._slopes:
            inner = self._covariance[known][:, known]
            # The pseudo-inverse: constant or repeated columns of the data are no obstacle.
            inverse = torch.linalg.pinv(inner, rtol=1e-10, hermitian=True)
            self._slopes[key] = inverse @ self._covariance[known][:, ~known]
        return self._slopes[key]


@dataclass
class Delete:
    """`whyglass.core.baseline.Deletion`: tokens move up, what belongs to them moves along."""

    groups: FeatureGroups
    points: Leaves
    pad: int
    text: int
    start: Leaves | None = None
    background_size: int = 1

    @property
    def nothing(self) -> Masker:
        return self

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, _ = with_every_row(present, rows, background_rows)
        mask = self.groups.masks[self.text].to(present.device)
        keep = feature_mask(present, mask)
        order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
        filled = torch.arange(keep.shape[1], device=keep.device) < keep.sum(1, keepdim=True)
        made: list[Tensor] = []
        for index, point in enumerate(self.points):
            here = point[rows]
            if point.shape == self.points[self.text].shape:
                fill = self.pad if index == self.text else 0
                here = torch.where(filled, here.gather(1, order), torch.full_like(here, fill))
            made.append(here)
        return tuple(made)


def coordinates(absent: Masker) -> Tensor | None:
    """(A, n): the mean of each player's features in each background row.

    None where absent features depend on those present, and where there is one background row.
    """
    rows = absent.nothing if isinstance(absent, Regressed) else absent
    if not isinstance(rows, Replace) or rows.background_size == 1:
        return None
    return rows.groups.feature_means(rows.others)


def masker(baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
    """The masker that a baseline asks for."""
    points = scorer.points
    if isinstance(baseline, Conditional | Gaussian):
        data = _table(baseline, points, groups)
        if isinstance(baseline, Gaussian):
            return Regressed(groups, points[0], data)
        positive_integer("Conditional neighbours", baseline.neighbours)
        return Nearby(groups, points[0], data, baseline.neighbours)
    if isinstance(baseline, Inpaint):
        return inpainted(points, groups)
    leaves_with_players = [i for i, mask in enumerate(groups.masks) if bool((mask >= 0).any())]
    integers = [i for i in leaves_with_players if not differentiable(points[i])]
    if isinstance(baseline, Deletion):
        if leaves_with_players != integers or len(integers) != 1 or points[integers[0]].dim() != 2:
            kinds = [f"{points[i].dtype} {tuple(points[i].shape)}" for i in leaves_with_players]
            raise BadInput(
                "Deletion takes tokens out of one integer input (B, T), and the players are in "
                f"{', '.join(kinds)}: give the token ids, without at=, and players= that are in them "
                "alone"
            )
        return Delete(groups, points, baseline.pad, integers[0])
    if isinstance(baseline, Background):
        rows = scorer.activations(background(baseline, scorer))
        return Replace(groups, points, rows, True, tuple(row[:1] for row in rows))
    resolved = resolve(baseline, scorer, integers)
    starts = tuple(
        start if index in leaves_with_players else points[index]
        for index, start in enumerate(resolved)
    )
    return Replace(groups, points, starts, False, starts)


def _table(baseline: Conditional | Gaussian, points: Leaves, groups: FeatureGroups) -> Tensor:
    name, data = type(baseline).__name__, cast("Any", baseline.data)
    point = points[0]
    if len(points) > 1 or point.dim() != 2 or not differentiable(point):
        raise BadInput(f"{name} is for one table of floats (B, columns)")
    if not isinstance(data, Tensor) or data.dim() != 2 or data.shape[1] != point.shape[1]:
        raise BadInput(f"{name} data must be a tensor of shape (N, {point.shape[1]})")
    if len(data) < 2 or not math.isfinite(float(data.sum())):
        raise BadInput(f"{name} data must hold two rows or more, all finite")
    return data.to(point)
