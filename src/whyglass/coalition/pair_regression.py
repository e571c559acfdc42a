"""Least squares on pairs of a coalition and its complement, and what its values may be off."""

from __future__ import annotations

import torch
from torch import Tensor

from whyglass.coalition.pairs import Stratum
from whyglass.coalition.surrogate import inverse


class Sample:
    """The draws of one stratum so far: halves (D, n), alternatives (D,), responses (R, D, K)."""

    def __init__(self, n: int) -> None:
        self.members = torch.zeros(0, n, dtype=torch.bool)
        self.which = torch.zeros(0, dtype=torch.long)
        self.responses: Tensor | None = None

    def add(self, members: Tensor, which: Tensor, responses: Tensor) -> None:
        """Further draws."""
        self.members = torch.cat([self.members, members])
        self.which = torch.cat([self.which, which])
        self.responses = (
            responses if self.responses is None else torch.cat([self.responses, responses], 1)
        )

    def keep(self, rows: Tensor) -> None:
        """Drop the rows that are done."""
        if self.responses is not None:
            self.responses = self.responses[rows]


def regress(
    sample: list[Sample], layers: list[Stratum], n: int, triples: Tensor
) -> tuple[Tensor, Tensor]:
    """(R, n, K) deviations from even shares and their standard errors.

    On pairs the problem is one of least squares in d = z'psi with d the halved difference, z the
    membership less its mean, and psi summing to zero. Products of `triples` (T, 3) of players are
    fitted beside, and their Shapley values added.
    """
    designs, responses, shares = [], [], []
    for one, layer in zip(sample, layers, strict=True):
        assert one.responses is not None
        designs.append(_columns(one.members, triples))
        responses.append(one.responses)
        shares.append(designs[-1].new_full((len(one.members),), layer.mass / len(one.members)))
    design, response, share = torch.cat(designs), torch.cat(responses, 1), torch.cat(shares)
    matrix = design.T @ (share[:, None] * design)
    # Memberships have no part along the ones: adding them there makes the matrix regular.
    matrix[:n, :n] += 1 / n
    pull = design @ inverse(matrix)
    fitted = torch.einsum("dc,rdk->rck", share[:, None] * pull, response)
    # The Shapley values of a product of three signs: two thirds each, less what it was reduced by.
    values = torch.full((len(triples), n), -2 / n, dtype=torch.float64)
    values.scatter_add_(1, triples, torch.full_like(values[:, :3], 2 / 3))
    values = torch.cat([torch.eye(n, dtype=torch.float64), values])
    slopes, psi = pull @ values, torch.einsum("cn,rck->rnk", values, fitted)
    lean = (share * (pull * design).sum(1)).clamp_max(0.9)
    residual = response - torch.einsum("dc,rck->rdk", design, fitted)
    if len(triples):
        return psi, _of_much_fitted(sample, layers, slopes, residual, lean).sqrt()
    # A residual is smaller than the error behind it by how much the fit leans on its pair: the power
    # is between 1/2, right for equal errors, and the jackknife's 1, and covers best of the three.
    residual = residual / (1 - lean)[:, None] ** 0.75
    variance = torch.zeros_like(psi)
    place = 0
    for one, layer in zip(sample, layers, strict=True):
        count = len(one.members)
        piece = slice(place, place + count)
        place += count
        if count == layer.total:
            continue  # the whole stratum: nothing was left to chance
        parts = slopes[piece, :, None] * residual[:, piece, None] * (layer.mass / count)
        variance += parts.var(1) * count * (1 - count / layer.total)
    return psi, variance.sqrt()


def _of_much_fitted(
    sample: list[Sample], layers: list[Stratum], slopes: Tensor, residual: Tensor, lean: Tensor
) -> Tensor:
    """(R, n, K) variances where the unknowns are nearly as many as the pairs.

    The values found are a weighted sum over the pairs drawn, the true ones over all pairs; what the
    fit explains is the same in both. So the error is that of the rest: a pair drawn errs by the
    difference of its weights, one left out by its true weight, which is what `regress` gives it if all
    pairs are drawn. Nothing is linearised, and the share of pairs drawn needs no factor beside.
    """
    n = sample[0].members.shape[1]
    along = sum(
        layer.mass * layer.size * (n - layer.size) / (n * (n - 1)) for layer in layers
    )  # of all pairs the matrix of memberships is this times the identity, across the ones
    square = residual**2 / (1 - lean)[:, None]
    variance = residual.new_zeros(len(residual), n, residual.shape[2])
    place = 0
    for one, layer in zip(sample, layers, strict=True):
        count = len(one.members)
        mine, pairs = slopes[place : place + count], square[:, place : place + count]
        place += count
        true = (one.members.double() - layer.size / n) / along * (layer.mass / layer.total)
        left_out = (layer.total - count) / count
        weight = (mine * (layer.mass / count) - true) ** 2 + left_out * true**2
        variance += torch.einsum("dn,rdk->rnk", weight, pairs)
    return variance


def _columns(members: Tensor, triples: Tensor) -> Tensor:
    """Memberships less their mean, then products of signs less the mean sign: zero for everybody."""
    z = members.double()
    signs = 2 * z - 1
    return torch.cat(
        [z - z.mean(1, keepdim=True), signs[:, triples].prod(2) - signs.mean(1, keepdim=True)], 1
    )
