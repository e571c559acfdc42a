"""Weighted linear models of scores on coalitions: fit, its errors, and a lasso path for few players."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Fit:
    """(R, n, K) slopes and their standard errors, and (R, K) shares of weighted variance explained."""

    slopes: Tensor
    errors: Tensor
    explained: Tensor


def fit(
    members: Tensor, weights: Tensor, scores: Tensor, alpha: float, chosen: Tensor, drawn: bool
) -> Fit:
    """Least squares of scores (R, S, K) on coalitions (S, n) with weights (S,), an intercept free.

    `alpha` times the squared slopes is added to the weighted sum of squares. Where `chosen` (R, n, K)
    is false a slope is zero. Errors are those of coalitions `drawn` independently, or zero.
    """
    rows, _, targets = scores.shape
    size, n = members.shape
    slopes = torch.zeros(rows, n, targets, dtype=torch.float64)
    errors, explained = torch.zeros_like(slopes), slopes.new_zeros(rows, targets)
    flat = chosen.permute(0, 2, 1).reshape(-1, n)
    kinds, which = flat.unique(dim=0, return_inverse=True)
    share, root = weights / weights.sum(), weights.sqrt()[:, None]
    columns = scores.permute(1, 0, 2).reshape(size, -1)
    columns = root * (columns - weights @ columns / weights.sum())
    design = members.double()
    design = root * (design - weights @ design / weights.sum())
    for number, kept in enumerate(kinds):
        mine = (which == number).nonzero()[:, 0]
        x, y = design[:, kept], columns[:, mine]
        spread = inverse(x.T @ x + alpha * torch.eye(x.shape[1], dtype=torch.float64))
        made = spread @ (x.T @ y)
        off, total = y - x @ made, y.square().sum(0)
        # A score that does not vary is explained by the intercept.
        explained[mine // targets, mine % targets] = torch.where(
            total > 1e-24, 1 - off.square().sum(0) / total, 1.0
        )
        place = (mine // targets)[:, None], kept.nonzero()[:, 0], (mine % targets)[:, None]
        slopes[place] = made.T
        if drawn:
            pull = x @ spread
            # A residual is smaller than the error behind it by how much the fit leans on its draw.
            lean = ((pull * x).sum(1) + share).clamp_max(0.9)
            errors[place] = ((off / (1 - lean)[:, None]).square().T @ pull.square()).sqrt()
    return Fit(slopes, errors, explained)


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
