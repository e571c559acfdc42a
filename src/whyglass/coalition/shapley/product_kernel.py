r"""Kernel regression on evaluations, with a kernel whose Shapley values are known.

An evaluation is a point with a coordinate for each player. The fitted function is a sum over centres c
of products over players,

.. math:: h(z) = m + \sum_c \alpha_c \prod_j \exp\left(-\frac{(z_j - c_j)^2}{2 \ell_j^2}\right)

and a product of one factor a player has Shapley values by Gauss-Legendre quadrature, to rounding.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

MOST_CENTRES = 1000
MOST_TUNED = 300
STEPS, RATE = 40, 0.15
LEAST_NOISE = 1e-5


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """(A, B) for points (A, n) and (B, n) in units of the lengths."""
    distance = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    return torch.exp(-distance.clamp_min(0) / 2)


def tuned(points: Tensor, scores: Tensor) -> tuple[Tensor, float]:
    """The lengths (n,) and the noise, as a share of the variance, under which scores are likeliest.

    Marginal likelihood of a Gaussian process: Rasmussen & Williams (2006), equation 5.8, with the
    variance at its best value. At most 300 of the points are used.
    """
    part = torch.linspace(0, len(points) - 1, min(MOST_TUNED, len(points))).long()
    z, y = points[part], scores[part]
    spread = z.std(0)
    start = torch.where(spread > 0, spread, torch.ones_like(spread)) * z.shape[1] ** 0.5
    free = torch.cat([start.log(), start.new_tensor([math.log(0.01)])])
    eye = torch.eye(len(z), dtype=z.dtype)
    optimiser = torch.optim.Adam([free], lr=RATE)
    for _ in range(STEPS):
        scaled = z / free[:-1].exp()
        near = kernel(scaled, scaled)
        root = torch.linalg.cholesky(near + (free[-1].exp() + LEAST_NOISE) * eye)
        inverse = torch.cholesky_inverse(root)
        weights = inverse @ y
        scale = (y @ weights).clamp_min(1e-12) / len(z)
        # Equation 5.9, with the variance at its best: the slope by each entry of the covariance.
        slope = (inverse - weights[:, None] * weights / scale) / 2
        near *= slope
        by_length = near.sum(1) @ scaled.square() - (scaled * (near @ scaled)).sum(0)
        by_noise = slope.diagonal().sum() * free[-1].exp()
        free.grad = torch.cat([2 * by_length, by_noise[None]])
        optimiser.step()
    best = free.exp()
    return best[:-1], float(best[-1]) + LEAST_NOISE


def product_shapley(here: Tensor, others: Tensor, centres: Tensor) -> Tensor:
    r"""(n, C): Shapley values of the products at centres (C, n), mean over background rows (A, n).

    .. math:: \phi_j = \int_0^1 (p_j - q_j) \prod_{k \ne j} \bigl(t p_k + (1 - t) q_k\bigr) \, dt

    with p_j the factor of player j where it is present, q_j where it is absent: Owen (1972), whose
    integrand is here a polynomial of degree n - 1, so that n / 2 nodes are exact.
    """
    nodes, masses = np.polynomial.legendre.leggauss((len(here) + 1) // 2)
    present = torch.exp(-((here[:, None] - centres.T) ** 2) / 2)
    values = torch.zeros_like(present)
    for other in others:
        absent = torch.exp(-((other[:, None] - centres.T) ** 2) / 2)
        way = present - absent
        rest = torch.zeros_like(present)
        for node, mass in zip(nodes.tolist(), masses.tolist(), strict=True):
            mixed = torch.add(absent, way, alpha=(1 + node) / 2).clamp_min(1e-100)
            rest += mass / 2 * mixed.prod(0) / mixed
        values += way * rest
    return values / len(others)


class Regression:
    """The fit to `scores` (N,) of evaluations (N, n), of which i and D + i are a pair for i below D.

    `within` (N,) are the residuals, `left` (D, 2) those of a pair under the fit without it; `values`
    (n,) the Shapley values of the fit, and `moved` (D, n) what leaving a pair out adds to them.
    """

    def __init__(
        self,
        points: Tensor,
        scores: Tensor,
        pairs: int,
        end_points: Tensor,
        lengths: Tensor,
        noise: float,
    ) -> None:
        points, end_points = points / lengths, end_points / lengths
        middle = torch.linspace(0, len(points) - 1, min(MOST_CENTRES, len(points))).long()
        centres = points[middle]
        inner = kernel(centres, centres)
        inner.diagonal().add_(1e-8)
        first = torch.linalg.cholesky(inner)
        basis = _solve(first, kernel(points, centres))
        gram = basis.T @ basis
        gram.diagonal().add_(noise)
        second = torch.linalg.cholesky(gram)
        # In this basis the hat matrix is basis @ basis.T.
        self._basis = basis = _solve(second, basis)
        mean = scores.mean()
        weights = basis.T @ (scores - mean)
        self.within = scores - mean - basis @ weights
        one, two = basis[:pairs], basis[pairs : 2 * pairs]
        r, s = self.within[:pairs], self.within[pairs : 2 * pairs]
        a, b, c = 1 - (one * one).sum(1), 1 - (two * two).sum(1), -(one * two).sum(1)
        determinant = a * b - c * c
        self.left = torch.stack([b * r - c * s, a * s - c * r], 1) / determinant[:, None]
        self._omission_weights = self.left[:, :1] * one + self.left[:, 1:] * two
        shares = _solve(
            second, _solve(first, product_shapley(end_points[0], end_points[1:], centres))
        )
        self.values = shares @ weights
        self.moved = -self._omission_weights @ shares.T

    def together(self, pairs: Tensor) -> Tensor:
        """(S, S): what leaving out another pair, too, adds to half a pair's difference.

        Differences alone are followed, not what a pair's sum does to them.
        """
        other = pairs + len(self.left)
        odd = (self._basis[pairs] - self._basis[other]) / 2**0.5
        off = (self.within[pairs] - self.within[other]) / 2
        shared = odd @ odd.T
        own = 1 - shared.diagonal()
        both = own[:, None] * own - shared**2
        added = (own * off[:, None] + shared * off) / both.clamp_min(1e-9) - (off / own)[:, None]
        return added.fill_diagonal_(0)

    def raised(self, evaluations: slice) -> Tensor:
        """(D, E): what leaving a pair out adds to the residuals of other evaluations."""
        return self._omission_weights @ self._basis[evaluations].T


def _solve(root: Tensor, rows: Tensor) -> Tensor:
    """rows @ root^-T."""
    return torch.linalg.solve_triangular(root, rows.T, upper=False).T
