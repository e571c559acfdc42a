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
from whyglass.core.inputs import flat_sum

# Student's t with eight degrees of freedom holds 91% within 1.96 standard errors.
LEAST_FREEDOM = 8
# Where the standard errors are this small beside the values, it is no matter how small.
NEGLIGIBLE = 1e-3
# Stands for no degree of freedom: nothing is known of the variance, however small it looks.
NONE = 0.5


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


def sampled_mean(draws: Tensor, axis: int) -> Sampled:
    """The mean over one axis of independent draws. The error of a single draw is not known."""
    count = draws.shape[axis]
    mean = draws.mean(axis)
    square = (draws - mean.unsqueeze(axis)).square()
    total = square.sum(axis)
    freedom = degrees_of_freedom(total, square.square().sum(axis), count)
    return Sampled(mean, (total / max(count - 1, 1) / count).sqrt(), freedom)


def freedom_check(
    values: Sequence[Tensor],
    errors: Sequence[Tensor],
    freedom: Sequence[Tensor],
    many: bool,
    remedy: str,
) -> Check:
    r"""How far the standard errors are off themselves: :math:`1 / \sqrt{2 \nu}`, relative.

    The row's figure is the mean over its values, weighted by their variances: values that hardly have
    an error do not count. `remedy` says what makes it smaller.
    """
    variances = [error.double() ** 2 for error in errors]
    unknown = [(1 / (2 * nu.double())).to(v) for v, nu in zip(variances, freedom, strict=True)]
    total = flat_sum(variances, many)
    weighted = flat_sum([v * u for v, u in zip(variances, unknown, strict=True)], many) / total
    even = flat_sum(unknown, many) / flat_sum([torch.ones_like(v) for v in variances], many)
    small = relative_error(values, errors, many).to(total) <= NEGLIGIBLE
    off = (
        torch.where(total > 0, torch.where(small & (weighted < 1), 0.0, weighted), even)
        .sqrt()
        .cpu()
    )
    rows = worst_target(off)
    worst, tolerance = max(rows), (2 * LEAST_FREEDOM) ** -0.5
    count = "no chance" if worst == 0 else f"{1 / (2 * worst**2):.0f} effective degrees of freedom"
    return Check(
        "degrees of freedom",
        worst,
        tolerance,
        "pass" if worst <= tolerance else "warn",
        f"the standard errors are known within {worst:.0%} of themselves, from {count}; {remedy}",
        rows,
    )
