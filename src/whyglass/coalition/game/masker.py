"""What absence is: a masker makes the inputs in which only a coalition is present.

An evaluation keeps the players of a coalition and takes the rest from one of `background_size`
background rows. These are used equally: the value of a coalition is the mean score over them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import NoReturn

import torch
from torch import Tensor

from whyglass.core.checks import Check
from whyglass.core.errors import BadInput
from whyglass.core.guards import NonfiniteScore
from whyglass.core.inputs import Leaves, concatenate
from whyglass.core.scorer import Scorer


class Masker(ABC):
    """Abstract. Makes the points of evaluations.

    Attributes:
        background_size: number of background rows.
        sample_size: number of rows of the set that stands for absence, zero where one row does.
        cost: evaluations of the model for one score, rows tied with others left out of account.
        start: the baseline that an explanation shows, where each row has one.
    """

    background_size: int = 1
    sample_size: int = 0
    cost: int = 1
    start: Leaves | None

    @property
    def of_nobody(self) -> Masker:
        """The masker for nobody present: this one, or one with another background."""
        return self

    def evaluations(self, scores: int) -> int:
        """How many evaluations a row takes for so many scores, everybody and nobody apart."""
        return 1 + self.of_nobody.background_size + scores * self.cost

    def affords(self, budget: int) -> int:
        """How many scores a budget of evaluations a row pays for, everybody and nobody apart."""
        return (budget - self.evaluations(0)) // self.cost

    @abstractmethod
    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        """S R points, evaluation after evaluation, each for every one of the `rows` (R,).

        Players are absent where `present` (S, n) is false, and then as in one of the
        `background_rows` (S,). All three are on the points' device.
        """

    def unchanged(self, rows: int, players: int) -> Tensor:
        """(B, n): the players whose features are the same whether present or absent."""
        return torch.zeros(rows, players, dtype=torch.bool)

    def checks(self, rows: int) -> tuple[Check, ...]:
        """What there is to say of the background, for B rows."""
        return ()

    def evaluate(
        self, scorer: Scorer, coalitions: Tensor, background_rows: Tensor, rows: Tensor
    ) -> Tensor:
        """(S, R) or (S, R, K): scores of R rows with S coalitions, each with its background row."""
        width, device = len(rows), scorer.points[0].device
        present, background, own = (part.to(device) for part in (coalitions, background_rows, rows))

        def points(piece: slice) -> Leaves:
            """All rows of an evaluation at once; at either end of a piece, part of its rows."""
            whole = min(-(-piece.start // width) * width, piece.stop)
            rest = max(piece.stop // width * width, whole)
            made: list[Leaves] = []
            for start, stop in pairwise((piece.start, whole, rest, piece.stop)):
                if start < stop:
                    part = slice(start // width, -(-stop // width))
                    some_rows = own[start % width : start % width + stop - start]
                    made.append(self(present[part], some_rows, background[part]))
            return made[0] if len(made) == 1 else concatenate(made)

        try:
            scores = scorer.scores(points, rows.repeat(len(coalitions)), width)
        except NonfiniteScore as error:
            at = error.position // width
            refuse(error, coalitions[at], int(rows[error.position % width]))
        return scores.unflatten(0, (len(coalitions), width))


def refuse(error: NonfiniteScore, present: Tensor, row: int) -> NoReturn:
    """Say which coalition (n,) has a score that is not finite."""
    there, away = (_listed(players.nonzero()[:, 0].tolist()) for players in (present, ~present))
    raise BadInput(
        f"the score of row {row} is NaN or infinite with players {away} absent and {there} present, "
        "although it is finite at the input: what stands for absence may lie outside the range of "
        "the model (log or a division at zero, say); give another baseline="
    ) from error


def _listed(players: list[int]) -> str:
    more = f" and {len(players) - 10} more" if len(players) > 10 else ""
    return f"{players[:10]}{more}"
