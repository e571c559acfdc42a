"""The game: what a coalition of players is worth, many rows at once, each value computed once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyglass.coalition.game.evaluations import Plays
from whyglass.coalition.game.maskers import Masker
from whyglass.coalition.game.players import Team
from whyglass.core.inputs import Leaves, concatenate
from whyglass.core.scorer import Evaluated, Scorer

BLOCK = 2**18


class Game:
    """Values of coalitions of `n` players for each row, in float64 with a last axis of K targets.

    A *play* is a coalition and one of the masker's `count` alternatives. Its score is remembered: no
    play is evaluated twice for a row. `spent` is what one row has cost, the look at the input
    included; `full` and `empty` (B, K) are the values of everybody and of nobody, `empties`
    (B, count, K) the latter by alternative.
    """

    def __init__(self, scorer: Scorer, masker: Masker, team: Team, here: Evaluated) -> None:
        self.scorer, self.masker, self.n, self.rows = scorer, masker, team.count, scorer.rows
        self.team, self.count, self.spent = team, masker.count, 1
        self.full = _wide(here.scores, scorer.many)
        none = masker.nothing
        nobody = torch.zeros(none.count, self.n, dtype=torch.bool)
        every = torch.arange(self.rows)
        found = self._play(none, nobody, torch.arange(none.count), every)
        self.empty = found.mean(1)
        self.empties = found if none is masker else self.empty[:, None].expand(-1, self.count, -1)
        self._keys: NDArray[Any] = np.zeros(0, np.uint64)
        self._scores = found[:, :0]

    @property
    def change(self) -> Tensor:
        """(B, K): what the players share out."""
        return self.full - self.empty

    def value(self, coalitions: Tensor, active: Tensor | None = None) -> Tensor:
        """(R, S, K): mean score of each of the coalitions (S, n) over the alternatives."""
        size = len(coalitions)
        which = torch.arange(self.count).repeat(size)
        found = self.play(Plays(coalitions.repeat_interleave(self.count, 0), which), active)
        return found.reshape(len(found), size, self.count, -1).mean(2)

    def without(self) -> Tensor:
        """(B, n, A, K): everybody but each player in turn, by alternative."""
        present = (~torch.eye(self.n, dtype=torch.bool)).repeat_interleave(self.count, 0)
        scores = self.play(Plays(present, torch.arange(self.count).repeat(self.n)))
        return scores.unflatten(1, (self.n, self.count))

    def every(self) -> Tensor:
        """(B, 2^n, K): all coalitions, player i present where bit i of the number is set."""
        total = 2**self.n
        found = self.full.new_empty(self.rows, total, self.full.shape[1])
        found[:, 0], found[:, -1] = self.empty, self.full
        step = max(1, BLOCK // (self.count * self.rows))
        active = torch.arange(self.rows)
        for start in range(1, total - 1, step):
            numbers = torch.arange(start, min(start + step, total - 1))
            plays = members(numbers, self.n).repeat_interleave(self.count, 0)
            which = torch.arange(self.count).repeat(len(numbers))
            scores = self._play(self.masker, plays, which, active)
            found[:, numbers] = scores.reshape(self.rows, len(numbers), self.count, -1).mean(2)
        return found

    def play(self, plays: Plays, active: Tensor | None = None) -> Tensor:
        """(R, S, K): the scores of S plays, for the `active` rows (R,) or all.

        Rows may only be left out for good: what is remembered is not computed for them any more.
        """
        rows = torch.arange(self.rows) if active is None else active
        at = self._remembered(plays.keys)
        new = torch.from_numpy(at < 0)
        ask = slice(None) if new.all() else new
        scores = fresh = self._play(self.masker, plays.coalitions[ask], plays.which[ask], rows)
        if not new.all():
            scores = fresh.new_empty(len(rows), len(at), fresh.shape[2])
            scores[:, new], scores[:, ~new] = fresh, self._scores[rows][:, at[~new.numpy()]]
        self._remember(plays.keys[new.numpy()], fresh, rows)
        return plays.spread(scores, self.full[rows], self.empties[rows])

    def _remembered(self, keys: NDArray[Any]) -> NDArray[Any]:
        """Where each of the keys is, or -1."""
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

    def _play(self, masker: Masker, coalitions: Tensor, which: Tensor, rows: Tensor) -> Tensor:
        """Evaluate S plays for R rows, play after play: (R, S, K)."""
        size, width = len(coalitions), len(rows)
        self.spent += size
        if not size:
            return self.full.new_empty(width, 0, self.full.shape[1])
        device = self.scorer.points[0].device
        present, alternative, mine = (part.to(device) for part in (coalitions, which, rows))

        def points(piece: slice) -> Leaves:
            """Whole plays at once; where a piece ends within a play, some rows of that."""
            whole = min(-(-piece.start // width) * width, piece.stop)
            rest = max(piece.stop // width * width, whole)
            made: list[Leaves] = []
            for start, stop in pairwise((piece.start, whole, rest, piece.stop)):
                if start < stop:
                    plays = slice(start // width, -(-stop // width))
                    some = mine[start % width : start % width + stop - start]
                    made.append(masker(present[plays], some, alternative[plays]))
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
