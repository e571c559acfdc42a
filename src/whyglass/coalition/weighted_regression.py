"""Weighted linear models of scores on coalitions: fit, its errors, and a lasso path for few players."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """(C, n) slopes and their standard errors, and (C,) shares of weighted variance explained."""

    slopes: Tensor
    errors: Tensor
    explained: Tensor


class WeightedRegression:
    """Least squares on coalitions (S, n) with weights (S,), an intercept free, ready for any scores.

    `more` columns (S, E) are fitted beside and taken out of the scores. `alpha` times the squared
    slopes is added to the weighted sum of squares. Errors are those of coalitions `drawn`
    independently, or zero.
    """

    def __init__(
        self,
        members: Tensor,
        weights: Tensor,
        alpha: float,
        drawn: bool,
        more: Tensor | None = None,
    ) -> None:
        self._share, self._root = weights / weights.sum(), weights.sqrt()[:, None]
        self._n, design = members.shape[1], members.double()
        self._more = design[:, :0] if more is None else more
        self._design = design = self._weighed(torch.cat([design, self._more], 1))
        matrix = design.T @ design
        matrix.diagonal()[: self._n] += alpha
        self._pull = pull = design @ inverse(matrix)
        # A residual is smaller than the error behind it by how much the fit leans on its draw.
        lean = ((pull * design).sum(1) + self._share).clamp_max(0.9)[:, None]
        own = pull[:, : self._n]
        self._spread = (own / (1 - lean)).square() if drawn else torch.zeros_like(own)

    def _weighed(self, columns: Tensor) -> Tensor:
        return self._root * (columns - self._share @ columns)

    def without_more(self, scores: Tensor) -> Tensor:
        """(S, C): what `more` makes of scores taken out."""
        return scores - self._more @ (self._pull.T @ self._weighed(scores))[self._n :]

    def fit(self, scores: Tensor) -> Fit:
        """Of C columns of scores (S, C)."""
        y = self._weighed(scores)
        slopes = self._pull.T @ y
        square = (y - self._design @ slopes).square()
        total = (y - self._design[:, self._n :] @ slopes[self._n :]).square().sum(0)
        # A score that does not vary is explained by the intercept.
        explained = torch.where(total > 1e-24, 1 - square.sum(0) / total, 1.0)
        return Fit(slopes[: self._n].T, (square.T @ self._spread).sqrt(), explained)


def fit_chosen(members: Tensor, weights: Tensor, scores: Tensor, drawn: bool, features: int) -> Fit:
    """Least squares on the players that a lasso chooses for each of C columns; others get zero."""
    chosen = lasso_path(members, weights, scores.T[..., None], features)[..., 0]
    slopes = torch.zeros_like(chosen, dtype=torch.float64)
    found = Fit(slopes, torch.zeros_like(slopes), torch.zeros_like(slopes[:, 0]))
    kinds, which = chosen.unique(dim=0, return_inverse=True)
    for number, some in enumerate(kinds):
        mine = (which == number).nonzero()[:, 0]
        own = WeightedRegression(members[:, some], weights, 0.0, drawn).fit(scores[:, mine])
        place = mine[:, None], some.nonzero()[:, 0]
        found.slopes[place], found.errors[place] = own.slopes, own.errors
        found.explained[mine] = own.explained
    return found


def inverse(matrix: Tensor) -> Tensor:
    """Of a symmetric matrix; the pseudo-inverse where it is singular or nearly so."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    sizes = factor.diagonal()
    if failed or sizes.min() <= 1e-5 * sizes.max():
        return torch.linalg.pinv(matrix, hermitian=True)
    return torch.cholesky_inverse(factor)


def lasso_path(members: Tensor, weights: Tensor, scores: Tensor, features: int) -> Tensor:
    """(R, n, K): the players that enter the lasso first as its penalty falls, `features` of them."""
    rows, _, targets = scores.shape
    n = members.shape[1]
    chosen = torch.zeros(rows, n, targets, dtype=torch.bool)
    design = members.double()
    design = design - weights @ design / weights.sum()
    gram = design.T @ (weights[:, None] * design)
    for row in range(rows):
        for target in range(targets):
            y = scores[row, :, target]
            pull = design.T @ (weights * (y - weights @ y / weights.sum()))
            chosen[row, _entering(gram, pull, features), target] = True
    return chosen


def _entering(gram: Tensor, pull: Tensor, features: int) -> Tensor:
    """Indices of the first players on the path of min w'Gw / 2 - p'w + penalty |w|_1."""
    n = len(pull)
    slopes, order = torch.zeros_like(pull), list[int]()
    penalty = float(pull.abs().max())
    floor = 1e-6 * penalty
    diagonal = gram.diagonal().clamp_min(1e-12)
    while len(order) < min(features, n) and penalty > floor:
        penalty *= 0.95
        for _ in range(200):
            before = slopes.clone()
            for i in range(n):
                rest = pull[i] - gram[i] @ slopes + gram[i, i] * slopes[i]
                slopes[i] = rest.sign() * (rest.abs() - penalty).clamp_min(0) / diagonal[i]
            if (slopes - before).abs().max() <= 1e-6 * slopes.abs().max().clamp_min(1e-30):
                break
        fresh = [i for i in slopes.abs().argsort(descending=True).tolist() if slopes[i] != 0]
        order += [i for i in fresh if i not in order]
    return torch.tensor(order[:features], dtype=torch.long)
