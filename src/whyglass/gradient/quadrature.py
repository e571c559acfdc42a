"""Rules that replace the integral over a path from 0 to 1 by a weighted sum of T points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from whyglass.core.errors import BadInput

Rule = Literal["adaptive", "endpoints", "left", "right", "midpoint", "trapezoid", "gauss-legendre"]


def endpoints(count: int) -> tuple[np.ndarray, np.ndarray]:
    """T equal weights on T points that include both ends: the book's rule, a biased one."""
    return np.linspace(0, 1, count), np.full(count, 1 / count)


def left(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Riemann sum on the left ends."""
    return np.arange(count) / count, np.full(count, 1 / count)


def right(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Riemann sum on the right ends: the sum printed by Sundararajan et al."""
    return np.arange(1, count + 1) / count, np.full(count, 1 / count)


def midpoint(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Riemann sum on the middles."""
    return (np.arange(count) + 0.5) / count, np.full(count, 1 / count)


def trapezoid(count: int) -> tuple[np.ndarray, np.ndarray]:
    """T points with both ends, the ends at half weight."""
    weights = np.full(count, 1 / (count - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, count), weights


def gauss_legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The Gauss-Legendre rule, exact for polynomials of degree 2T - 1."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


FIXED: dict[str, Callable[[int], tuple[np.ndarray, np.ndarray]]] = {
    "endpoints": endpoints,
    "left": left,
    "right": right,
    "midpoint": midpoint,
    "trapezoid": trapezoid,
    "gauss-legendre": gauss_legendre,
}
WITH_BOTH_ENDS = ("adaptive", "endpoints", "trapezoid")


def check(rule: str, count: int) -> None:
    """Refuse an unknown rule, or too few points for it."""
    if rule not in (*FIXED, "adaptive"):
        raise BadInput(f"rule {rule!r} is not one of adaptive, {', '.join(FIXED)}")
    if rule in WITH_BOTH_ENDS and count < 2:
        raise BadInput(f"rule {rule!r} includes both ends of the path: steps must be 2 or more")


def nodes(rule: str, count: int) -> tuple[Tensor, Tensor]:
    """Points (T,) and the T + 1 edges between the pieces of the path they stand for, float64.

    The edges are the running sum of the weights, so on any path a point's gradient is multiplied by
    gamma(next edge) - gamma(edge), which on a straight one is its weight times the whole way.
    """
    points, weights = FIXED[rule](count)
    edges = np.concatenate([[0.0], np.cumsum(weights)])
    return torch.from_numpy(points), torch.from_numpy(edges)
