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


def walk(
    method: SampledCoalitions, game: Game, orders: Tensor, generator: torch.Generator
) -> Estimate:
    """Means over the pairs of walks along `orders` (P, n), their standard errors and the checks.

    Rows stop on their own with a tolerance.
    """
    pairs, n = orders.shape
    laps = -(-pairs // game.count)
    which = torch.cat([torch.randperm(game.count, generator=generator) for _ in range(laps)])[
        :pairs
    ]
    laps_fit = 1 < game.count < pairs
    size = pairs if method.tol is None else game.count if laps_fit else ROUND
    active = torch.arange(game.rows)
    gains = torch.zeros(game.rows, pairs, n, game.full.shape[1], dtype=torch.float64)
    values, errors = (torch.zeros_like(gains[:, 0]) for _ in range(2))
    for start in range(0, pairs, size):
        piece = slice(start, min(start + size, pairs))
        gains[active, piece] = _pairs(game, orders[piece], which[piece], active)
        so_far = which[: piece.stop]
        # How far the alternatives walked are, by their own scores, off the mean of all.
        off = game.empties[active][:, so_far].mean(1) - game.empty[active]
        values[active], errors[active] = _summary(
            gains[active, : piece.stop], so_far, game.count, off
        )
        active = method.loose(values[active], errors[active], active)
        if not len(active):
            break
    notes = (
        ("the budget pays for every coalition: exact-shapley gives the values without error",)
        if n < MOST and 1 + game.masker.nothing.count + (2**n - 2) * game.count <= method.budget
        else ()
    )
    return Estimate(values, errors, (method.precision(values, errors),), notes)


def _pairs(game: Game, orders: Tensor, which: Tensor, active: Tensor) -> Tensor:
    """(R, P, n, K): mean gain of each player on the two walks of each order."""
    pairs, n = orders.shape
    rank = orders.argsort(1)
    steps = torch.arange(1, n)
    both = torch.stack([rank, n - 1 - rank], 1)
    plays = (both[:, :, None] < steps[:, None]).reshape(-1, n)
    alternatives = which.repeat_interleave(2 * (n - 1))
    between = game.play(plays, alternatives, active).reshape(
        len(active), pairs, 2, n - 1, game.full.shape[1]
    )
    ends = game.empties[active][:, which][:, :, None, None].expand(-1, -1, 2, -1, -1)
    tops = game.full[active][:, None, None, None].expand_as(ends)
    gains = torch.cat([ends, between, tops], 3).diff(dim=3)
    place = both[None, ..., None].expand(gains.shape)
    return gains.gather(3, place).mean(2)


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
