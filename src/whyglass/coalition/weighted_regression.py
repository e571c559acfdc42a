"""Weighted linear models of scores on coalitions: the fit, its errors, and a choice of players."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.coalition.lasso_path import first_on_lasso_path
from whyglass.core.standard_errors import degrees_of_freedom


@dataclass(frozen=True)
class Fit:
    """(C, n) slopes, their standard errors and the degrees of freedom of these.

    `explained` (C,) is the share of weighted variance that the slopes explain.
    """

    slopes: Tensor
    errors: Tensor
    freedom: Tensor
    explained: Tensor


class WeightedRegression:
    """Least squares on coalitions (S, n) with weights (S,), an intercept free, ready for any scores.

    `further` columns (S, E) are fitted beside the memberships and taken out of the scores. `alpha`
    times the squared slopes is added to the weighted mean of squares. `chance` (S,) is the share of the
    variance of a draw that counts for the errors: zero for coalitions that are not there by chance.
    Slopes that the coalitions do not determine, `undetermined` in number, are the smallest that fit.
    """

    def __init__(
        self,
        members: Tensor,
        weights: Tensor,
        alpha: float,
        chance: Tensor,
        further: Tensor | None = None,
    ) -> None:
        self._share = weights / weights.sum()
        self._root = self._share.sqrt()[:, None]
        self._n, design = members.shape[1], members.double()
        self._further = design[:, :0] if further is None else further
        self._design = design = self._weighed(torch.cat([design, self._further], 1))
        matrix = design.T @ design
        matrix.diagonal()[: self._n] += alpha
        within = inverse(matrix)
        self._solver = solver = design @ within
        # Players that always go together have only their mean determined.
        resolved = (within @ matrix).diagonal()[: self._n] > 1 - 1e-6
        self.undetermined = int((~resolved).sum())
        # A residual is smaller than the error behind it by how much the fit leans on its draw.
        leverage = (solver * design).sum(1) + self._share
        own = solver[:, : self._n]
        self._error_weights = (own / (1 - leverage.clamp_max(0.9))[:, None]).square() * chance[
            :, None
        ]
        drawn = chance > 0
        self._draws, self._fitted = int(drawn.sum()), float(leverage[drawn].sum())

    def _weighed(self, columns: Tensor) -> Tensor:
        return self._root * (columns - self._share @ columns)

    def without_further(self, scores: Tensor) -> Tensor:
        """(S, C): the scores less what the further columns explain of them."""
        return scores - self._further @ (self._solver.T @ self._weighed(scores))[self._n :]

    def fit(self, scores: Tensor) -> Fit:
        """The fit to C columns of scores (S, C), which are best taken less a score that is in them."""
        y = self._weighed(scores)
        slopes = self._solver.T @ y
        square = (y - self._design @ slopes).square()
        total = (y - self._design[:, self._n :] @ slopes[self._n :]).square().sum(0)
        # A score that does not vary is explained by the intercept.
        size = self._share @ scores.square()
        explained = torch.where(total > 1e-26 * size, 1 - square.sum(0) / total, 1.0)
        variances = square.T @ self._error_weights
        freedom = degrees_of_freedom(
            variances, square.square().T @ self._error_weights.square(), self._draws, self._fitted
        )
        return Fit(slopes[: self._n].T, variances.sqrt(), freedom, explained)


def fit_chosen(
    members: Tensor, weights: Tensor, scores: Tensor, chance: Tensor, features: int
) -> Fit:
    """Least squares on the players that a lasso chooses for each of C columns; others get zero."""
    chosen = first_on_lasso_path(members, weights, scores, features)
    slopes = torch.zeros_like(chosen, dtype=torch.float64)
    fit = Fit(slopes, torch.zeros_like(slopes), slopes + torch.inf, torch.zeros_like(slopes[:, 0]))
    choices, which = chosen.unique(dim=0, return_inverse=True)
    for number, players in enumerate(choices):
        columns = (which == number).nonzero()[:, 0]
        own = WeightedRegression(members[:, players], weights, 0.0, chance).fit(scores[:, columns])
        position = columns[:, None], players.nonzero()[:, 0]
        fit.slopes[position], fit.errors[position] = own.slopes, own.errors
        fit.freedom[position], fit.explained[columns] = own.freedom, own.explained
    return fit


def inverse(matrix: Tensor) -> Tensor:
    """The inverse of a symmetric matrix; the pseudo-inverse where it is singular or nearly so."""
    if not matrix.numel():
        return matrix
    factor, failed = torch.linalg.cholesky_ex(matrix)
    sizes = factor.diagonal()
    if failed or sizes.min() <= 1e-5 * sizes.max():
        return torch.linalg.pinv(matrix, hermitian=True)
    return torch.cholesky_inverse(factor)
