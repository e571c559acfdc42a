"""Shapley values from walks: players join one by one in an order, and each gets what it adds.

An order is walked forwards and backwards, which cancels much of the error, with one alternative of
the masker (one row of a background, say) a pair of walks. Every alternative is walked equally often
where the budget allows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.exact_shapley import MOST
from whyglass.coalition.game import Game
from whyglass.coalition.maskers import Masker
from whyglass.coalition.plays import Plays
from whyglass.errors import BadInput

ROUND = 8


def affordable(method: SampledCoalitions, players: int, absent: Masker) -> int:
    """How many pairs of walks the budget pays for; refuses fewer than two.

    Whole rounds over the alternatives, where there is one to be had.
    """
    alternatives = absent.nothing.count
    ends, pair = 1 + alternatives, max(1, 2 * (players - 1))
    pairs = (method.budget - ends) // pair
    if pairs < 2:
        raise BadInput(
            f"budget {method.budget} does not pay for two pairs of walks through {players} players, "
            f"which take {ends + 2 * pair} evaluations a row: raise it, or group features with "
            "players= (players=8 makes 8 windows along each axis)"
        )
    return pairs if pairs < absent.count else pairs - pairs % absent.count


class Walks:
    """A pair of walks along each of the orders (P, n), and its alternative, `size` pairs at a time."""

    def __init__(
        self, orders: Tensor, alternatives: int, generator: torch.Generator, stops: bool
    ) -> None:
        self.orders, pairs = orders, len(orders)
        laps = -(-pairs // alternatives)
        which = [torch.randperm(alternatives, generator=generator) for _ in range(laps)]
        self.which = torch.cat(which)[:pairs]
        self.size = pairs
        if stops:
            self.size = alternatives if 1 < alternatives < pairs else ROUND
        self._plays: dict[int, tuple[Plays, Tensor]] = {}

    def plays(self, piece: int) -> tuple[Plays, Tensor]:
        """Both walks of each order in a piece, from nobody to everybody, and when each player joins."""
        if piece not in self._plays:
            some = slice(piece, piece + self.size)
            rank, n = self.orders[some].argsort(1), self.orders.shape[1]
            joins = torch.stack([rank, n - 1 - rank], 1)
            there = joins[:, :, None] < torch.arange(n + 1)[:, None]
            which = self.which[some].repeat_interleave(2 * (n + 1))
            self._plays[piece] = Plays(there.reshape(-1, n), which), joins
        return self._plays[piece]


def walk(method: SampledCoalitions, game: Game, walks: Walks) -> Estimate:
    """Means over the pairs of walks, their standard errors and the checks.

    Rows stop on their own with a tolerance.
    """
    pairs, n = walks.orders.shape
    active = torch.arange(game.rows)
    gains = torch.zeros(game.rows, pairs, n, game.full.shape[1], dtype=torch.float64)
    values, errors = (torch.zeros_like(gains[:, 0]) for _ in range(2))
    for start in range(0, pairs, walks.size):
        plays, joins = walks.plays(start)
        scores = game.play(plays, active).unflatten(1, (*joins.shape[:2], n + 1))
        stop = start + len(joins)
        gains[active, start:stop] = _gains(scores, joins)
        so_far = walks.which[:stop]
        # How far the alternatives walked are, by their own scores, off the mean of all.
        off = game.empties[active][:, so_far].mean(1) - game.empty[active]
        values[active], errors[active] = _summary(gains[active, :stop], so_far, game.count, off)
        active = method.loose(values[active], errors[active], active)
        if not len(active):
            break
    notes = (
        ("the budget pays for every coalition: exact-shapley gives the values without error",)
        if n < MOST and 1 + game.masker.nothing.count + (2**n - 2) * game.count <= method.budget
        else ()
    )
    return Estimate(values, errors, (method.precision(values, errors),), notes)


def _gains(scores: Tensor, joins: Tensor) -> Tensor:
    """(R, P, n, K): what each player adds, mean of the two walks, from scores (R, P, 2, n + 1, K)."""
    steps = scores.diff(dim=3)
    return steps.gather(3, joins[None, ..., None].expand(steps.shape)).mean(2)


def _summary(gains: Tensor, which: Tensor, alternatives: int, off: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over pairs, and its standard error.

    After two whole laps only what differs within an alternative is left to chance. Before that the
    spread over all pairs is counted, which is too much rather than too little. Without whole laps the
    gains miss the change of score by `off` (R, K), which goes to the players that vary, by how much.
    """
    pairs, mean = gains.shape[1], gains.mean(1)
    laps, rest = divmod(pairs, alternatives)
    if alternatives > 1 and laps > 1 and not rest:
        order = which.argsort(stable=True)
        grouped = gains[:, order].unflatten(1, (alternatives, laps))
        within = (grouped - grouped.mean(2, keepdim=True)).square().sum((1, 2))
        return mean, (within / (alternatives * (laps - 1) * pairs)).sqrt()
    spread = (gains - mean[:, None]).square().sum(1) / (pairs - 1)
    total = spread.sum(1, keepdim=True)
    return (
        mean + off[:, None] * torch.where(total > 0, spread / total, 0.0),
        (spread / pairs).sqrt(),
    )
