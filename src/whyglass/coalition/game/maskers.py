"""What absence is: a masker makes the inputs in which only a coalition is present.

A play keeps some players of a row and takes the rest from one of `count` alternatives, which are used
equally: the value of a coalition is the mean score over them. A masker is given plays and rows, and
makes every play of every row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from whyglass.coalition.game.inpainting import inpainted
from whyglass.coalition.game.players import Team, each, playing
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
    """`start` is what an explanation shows as its baseline, if it is one row a row."""

    count: int
    start: Leaves | None

    @property
    def nothing(self) -> Masker:
        """What to use where nobody is present: itself, or one with other alternatives."""
        ...

    def __call__(self, present: Tensor, rows: Tensor, which: Tensor) -> Leaves:
        """S R points, play after play: `rows` (R,), players absent where `present` (S, n) is false.

        `which` (S,) is the alternative, of `count`. All three are on the points' device.
        """
        ...


@dataclass
class Replace:
    """Absent features come from `others`: a row for each row explained, or a set for all."""

    team: Team
    points: Leaves
    others: Leaves
    shared: bool
    start: Leaves | None

    def __post_init__(self) -> None:
        self.count = len(self.others[0]) if self.shared else 1
        device = self.points[0].device
        self._masks = [mask.to(device) for mask in self.team.masks]
        self._all = [
            None if bool((mask < 0).all()) else bool((mask >= 0).all()) for mask in self.team.masks
        ]
        # A leaf whose features are players in order needs no look-up.
        self._runs = [
            int(mask.flatten()[0])
            if torch.equal(mask.flatten(), torch.arange(mask.numel()) + mask.flatten()[0])
            else None
            for mask in self.team.masks
        ]

    @property
    def nothing(self) -> Masker:
        return self

    def __call__(self, present: Tensor, rows: Tensor, which: Tensor) -> Leaves:
        made: list[Tensor] = []
        for point, other, mask, plays, run in zip(
            self.points, self.others, self._masks, self._all, self._runs, strict=True
        ):
            here = point[rows]
            if plays is None:
                made.append(here.repeat(len(present), *[1] * (here.dim() - 1)))
                continue
            if run is not None and plays:
                keep = present[:, run : run + mask.numel()].reshape(-1, *mask.shape)
            else:
                keep = playing(present, mask)
            away = other[which][:, None] if self.shared else other[rows]
            made.append(torch.where(keep[:, None], here, away).flatten(0, 1))
        return tuple(made)


@dataclass
class Table:
    """What the two conditional maskers share: one table, each column a player or held fixed."""

    team: Team
    point: Tensor
    data: Tensor

    def __post_init__(self) -> None:
        self.start: Leaves | None = None
        self._mask = self.team.masks[0].to(self.point.device)
        self._nothing = Replace(self.team, (self.point,), (self.data,), True, None)

    @property
    def nothing(self) -> Masker:
        return self._nothing

    def columns(self, present: Tensor) -> Tensor:
        """(E, columns): what is present, held columns included."""
        return playing(present, self._mask)


@dataclass
class Nearby(Table):
    """`whyglass.core.baseline.Conditional`."""

    neighbours: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.count = min(self.neighbours, len(self.data))
        spread = self.data.std(0, correction=0)
        self._units = torch.where(spread > 0, spread, torch.ones_like(spread))

    def __call__(self, present: Tensor, rows: Tensor, which: Tensor) -> Leaves:
        present, rows, which = each(present, rows, which)
        keep, here = self.columns(present), self.point[rows]
        away = ((here[:, None] - self.data) / self._units) ** 2
        distance = torch.where(keep[:, None], away, torch.zeros_like(away)).sum(2)
        near = distance.argsort(dim=1, stable=True).gather(1, which[:, None])[:, 0]
        return (torch.where(keep, here, self.data[near]),)


@dataclass
class Regressed(Table):
    """`whyglass.core.baseline.Gaussian`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.count = len(self.data)
        self._covariance = self.data.double().T.cov(correction=0).reshape(2 * [self.data.shape[1]])
        self._slopes: dict[bytes, Tensor] = {}

    def __call__(self, present: Tensor, rows: Tensor, which: Tensor) -> Leaves:
        present, rows, which = each(present, rows, which)
        keep, here, base = self.columns(present), self.point[rows], self.data[which]
        made = torch.where(keep, here, base)
        distinct, place = keep.unique(dim=0, return_inverse=True)
        for index, kept in enumerate(distinct):
            if kept.any() and not kept.all():
                mine = place == index
                off = (here[mine] - base[mine])[:, kept].double()
                moved = base[mine][:, ~kept] + (off @ self._slope(kept)).to(base)
                made[mine] = made[mine].index_copy(1, (~kept).nonzero()[:, 0], moved)
        return (made,)

    def _slope(self, kept: Tensor) -> Tensor:
        """The matrix that predicts the absent columns from those present."""
        key = kept.cpu().numpy().tobytes()
        if key not in self._slopes:
            inner = self._covariance[kept][:, kept]
            # The pseudo-inverse: constant or repeated columns of the data are no obstacle.
            inverse = torch.linalg.pinv(inner, rtol=1e-10, hermitian=True)
            self._slopes[key] = inverse @ self._covariance[kept][:, ~kept]
        return self._slopes[key]


@dataclass
class Delete:
    """`whyglass.core.baseline.Deletion`: tokens move up, what belongs to them moves along."""

    team: Team
    points: Leaves
    pad: int
    text: int
    start: Leaves | None = None
    count: int = 1

    @property
    def nothing(self) -> Masker:
        return self

    def __call__(self, present: Tensor, rows: Tensor, which: Tensor) -> Leaves:
        present, rows, _ = each(present, rows, which)
        mask = self.team.masks[self.text].to(present.device)
        keep = playing(present, mask)
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
    """(A, n): what each player is where it is absent, by alternative; None where that depends."""
    rows = absent.nothing if isinstance(absent, Regressed) else absent
    if not isinstance(rows, Replace) or rows.count == 1:
        return None
    return rows.team.means(rows.others)


def masker(baseline: Baseline, scorer: Scorer, team: Team) -> Masker:
    """What makes players absent, from what the user gave as the baseline."""
    points = scorer.points
    if isinstance(baseline, Conditional | Gaussian):
        data = _table(baseline, points, team)
        if isinstance(baseline, Gaussian):
            return Regressed(team, points[0], data)
        positive_integer("Conditional neighbours", baseline.neighbours)
        return Nearby(team, points[0], data, baseline.neighbours)
    if isinstance(baseline, Inpaint):
        return inpainted(points, team)
    words = [
        index
        for index, (point, mask) in enumerate(zip(points, team.masks, strict=True))
        if not differentiable(point) and bool((mask >= 0).any())
    ]
    if isinstance(baseline, Deletion):
        if len(words) != 1 or points[words[0]].dim() != 2:
            raise BadInput(
                "Deletion takes tokens out of one integer input (B, T), and there is none"
            )
        return Delete(team, points, baseline.pad, words[0])
    if isinstance(baseline, Background):
        rows = scorer.activations(background(baseline, scorer))
        return Replace(team, points, rows, True, tuple(row[:1] for row in rows))
    starts = _tokens(baseline, scorer, words) if words else resolve(baseline, scorer)
    return Replace(team, points, starts, False, starts)


def _tokens(baseline: Baseline, scorer: Scorer, words: Sequence[int]) -> Leaves:
    """A baseline where integer inputs are explained: the mask token, or other tokens."""
    points = scorer.points
    if isinstance(baseline, int) and not isinstance(baseline, bool):
        fill = [baseline if index in words else 0 for index in range(len(points))]
        return tuple(torch.full_like(p, value) for p, value in zip(points, fill, strict=True))
    leaves = (baseline,) if isinstance(baseline, Tensor) else baseline
    if isinstance(leaves, tuple) and len(leaves) == len(points):
        pairs = list(zip(leaves, points, strict=True))
        if all(leaf.dtype == p.dtype and leaf.shape[-1:] == p.shape[-1:] for leaf, p in pairs):
            try:
                return tuple(leaf.to(p.device).expand_as(p) for leaf, p in pairs)
            except RuntimeError:
                pass
    raise BadInput(
        f"baseline {baseline!r} cannot stand for absent tokens: give the id of the mask token as an "
        "integer, tokens of the inputs' shape, Deletion(pad), or explain the embedding with at="
    )


def _table(baseline: Conditional | Gaussian, points: Leaves, team: Team) -> Tensor:
    name, data = type(baseline).__name__, cast("Any", baseline.data)
    point = points[0]
    if len(points) > 1 or point.dim() != 2 or not differentiable(point):
        raise BadInput(f"{name} is for one table of floats (B, columns)")
    if not isinstance(data, Tensor) or data.dim() != 2 or data.shape[1] != point.shape[1]:
        raise BadInput(f"{name} data must be a tensor of shape (N, {point.shape[1]})")
    if len(data) < 2 or not math.isfinite(float(data.sum())):
        raise BadInput(f"{name} data must hold two rows or more, all finite")
    return data.to(point)
