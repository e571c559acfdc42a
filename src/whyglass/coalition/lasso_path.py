"""The players that a lasso takes up first, for many columns of scores at once."""

from __future__ import annotations

import torch
from torch import Tensor

# The path ends where its penalty is this small beside the first: what is left is rounding.
SMALLEST = 1e-6


def first_on_lasso_path(members: Tensor, weights: Tensor, scores: Tensor, features: int) -> Tensor:
    r"""(C, n): for each column of scores (S, C) the `features` players that first have a slope.

    .. math:: \min_w \tfrac{1}{2} \sum_z \pi(z) \, [v(z) - w_0 - w^\top z]^2 + \lambda |w|_1

    as :math:`\lambda` falls, by least angle regression: between two changes of the set of players with
    a slope the path is a line. Only products of columns are used, so that a step costs the same for
    any number of coalitions (S, n). Source: Efron, Hastie, Johnstone & Tibshirani (2004), "Least Angle
    Regression", equations 2.11 to 2.13 and 3.5.
    """
    share = weights / weights.sum()
    design = members.double()
    design = design - share @ design
    gram = design.T @ (share[:, None] * design)
    correlations = (share[:, None] * (scores - share @ scores)).T @ design
    entered = torch.zeros_like(correlations, dtype=torch.bool)
    wanted = min(features, len(gram))
    path = _Path(gram, correlations)
    last = SMALLEST * path.penalty
    # A player may leave and come back: three changes a player are more than paths take.
    for _ in range(3 * wanted):
        path = path.only(path.penalty > last[path.columns])
        entered[path.columns] |= path.active
        path = path.only(entered[path.columns].sum(1) < wanted)
        if not len(path.columns):
            break
        path.step(gram)
    return entered


class _Path:
    """The state of the lasso for some `columns` (C,): a penalty each, and who is `active` (C, n)."""

    def __init__(self, gram: Tensor, correlations: Tensor) -> None:
        self.columns = torch.arange(len(correlations))
        self.correlations = correlations.clone()
        self.slopes = torch.zeros_like(correlations)
        self.penalty, first = correlations.abs().max(1)
        self.active = torch.zeros_like(correlations, dtype=torch.bool)
        self.active[self.columns, first] = True
        self.left = torch.zeros_like(self.active)

    def only(self, going: Tensor) -> _Path:
        """The state of the columns that go on."""
        if not going.all():
            for name, value in vars(self).items():
                setattr(self, name, value[going])
        return self

    def step(self, gram: Tensor) -> None:
        """Lower each penalty to the next one at which a player gets a slope or loses it."""
        way = self._direction(gram)
        fall = way @ gram
        penalty, correlations = self.penalty[:, None], self.correlations
        closed = self.active | self.left
        joins = torch.stack(
            [
                _where_positive(penalty - correlations, 1 - fall, closed),
                _where_positive(penalty + correlations, 1 + fall, closed),
            ]
        ).amin(0)
        leaves = torch.where(self.active & (self.slopes * way < 0), -self.slopes / way, torch.inf)
        (to_join, joining), (to_leave, leaving) = joins.min(1), leaves.min(1)
        length = torch.minimum(torch.minimum(to_join, to_leave), self.penalty)[:, None]
        self.slopes += length * way
        self.correlations -= length * fall
        self.penalty -= length[:, 0]
        every, leaves_now = torch.arange(len(length)), to_leave < to_join
        self.left = torch.zeros_like(self.left)
        self.left[every[leaves_now], leaving[leaves_now]] = True
        joins_now = ~leaves_now & (to_join < torch.inf)
        self.active[every[joins_now], joining[joins_now]] = True
        self.active &= ~self.left
        self.slopes[self.left] = 0

    def _direction(self, gram: Tensor) -> Tensor:
        """(C, n): how the slopes of the active players move as the penalty falls by one."""
        most = int(self.active.sum(1).max())
        position = self.active.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[
            :, :most
        ]
        there = self.active.gather(1, position)
        both = there[:, :, None] & there[:, None, :]
        inner = torch.where(both, gram[position[:, :, None], position[:, None, :]], 0.0)
        inner.diagonal(dim1=1, dim2=2).add_((~there).double())
        signs = torch.where(there, self.correlations.gather(1, position).sign(), 0.0)
        way = torch.linalg.solve(inner, signs[..., None])[..., 0]
        return torch.zeros_like(self.slopes).scatter_(1, position, way)


def _where_positive(distance: Tensor, speed: Tensor, closed: Tensor) -> Tensor:
    """How far to go until a distance is closed; infinite for those `closed` or not approached."""
    reached = (speed > 1e-9) & ~closed
    return torch.where(reached, (distance / speed.clamp_min(1e-9)).clamp_min(0), torch.inf)
