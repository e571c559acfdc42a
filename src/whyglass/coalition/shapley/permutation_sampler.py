"""Shapley values from walks: players join one by one in an order, and each gets what it adds.

An order is walked forwards and backwards, which cancels much of the error, with one row of
the masker (one row of a background, say) an order. Where the budget does not pay for that with every
row, some are walked forwards only. Every background row counts the same, however often walked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.maskers import Masker, coordinates
from whyglass.coalition.shapley.exact_shapley import MOST
from whyglass.core.errors import BadInput

ROUND, LEAST_FITTED = 8, 30


def affordable(method: SampledCoalitions, players: int, absent: Masker) -> tuple[int, int]:
    """How many orders the budget pays for, and how many of them both ways.

    Refuses fewer than two both ways.
    """
    ends, cost = 1 + absent.nothing.background_size, max(1, players - 1)
    walks = (method.budget - ends) // cost
    if walks < 4:
        raise BadInput(
            f"budget {method.budget} does not pay for two pairs of walks through {players} players, "
            f"which take {ends + 4 * cost} evaluations a row: raise it, or group features with "
            "players= (players=8 makes 8 windows along each axis)"
        )
    orders = max(walks // 2, min(walks, absent.background_size))
    return orders, min(orders, walks - orders)


class Walks:
    """Along each of the orders (U, n), the first ones `both` ways, a few at a time if one `stops`."""

    def __init__(
        self,
        orders: Tensor,
        both: int,
        background_size: int,
        generator: torch.Generator,
        stops: bool,
    ) -> None:
        self.orders, count = orders, len(orders)
        laps = -(-count // background_size)
        background_rows = [
            torch.randperm(background_size, generator=generator) for _ in range(laps)
        ]
        self.background_rows = torch.cat(background_rows)[:count]
        self.size = count
        if stops:
            self.size = background_size if 1 < background_size < count else ROUND
        self._both = both
        self._evaluations: dict[int, tuple[Evaluations, Tensor]] = {}

    def evaluations(self, start: int) -> tuple[Evaluations, Tensor]:
        """Of a few orders the walks from nobody to everybody, forwards and then backwards.

        With them (W, n) when each player joins on each walk.
        """
        if start not in self._evaluations:
            stop = start + self.size
            rank, n = self.orders[start:stop].argsort(1), self.orders.shape[1]
            back = max(0, min(stop, self._both) - start)
            joins = torch.cat([rank, n - 1 - rank[:back]])
            there = joins[:, None] < torch.arange(n + 1)[:, None]
            background_rows = self.background_rows[start:stop]
            background_rows = torch.cat(
                [background_rows, background_rows[:back]]
            ).repeat_interleave(n + 1)
            self._evaluations[start] = Evaluations(there.reshape(-1, n), background_rows), joins
        return self._evaluations[start]


def walk(method: SampledCoalitions, game: Game, walks: Walks) -> Estimate:
    """Means over walks, their standard errors and the checks.

    Rows stop on their own with a tolerance.
    """
    count, n = walks.orders.shape
    active = torch.arange(game.rows)
    gains = torch.zeros(game.rows, count, n, game.full.shape[1], dtype=torch.float64)
    values, errors = (torch.zeros_like(gains[:, 0]) for _ in range(2))
    spots = coordinates(game.masker) if count <= game.background_size else None
    for start in range(0, count, walks.size):
        stop = min(start + walks.size, count)
        evaluations, joins = walks.evaluations(start)
        steps = game.scores(evaluations, active).unflatten(1, (len(joins), n + 1)).diff(dim=2)
        added = steps.gather(2, joins[None, ..., None].expand(steps.shape))
        ahead, back = added.split([stop - start, len(joins) - stop + start], 1)
        ahead[:, : back.shape[1]].add_(back).div_(2)
        gains[active, start:stop] = ahead
        so_far, some = walks.background_rows[:stop], gains[active, :stop]
        times = torch.bincount(so_far, minlength=game.background_size)
        values[active], errors[active] = (
            _mean_of_all_rows(some, so_far, times.double())
            if times.all()
            else _mean_of_used_rows(some, so_far, spots, game.change[active])
        )
        active = method.unfinished(values[active], errors[active], active)
        if not len(active):
            break
    notes = (
        ("the budget pays for every coalition: exact-shapley gives the values without error",)
        if n < MOST
        and 1 + game.masker.nothing.background_size + (2**n - 2) * game.background_size
        <= method.budget
        else ()
    )
    return Estimate(values, errors, (method.precision(values, errors),), notes)


def _mean_of_all_rows(
    gains: Tensor, background_rows: Tensor, times: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean over the background rows of the means over their orders, and its standard error.

    Once each has two orders, only what differs within one is left to chance. Before that the spread
    over all orders is counted, which is too much rather than too little.
    """
    share = (1 / times / len(times))[background_rows]
    mean = torch.einsum("rpnk,p->rnk", gains, share)
    about, spare = mean[:, None], len(background_rows) - 1
    if times.min() > 1:
        own = torch.zeros_like(gains[:, : len(times)])
        own.index_add_(1, background_rows, gains * (share * len(times))[:, None, None])
        about, spare = own[:, background_rows], len(background_rows) - len(times)
    spread = (gains - about).square().sum(1) / spare
    return mean, (spread * share.square().sum()).sqrt()


def _mean_of_used_rows(
    gains: Tensor, background_rows: Tensor, spots: Tensor | None, change: Tensor
) -> tuple[Tensor, Tensor]:
    """The same where some background rows were not used at all.

    What a player gains is fitted by a line in what it is where it is absent (A, n), and taken at the
    mean of that. What is still missing of the change (R, K) goes to players by how much is left over.
    """
    count, mean = len(background_rows), gains.mean(1)
    left, spare, reach = gains - mean[:, None], count - 1, gains.new_zeros(gains.shape[2])
    if spots is not None and count >= LEAST_FITTED:
        way = spots[background_rows]
        away = spots.mean(0) - way.mean(0)
        way = way - way.mean(0)
        square = way.square().sum(0)
        inverse = torch.where(square > 0, 1 / square, 0.0)
        slope = torch.einsum("rpnk,pn->rnk", left, way * inverse)
        mean = mean + slope * away[:, None]
        left, spare, reach = left - way[..., None] * slope[:, None], count - 2, away**2 * inverse
    left = left.square().sum(1) / spare
    total = left.sum(1, keepdim=True)
    off = change - mean.sum(1)
    mean = mean + off[:, None] * torch.where(total > 0, left / total, 0.0)
    return mean, (left * (1 / count + reach)[:, None]).sqrt()
