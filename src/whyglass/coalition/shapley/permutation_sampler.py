"""Means over permutations of the players: they join one by one, and each gets what it adds.

An order is used forwards and backwards, which cancels much of the error, with one background row for
each order. Where the budget does not pay for that with every background row, some orders are used
forwards only. Every background row counts the same, however many orders have it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.shapley.exact_shapley import MOST
from whyglass.core.errors import BadInput
from whyglass.core.standard_errors import Sampled, degrees_of_freedom

ROUND, LEAST_FITTED = 8, 30
PRIOR = 2


def affordable(method: SampledCoalitions, players: int, absent: Masker) -> tuple[int, int]:
    """How many orders the budget pays for, and how many of them both ways.

    Refuses fewer than two both ways.
    """
    cost = max(1, players - 1)
    sequences = absent.affords(method.budget) // cost
    if sequences < 4:
        raise BadInput(
            f"budget {method.budget} does not pay for two orders of {players} players both ways, "
            f"which take {absent.evaluations(4 * cost)} evaluations a row: raise it, or group "
            "features with players= (players=8 makes 8 windows along each axis)"
        )
    orders = max(sequences // 2, min(sequences, absent.background_size))
    return orders, min(orders, sequences - orders)


class Permutations:
    """Orders (U, n) of the players, the first `both` used both ways.

    They come `size` at a time if `stops`, that is if a row may stop between, else all at once.
    """

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
        """The coalitions along the next orders, from nobody to everybody: forwards, then backwards.

        The tensor (W, n) beside them holds the position of each player in each of these W sequences.
        """
        if start not in self._evaluations:
            stop = start + self.size
            rank, n = self.orders[start:stop].argsort(1), self.orders.shape[1]
            back = max(0, min(stop, self._both) - start)
            positions = torch.cat([rank, n - 1 - rank[:back]])
            present = positions[:, None] < torch.arange(n + 1)[:, None]
            rows = self.background_rows[start:stop]
            rows = torch.cat([rows, rows[:back]]).repeat_interleave(n + 1)
            self._evaluations[start] = Evaluations(present.reshape(-1, n), rows), positions
        return self._evaluations[start]


def mean_gains(method: SampledCoalitions, game: Game, permutations: Permutations) -> Estimate:
    """The mean over the orders of what each player adds, with its errors and checks.

    Rows stop on their own with a tolerance.
    """
    count, n = permutations.orders.shape
    active = torch.arange(game.rows)
    gains = torch.zeros(game.rows, count, n, game.full.shape[1], dtype=torch.float64)
    estimate = Sampled(*(torch.zeros_like(gains[:, 0]) for _ in range(3)))
    coordinates = game.coordinates_of_background() if count <= game.background_size else None
    for start in range(0, count, permutations.size):
        stop = min(start + permutations.size, count)
        evaluations, positions = permutations.evaluations(start)
        changes = game.scores(evaluations, active).unflatten(1, (len(positions), n + 1)).diff(dim=2)
        added = changes.gather(2, positions[None, ..., None].expand(changes.shape))
        ahead, back = added.split([stop - start, len(positions) - stop + start], 1)
        ahead[:, : back.shape[1]].add_(back).div_(2)
        gains[active, start:stop] = ahead
        used, known = permutations.background_rows[:stop], gains[active, :stop]
        times = torch.bincount(used, minlength=game.background_size)
        part = (
            _mean_of_all_rows(known, used, times.double())
            if times.all()
            else _mean_of_used_rows(known, used, coordinates, game.change[active])
        )
        for whole, own in zip(estimate, part, strict=True):
            whole[active] = own
        active = method.unfinished(part.values, part.errors, active)
        if not len(active):
            break
    notes = (
        ("the budget pays for every coalition: exact-shapley gives the values without error",)
        if n < MOST and (2**n - 2) * game.background_size <= game.masker.affords(method.budget)
        else ()
    )
    return Estimate(*estimate[:2], method.sampling_checks(estimate), notes)


def _mean_of_all_rows(gains: Tensor, background_rows: Tensor, times: Tensor) -> Sampled:
    """Mean over the background rows of the means over their orders, and its standard error.

    Once each has two orders, only what differs within one is left to chance. Before that the spread
    over all orders is counted, which is too much rather than too little.
    """
    share = (1 / times / len(times))[background_rows]
    mean = torch.einsum("rpnk,p->rnk", gains, share)
    centre, fitted = mean[:, None], 1
    if times.min() > 1:
        own = torch.zeros_like(gains[:, : len(times)])
        own.index_add_(1, background_rows, gains * (share * len(times))[:, None, None])
        centre, fitted = own[:, background_rows], len(times)
    variance, freedom = _variance(gains - centre, fitted)
    return Sampled(mean, (_with_prior(variance, len(share)) * share.square().sum()).sqrt(), freedom)


def _mean_of_used_rows(
    gains: Tensor, background_rows: Tensor, coordinates: Tensor | None, change: Tensor
) -> Sampled:
    """The mean where some background rows were not used at all, and its standard error.

    A player's gains are fitted by a line in its coordinate where it is absent (A, n), and taken at the
    mean of that. What is still missing of the change (R, K) goes to players by their variances.
    """
    count, mean = len(background_rows), gains.mean(1)
    residual, fitted, reach = gains - mean[:, None], 1, gains.new_zeros(gains.shape[2])
    if coordinates is not None and count >= LEAST_FITTED:
        used = coordinates[background_rows]
        away = coordinates.mean(0) - used.mean(0)
        used = used - used.mean(0)
        square = used.square().sum(0)
        inverse = torch.where(square > 0, 1 / square, 0.0)
        slope = torch.einsum("rpnk,pn->rnk", residual, used * inverse)
        mean = mean + slope * away[:, None]
        residual, fitted, reach = residual - used[..., None] * slope[:, None], 2, away**2 * inverse
    variance, freedom = _variance(residual, fitted)
    total = variance.sum(1, keepdim=True)
    missing = change - mean.sum(1)
    mean = mean + missing[:, None] * torch.where(total > 0, variance / total, 0.0)
    return Sampled(
        mean, (_with_prior(variance, count) * (1 / count + reach)[:, None]).sqrt(), freedom
    )


def _variance(residual: Tensor, fitted: int) -> tuple[Tensor, Tensor]:
    """(R, n, K) variances of residuals (R, P, n, K), and their degrees of freedom."""
    square = residual.square()
    total, fourths = square.sum(1), square.square().sum(1)
    freedom = degrees_of_freedom(total, fourths, residual.shape[1], fitted)
    return total / (residual.shape[1] - fitted), freedom


def _with_prior(variance: Tensor, count: int) -> Tensor:
    """Variances (R, n, K) as if of two more orders, as large as those of all players on average.

    A player whose gains are rare may have shown none of them yet. Agresti & Coull (1998) add two to
    each count for the same reason.
    """
    return variance + PRIOR / count * variance.mean(1, keepdim=True)
