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
    responses = [one.responses for one in sample if one.responses is not None]
    rows, _, targets = responses[0].shape
    counts = torch.tensor([len(one.members) for one in sample])
    mass = torch.tensor([layer.mass for layer in layers], dtype=torch.float64)
    share = (mass / counts).repeat_interleave(counts)[:, None]
    design = _columns(torch.cat([one.members for one in sample]), triples)
    response = torch.cat(responses, 1).transpose(0, 1).flatten(1)
    weighted = share * design
    matrix = design.T @ weighted
    # Memberships have no part along the ones: adding them there makes the matrix regular.
    matrix[:n, :n] += 1 / n
    within = inverse(matrix)
    fitted = within @ (weighted.T @ response)
    # The Shapley values of a product of three signs: two thirds each, less what it was reduced by.
    values = torch.full((len(triples), n), -2 / n, dtype=torch.float64)
    values.scatter_add_(1, triples, torch.full_like(values[:, :3], 2 / 3))
    values = torch.cat([torch.eye(n, dtype=torch.float64), values])
    slopes, psi = design @ (within @ values), values.T @ fitted
    lean = (weighted * (design @ within)).sum(1, keepdim=True).clamp_max(0.9)
    residual = response - design @ fitted
    if len(triples):
        variance = _of_much_fitted(sample, layers, slopes, residual.square_().div_(1 - lean))
    else:
        # A residual is smaller than the error behind it by how much the fit leans on its pair: the
        # power is between 1/2, right for equal errors, and the jackknife's 1, and covers best.
        residual /= (1 - lean) ** 0.75
        variance = torch.zeros_like(psi)
        parts = zip(slopes.split(counts.tolist()), residual.split(counts.tolist()), strict=True)
        for layer, (slope, off) in zip(layers, parts, strict=True):
            count = len(off)
            # Of a whole stratum nothing was left to chance.
            if count < layer.total:
                spread = slope.T.square() @ off.square() - (slope.T @ off).square() / count
                left_out = (1 - count / layer.total) * layer.mass**2 / count
                variance += spread.clamp_min_(0) * (left_out / (count - 1))

    def by_row(found: Tensor) -> Tensor:
        return found.unflatten(1, (rows, targets)).transpose(0, 1)

    return by_row(psi), by_row(variance.sqrt())


def _of_much_fitted(
    sample: list[Sample], layers: list[Stratum], slopes: Tensor, square: Tensor
) -> Tensor:
    """(n, R K) variances where the unknowns are nearly as many as the pairs.

    The values found are a weighted sum over the pairs drawn, the true ones over all pairs; what the
    fit explains is the same in both. So the error is that of the rest: a pair drawn errs by the
    difference of its weights, one left out by its true weight, which is what `regress` gives it if all
    pairs are drawn. Nothing is linearised, and the share of pairs drawn needs no factor beside.
    """
    n = sample[0].members.shape[1]
    along = sum(
        layer.mass * layer.size * (n - layer.size) / (n * (n - 1)) for layer in layers
    )  # of all pairs the matrix of memberships is this times the identity, across the ones
    weights: list[Tensor] = []
    for one, layer, mine in zip(
        sample, layers, slopes.split([len(one.members) for one in sample]), strict=True
    ):
        count = len(one.members)
        true = (one.members.double() - layer.size / n) / along * (layer.mass / layer.total)
        left_out = (layer.total - count) / count
        weights.append((mine * (layer.mass / count) - true) ** 2 + left_out * true**2)
    return torch.cat(weights).T @ square


def _columns(members: Tensor, triples: Tensor) -> Tensor:
    """Memberships less their mean, then products of signs less the mean sign: zero for everybody."""
    z = members.double()
    signs = 2 * z - 1
    first, second, third = (signs[:, place] for place in triples.unbind(1))
    return torch.cat(
        [
            z - z.mean(1, keepdim=True),
            (first * second).mul_(third).sub_(signs.mean(1, keepdim=True)),
        ],
        1,
    )
