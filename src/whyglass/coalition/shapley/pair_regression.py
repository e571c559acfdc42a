"""Least squares on pairs of a coalition and its complement, and what its values may be off."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.coalition.background_covariates import covariate_columns
from whyglass.coalition.shapley.paired_sampling import Sample
from whyglass.coalition.weighted_regression import inverse
from whyglass.core.standard_errors import Sampled, degrees_of_freedom


@dataclass(frozen=True)
class Columns:
    """(D, E) further columns of a regression on D pairs, and the Shapley values (E, n) of each."""

    columns: Tensor
    values: Tensor


class PairRegression:
    """The regression on a sample of pairs, ready for any responses.

    On pairs the problem is one of least squares in d = z'psi with d the halved difference, z the
    membership less its mean, and psi summing to zero. Further columns take up noise: where all pairs
    are drawn they change nothing.
    """

    def __init__(self, sample: Sample, further: Columns | None = None) -> None:
        n = sample.members.shape[1]
        self._counts = sample.counts
        design, values = _centred(sample), torch.eye(n, dtype=torch.float64)
        if further is not None:
            design = torch.cat([design, further.columns], 1)
            values = torch.cat([values, further.values])
        weighted = sample.share * design
        matrix = design.T @ weighted
        # Memberships have no part along the ones: adding them there makes the matrix regular.
        matrix[:n, :n] += 1 / n
        within = inverse(matrix)
        self._design, self._values = design, values
        self._fit = within @ weighted.T
        slopes = design @ (within @ values)
        leverage = (design * self._fit.T).sum(1, keepdim=True)
        drawn = sample.per_pair(
            [
                float(count < one.total)
                for one, count in zip(sample.layers, sample.counts, strict=True)
            ]
        )
        self._draws, self._fitted = int(drawn.sum()), float((leverage * drawn).sum())
        leverage = leverage.clamp_max(0.9)
        if further is not None:
            self._residual_weights = None
            self._error_weights = _of_much_fitted(sample, slopes) / (1 - leverage)
        else:
            left_out = [
                # In a stratum used whole nothing was left to chance.
                ((1 - count / layer.total) / max(1, count - 1) / count) ** 0.5 * layer.mass
                for layer, count in zip(sample.layers, sample.counts, strict=True)
            ]
            # A residual is smaller than the error behind it by how much the fit leans on its pair: the
            # power is between 1/2, right for equal errors, and the jackknife's 1, and covers best.
            self._residual_weights = slopes * sample.per_pair(left_out) / (1 - leverage) ** 0.75
            self._error_weights = self._residual_weights.square()

    def solve(self, responses: Tensor) -> Sampled:
        """(R, n, K) deviations from even shares, from responses (R, D, K)."""
        response = responses.transpose(0, 1).flatten(1)
        fitted = self._fit @ response
        off = response - self._design @ fitted
        square = off.square()
        variance = self._error_weights.T @ square
        fourths = self._error_weights.square().T @ square.square()
        freedom = degrees_of_freedom(variance, fourths, self._draws, self._fitted)
        if self._residual_weights is not None:
            strata = zip(
                self._residual_weights.split(self._counts), off.split(self._counts), strict=True
            )
            for weights, own in strata:
                variance -= (weights.T @ own).square() / len(own)

        parts = self._values.T @ fitted, variance.clamp_min(0).sqrt(), freedom
        return Sampled(*(one.unflatten(1, responses.shape[::2]).transpose(0, 1) for one in parts))

    def without_further(self, responses: Tensor) -> Tensor:
        """(R, D, K): the responses less what the further columns explain of them."""
        n = self._values.shape[1]
        return responses - self._design[:, n:] @ (self._fit[n:] @ responses)


def _of_much_fitted(sample: Sample, slopes: Tensor) -> Tensor:
    """(D, n) shares in the variance where the unknowns are nearly as many as the pairs.

    The estimate is a weighted sum over the pairs drawn, the true ones over all pairs; what the
    fit explains is the same in both. So the error is that of the rest: a pair drawn errs by the
    difference of its weights, one left out by its true weight, which is its own if all pairs are
    drawn. Nothing is linearised, and the share of pairs drawn needs no factor beside.
    """
    n, layers = sample.members.shape[1], sample.layers
    along = sum(
        layer.mass * layer.size * (n - layer.size) / (n * (n - 1)) for layer in layers
    )  # of all pairs the matrix of memberships is this times the identity, across the ones
    size = sample.members.sum(1, keepdim=True)
    true = sample.per_pair([layer.mass / layer.total / along for layer in layers])
    true = true * (sample.members.double() - size.double() / n)
    left_out = sample.per_pair(
        [(layer.total - count) / count for layer, count in zip(layers, sample.counts, strict=True)]
    )
    return (slopes * sample.share - true) ** 2 + left_out * true**2


def _centred(sample: Sample) -> Tensor:
    z = sample.members.double()
    return z - z.mean(1, keepdim=True)


def triples(sample: Sample) -> Columns:
    """Products of the signs of three players, less the mean sign: zero for everybody."""
    n = sample.members.shape[1]
    trios = torch.combinations(torch.arange(n), 3)
    signs = 2 * sample.members.double() - 1
    first, second, third = (signs[:, position] for position in trios.unbind(1))
    columns = (first * second).mul_(third).sub_(signs.mean(1, keepdim=True))
    # The Shapley values of a product of three signs: two thirds each, less what it was reduced by.
    values = torch.full((len(trios), n), -2 / n, dtype=torch.float64)
    return Columns(columns, values.scatter_add_(1, trios, torch.full_like(values[:, :3], 2 / 3)))


def from_rows(sample: Sample, kind: list[Tensor]) -> Columns:
    """Covariates (A, E) of each player, in each pair's background row, times its centred membership.

    Over all pairs nothing of it remains, so it has no Shapley values.
    """
    columns = covariate_columns(_centred(sample), kind, sample.background_rows)
    return Columns(columns, columns.new_zeros(columns.shape[1], sample.members.shape[1]))
