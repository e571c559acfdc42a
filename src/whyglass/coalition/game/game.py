"""The game: what a coalition of players is worth, many rows at once, each value computed once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.maskers import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.core.inputs import Leaves, concatenate
from whyglass.core.scorer import Evaluated, Scorer

BLOCK = 2**18


class Game:
    """Values of coalitions of `n` players for each row, in float64 with a last axis of K targets.

    An evaluation is a coalition with one of the masker's `background_size` background rows. Its score
    is remembered: none is evaluated twice for a row. `spent` is what one row has cost, the evaluation
    of the input included. `full` and `empty` (B, K) are the values of everybody and of nobody,
    `empties` (B, A, K) the latter for each background row.
    """

    def __init__(
        self, scorer: Scorer, masker: Masker, groups: FeatureGroups, here: Evaluated
    ) -> None:
        self.scorer, self.masker, self.n, self.rows = scorer, masker, groups.count, scorer.rows
        self.groups, self.background_size, self.spent = groups, masker.background_size, 1
        self.full = _wide(here.scores, scorer.many)
        none = masker.nothing
        nobody = torch.zeros(none.background_size, self.n, dtype=torch.bool)
        all_rows = torch.arange(self.rows)
        scores = self._evaluate(none, nobody, torch.arange(none.background_size), all_rows)
        self.empty = scores.mean(1)
        same = none is masker
        self.empties = scores if same else self.empty[:, None].expand(-1, self.background_size, -1)
        self._keys: NDArray[Any] = np.zeros(0, np.uint64)
        self._scores = scores[:, :0]

    @property
    def change(self) -> Tensor:
        """(B, K): the change of score from nobody to everybody, which the players share."""
        return self.full - self.empty

    def value(self, coalitions: Tensor, active: Tensor | None = None) -> Tensor:
        """(R, S, K): mean score of each of the coalitions (S, n) over the background rows."""
        scores = self.scores(Evaluations(*self._with_background(coalitions)), active)
        return scores.unflatten(1, (len(coalitions), self.background_size)).mean(2)

    def without(self) -> Tensor:
        """(B, n, A, K): scores without each player in turn, for each background row."""
        all_but_one = ~torch.eye(self.n, dtype=torch.bool)
        scores = self.scores(Evaluations(*self._with_background(all_but_one)))
        return scores.unflatten(1, (self.n, self.background_size))

    def all_values(self) -> Tensor:
        """(B, 2^n, K): values of all coalitions, with player i where bit i of the number is set."""
        total = 2**self.n
        values = self.full.new_empty(self.rows, total, self.full.shape[1])
        values[:, 0], values[:, -1] = self.empty, self.full
        step = max(1, BLOCK // (self.background_size * self.rows))
        all_rows = torch.arange(self.rows)
        for start in range(1, total - 1, step):
            numbers = torch.arange(start, min(start + step, total - 1))
            evaluations = self._with_background(members(numbers, self.n))
            scores = self._evaluate(self.masker, *evaluations, all_rows)
            values[:, numbers] = scores.unflatten(1, (len(numbers), self.background_size)).mean(2)
        return values

    def scores(self, evaluations: Evaluations, active: Tensor | None = None) -> Tensor:
        """(R, S, K): the scores of S evaluations, for the `active` rows (R,) or all.

        Rows may only be left out for good: what is remembered is not computed for them any more.
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

    def _remembered(self, keys: NDArray[Any]) -> NDArray[Any]:
        """The place of each key among those remembered, or -1."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, at, -1)

    def _remember(self, keys: NDArray[Any], scores: Tensor, rows: Tensor) -> None:
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

    def _with_background(self, coalitions: Tensor) -> tuple[Tensor, Tensor]:
        """The coalitions (S, n) with each background row in turn: (S A, n) and (S A,)."""
        size = self.background_size
        return coalitions.repeat_interleave(size, 0), torch.arange(size).repeat(len(coalitions))

    def _evaluate(
        self, masker: Masker, coalitions: Tensor, background_rows: Tensor, rows: Tensor
    ) -> Tensor:
        """(R, S, K): the scores of R rows with S coalitions, each with its background row."""
        size, width = len(coalitions), len(rows)
        self.spent += size
        if not size:
            return self.full.new_empty(width, 0, self.full.shape[1])
        device = self.scorer.points[0].device
        present, background_rows, explained = (
            part.to(device) for part in (coalitions, background_rows, rows)
        )

        def points(piece: slice) -> Leaves:
            """All rows of an evaluation at once; at either end of a piece, part of its rows."""
            whole = min(-(-piece.start // width) * width, piece.stop)
            rest = max(piece.stop // width * width, whole)
            made: list[Leaves] = []
            for start, stop in pairwise((piece.start, whole, rest, piece.stop)):
                if start < stop:
                    part = slice(start // width, -(-stop // width))
                    own = explained[start % width : start % width + stop - start]
                    made.append(masker(present[part], own, background_rows[part]))
            return made[0] if len(made) == 1 else concatenate(made)

        scores = self.scorer.scores(points, rows.repeat(size), width)
        return _wide(scores, self.scorer.many).reshape(size, width, -1).transpose(0, 1)


def members(numbers: Tensor, n: int) -> Tensor:
    """(S, n) membership of coalitions given by number: player i where bit i is set."""
    return (numbers[:, None] >> torch.arange(n)) & 1 > 0


def _wide(scores: Tensor, many: bool) -> Tensor:
    """float64 on the processor, always with an axis of targets."""
    wide = scores.detach().double().cpu()
    return wide if many else wide[..., None]
