"""The game: what a coalition of players is worth, many rows at once, each value computed once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.game.replace import Replace
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.core.standard_errors import Sampled, sampled_mean

# The most evaluations, and the most memberships, that are held at once.
BLOCK, MEMBERSHIPS = 2**18, 2**25


class Game:
    """Values of coalitions of `n` players for some rows, in float64 with a last axis of K targets.

    An evaluation is a coalition with one of the masker's `background_size` background rows. `full` and
    `empty` (R, K) are the values of everybody and of nobody, `empties` (R, A, K) the latter for each
    background row, `scores_of_nobody` (R, N, K) for each row of the set that stands for absence.

    Args:
        rows: which rows of the batch, all by default.
        players: which players play; the others are present in every coalition.
    """

    def __init__(
        self,
        scorer: Scorer,
        masker: Masker,
        groups: FeatureGroups,
        here: Evaluated,
        rows: Tensor | None = None,
        players: Tensor | None = None,
    ) -> None:
        self.scorer, self.masker, self.groups = scorer, masker, groups
        self._rows = torch.arange(scorer.rows) if rows is None else rows
        self._players = torch.arange(groups.count) if players is None else players
        self.rows, self.n, self.background_size = (
            len(self._rows),
            len(self._players),
            masker.background_size,
        )
        self.full = wide(here.scores, scorer.many)[self._rows]
        other = masker.of_nobody
        nobody = torch.zeros(other.background_size, self.n, dtype=torch.bool)
        every_row = torch.arange(self.rows)
        background = torch.arange(other.background_size)
        self.scores_of_nobody = self._evaluate(other, nobody, background, every_row)
        self.empty = self._mean(self.scores_of_nobody, every_row)
        self.empties = self.scores_of_nobody
        if other is not masker:
            self.empties = self.empty[:, None].expand(-1, self.background_size, -1)
        self._keys: NDArray[np.generic] = np.zeros(0, np.uint64)
        self._scores = self.empties[:, :0]

    @property
    def change(self) -> Tensor:
        """(R, K): the change of score from nobody to everybody, which the players share."""
        return self.full - self.empty

    def coordinates(self) -> tuple[Tensor, Tensor] | None:
        """(R, n), (A, n): the mean of each player's features, present and in each background row.

        None where absent features depend on those present, where there is one background row, and
        where a feature is missing (NaN).
        """
        absent = self.masker.of_nobody
        if not isinstance(absent, Replace) or self.background_size == 1:
            return None
        here = self.groups.feature_means(self.scorer.points)[self._rows][:, self._players]
        there = self.groups.feature_means(absent.others)[:, self._players]
        return (here, there) if here.isfinite().all() and there.isfinite().all() else None

    def coordinates_of_background(self) -> Tensor | None:
        """(A, n): the coordinates of the background rows, where there are such."""
        both = self.coordinates()
        return None if both is None else both[1]

    def value(self, coalitions: Tensor, active: Tensor | None = None) -> Tensor:
        """(R, S, K): mean score of each of the coalitions (S, n) over the background rows.

        A coalition that comes twice is evaluated once; from call to call nothing is remembered.
        """
        rows = torch.arange(self.rows) if active is None else active
        one = Evaluations(coalitions, torch.zeros(len(coalitions), dtype=torch.long))
        values = self._means(one.coalitions, rows)
        return one.expand(values, self.full[rows], self.empty[rows][:, None])

    def without(self) -> Sampled:
        """(R, n, K): how far the score falls without each player, mean over the background rows."""
        rows = torch.arange(self.rows)
        parts: list[Sampled] = []
        for _, scores in self._over_background(~torch.eye(self.n, dtype=torch.bool), rows):
            parts.append(sampled_mean(self.full[:, None, None] - scores, 2))
        return Sampled(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))

    def all_values(self) -> Tensor:
        """(R, 2^n, K): values of all coalitions, with player i where bit i of the number is set."""
        total = 2**self.n
        values = self.full.new_empty(self.rows, total, self.full.shape[1])
        values[:, 0], values[:, -1] = self.empty, self.full
        step = max(1, BLOCK // (self.background_size * self.rows))
        for start in range(1, total - 1, step):
            numbers = torch.arange(start, min(start + step, total - 1))
            values[:, numbers] = self._means(members(numbers, self.n), torch.arange(self.rows))
        return values

    def scores(self, evaluations: Evaluations, active: Tensor | None = None) -> Tensor:
        """(R, S, K): the scores of S evaluations, for the `active` rows (R,) or all.

        They are remembered: none is made twice for a row. Rows may only be left out for good, because
        what is remembered is not computed for them any more.
        """
        rows = torch.arange(self.rows) if active is None else active
        at = self._remembered(evaluations.keys)
        new = torch.from_numpy(at < 0)
        ask = slice(None) if new.all() else new
        coalitions, background_rows = evaluations.coalitions[ask], evaluations.background_rows[ask]
        scores = fresh = self._evaluate(self.masker, coalitions, background_rows, rows)
        if not new.all():
            scores = fresh.new_empty(len(rows), len(at), fresh.shape[2])
            scores[:, new], scores[:, ~new] = fresh, self._scores[rows][:, at[~new.numpy()]]
        self._remember(evaluations.keys[new.numpy()], fresh, rows)
        return evaluations.expand(scores, self.full[rows], self.empties[rows])

    def _remembered(self, keys: NDArray[np.generic]) -> NDArray[np.intp]:
        """The place of each key among those remembered, or -1."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, at, -1)

    def _remember(self, keys: NDArray[np.generic], scores: Tensor, rows: Tensor) -> None:
        if not len(keys):
            return
        filled = scores
        if len(rows) < self.rows:
            filled = scores.new_full((self.rows, *scores.shape[1:]), torch.nan)
            filled[rows] = scores
        if len(self._keys):
            keys, filled = np.concatenate([self._keys, keys]), torch.cat([self._scores, filled], 1)
            order = np.argsort(keys, kind="stable")
            keys, filled = keys[order], filled[:, torch.from_numpy(order)]
        self._keys, self._scores = keys, filled

    def _over_background(self, coalitions: Tensor, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """(R, s, A, K) scores with each background row, of a few of the coalitions (S, n) at a time."""
        size = self.background_size
        memberships = size * self.groups.count
        step = max(1, min(BLOCK // (size * len(rows)), MEMBERSHIPS // memberships))
        for start in range(0, len(coalitions), step):
            part = coalitions[start : start + step]
            background = torch.arange(size).repeat(len(part))
            scores = self._evaluate(self.masker, part.repeat_interleave(size, 0), background, rows)
            yield slice(start, start + len(part)), scores.unflatten(1, (len(part), size))

    def _means(self, coalitions: Tensor, rows: Tensor) -> Tensor:
        """(R, S, K): mean scores over the background rows."""
        values = self.full.new_empty(len(rows), len(coalitions), self.full.shape[1])
        for part, scores in self._over_background(coalitions, rows):
            values[:, part] = self._mean(scores, rows)
        return values

    def _mean(self, scores: Tensor, rows: Tensor) -> Tensor:
        """Mean over the last axis but one: that of equal scores is exactly the same."""
        full = self.full[rows].reshape(len(rows), *[1] * (scores.dim() - 2), -1)
        return full.squeeze(-2) + (scores - full).mean(-2)

    def _evaluate(
        self, masker: Masker, coalitions: Tensor, background_rows: Tensor, rows: Tensor
    ) -> Tensor:
        """(R, S, K): the scores of R rows with S coalitions, each with its background row."""
        if not len(coalitions):
            return self.full.new_empty(len(rows), 0, self.full.shape[1])
        present = coalitions
        if self.n < self.groups.count:
            present = torch.ones(len(coalitions), self.groups.count, dtype=torch.bool)
            present[:, self._players] = coalitions
        scores = masker.evaluate(self.scorer, present, background_rows, self._rows[rows])
        return wide(scores, self.scorer.many).transpose(0, 1)


def members(numbers: Tensor, n: int) -> Tensor:
    """(S, n) membership of coalitions given by number: player i where bit i is set."""
    return (numbers[:, None] >> torch.arange(n)) & 1 > 0


def wide(scores: Tensor, many: bool) -> Tensor:
    """float64 on the processor, always with an axis of targets."""
    wide = scores.detach().double().cpu()
    return wide if many else wide[..., None]
