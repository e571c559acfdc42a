r"""When a standard error can be believed: how many degrees of freedom the variance behind it has.

The variance of an estimate is a sum of squares c_1, ..., c_D, one for each draw. Where a few draws make
most of it (heavy tails, uneven weights, leverage, few rows), another sample would give another
variance, and intervals of 1.96 standard errors are too short. Satterthwaite's figure says how few:

.. math:: \nu = \frac{2}{\sum_j c_j^2 / (\sum_j c_j)^2 - 1/D}

The first term is the inverse of Kish's effective sample size of the squares. Equal normal draws give
:math:`\nu` near D, and a single draw that carries all of the variance gives 2. Sources: Satterthwaite
(1946), "An approximate distribution of estimates of variance components"; Kish (1965), section 11.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from whyglass.core.checks import Check, relative_error, worst_target
from whyglass.core.inputs import Leaves, differentiable, flat_sum

# Student's t with eight degrees of freedom is within 1.96 standard errors 91 times in 100.
LEAST_FREEDOM = 8
# Where the standard errors are this small beside the values, it is no matter how small.
NEGLIGIBLE = 1e-3
# Stands for no degree of freedom: nothing is known of the variance, however small it looks.
NONE = 0.5
# At most so many features, and so many numbers in all, are kept draw by draw.
MOST_FEATURES, MOST_NUMBERS = 256, 2**22


class Sampled(NamedTuple):
    """Sampled values, their standard errors, and the degrees of freedom of these: of one shape."""

    values: Tensor
    errors: Tensor
    freedom: Tensor


def degrees_of_freedom(
    squares: Tensor, fourths: Tensor, draws: Tensor | float, fitted: float = 1
) -> Tensor:
    """Effective degrees of freedom of variances, infinite where nothing was left to chance.

    `squares` holds the sums of c, `fourths` those of c squared, over `draws` draws to which `fitted`
    unknowns were fitted. As many unknowns as draws leave `NONE`.
    """
    draws = torch.as_tensor(draws, dtype=squares.dtype, device=squares.device)
    left = draws - fitted
    share = torch.where(squares > 0, fourths / squares.square().clamp_min(1e-300), 0.0)
    freedom = torch.minimum(2 / (share - 1 / draws).clamp_min(1e-12), left)
    freedom = torch.where(squares > 0, freedom, torch.inf)
    freedom = torch.where(left > NONE, freedom, NONE)
    return torch.where(draws > 0, freedom, torch.inf)


def sampled_mean(draws: Tensor, axis: int, fitted: int = 1) -> Sampled:
    """The mean over one axis of independent draws, NaN left out. One draw alone has no known error."""
    count = (~draws.isnan()).sum(axis).clamp_min(1)
    mean = draws.nansum(axis) / count
    square = (draws - mean.unsqueeze(axis)).square()
    total, fourths = square.nansum(axis), square.square().nansum(axis)
    freedom = degrees_of_freedom(total, fourths, count, fitted)
    return Sampled(mean, (total / (count - 1).clamp_min(1) / count).sqrt(), freedom)


class SampledFeatures:
    """What is averaged, draw by draw, at features spread evenly over the leaves of each row.

    `draws` (S, B, F) holds NaN where a row was not drawn.
    """

    def __init__(self, leaves: Leaves, targets: int, draws: int) -> None:
        rows = len(leaves[0])
        sizes = [leaf[0].numel() * targets if differentiable(leaf) else 0 for leaf in leaves]
        count = max(1, min(MOST_FEATURES, MOST_NUMBERS // (rows * draws), sum(sizes)))
        chosen = torch.linspace(0, sum(sizes) - 1, count, dtype=torch.float64).long()
        ends = torch.tensor(sizes).cumsum(0).tolist()
        self._positions = [
            chosen[(chosen >= end - size) & (chosen < end)] - (end - size)
            for size, end in zip(sizes, ends, strict=True)
        ]
        self.draws = torch.full((draws, rows, count), torch.nan, dtype=torch.float64)

    def add(self, draws: Tensor, rows: Tensor, leaves: Leaves) -> None:
        """Leaves (N, ...) of these draws (N,) and rows (N,)."""
        parts = [
            leaf.reshape(len(leaf), -1)[:, position.to(leaf.device)].double().cpu()
            for leaf, position in zip(leaves, self._positions, strict=True)
        ]
        self.draws[draws, rows] = torch.cat(parts, 1)


def mean_check(draws: Tensor, remedy: str, fitted: int = 1) -> Check:
    """The check "degrees of freedom" of means over draws (S, B, F)."""
    values, errors, freedom = ((part,) for part in sampled_mean(draws, 0, fitted))
    return freedom_check(values, errors, freedom, False, remedy)


def freedom_check(
    values: Sequence[Tensor],
    errors: Sequence[Tensor],
    freedom: Sequence[Tensor],
    many: bool,
    remedy: str,
    least: float = LEAST_FREEDOM,
) -> Check:
    r"""How far the standard errors are off themselves: :math:`1 / \sqrt{2 \nu}`, relative.

    The row's figure is the mean over its values, weighted by their variances: values that hardly have
    an error do not count. `remedy` says what makes it smaller, `least` how many degrees suffice.
    """
    variances = [error.double() ** 2 for error in errors]
    unknown = [(1 / (2 * nu.double())).to(v) for v, nu in zip(variances, freedom, strict=True)]
    total = flat_sum(variances, many)
    by_variance = flat_sum([v * u for v, u in zip(variances, unknown, strict=True)], many) / total
    unweighted = flat_sum(unknown, many) / flat_sum([torch.ones_like(v) for v in variances], many)
    small = relative_error(values, errors, many).to(total) <= NEGLIGIBLE
    off = (
        torch.where(total > 0, torch.where(small & (by_variance < 1), 0.0, by_variance), unweighted)
        .sqrt()
        .cpu()
    )
    rows = worst_target(off)
    worst, tolerance = max(rows), (2 * least) ** -0.5
    count = "no chance" if worst == 0 else f"{1 / (2 * worst**2):.0f} effective degrees of freedom"
    return Check(
        "degrees of freedom",
        worst,
        tolerance,
        "pass" if worst <= tolerance else "warn",
        f"the standard errors are known within {worst:.0%} of themselves, from {count}; {remedy}",
        rows,
    )
