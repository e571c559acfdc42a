"""The maps written out with numpy from the papers' equations, for one image and one score.

`a` is (C, H, W), the activations A; `g` the same, dS/dA.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def cam(weights: Array, a: Array) -> Array:
    """Zhou et al. (2016), equation 2: M(x, y) = sum_k w_k^c f_k(x, y)."""
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total += weights[k] * a[k]
    return total


def grad_cam(a: Array, g: Array, *, relu: bool = True) -> Array:
    """Selvaraju et al. (2017), equations 1 and 2."""
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        alpha = sum(g[k][place] for place in np.ndindex(g[k].shape)) / g[k].size
        total += alpha * a[k]
    return np.maximum(total, 0) if relu else total


def grad_cam_plus_plus(a: Array, g: Array) -> Array:
    """Chattopadhyay et al. (2018), equations 5, 10 and 19, for Y = exp(S), over exp(S).

    With S piecewise linear in A the derivatives of Y are exp(S) g, exp(S) g^2 and exp(S) g^3.
    """
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for place in np.ndindex(g[k].shape):
            below = 2 * g[k][place] ** 2 + a[k].sum() * g[k][place] ** 3
            alpha = g[k][place] ** 2 / below if below else 0.0
            weight += alpha * max(g[k][place], 0)
        total += weight * a[k]
    return np.maximum(total, 0)


def layer_cam(a: Array, g: Array) -> Array:
    """Jiang et al. (2021), equations 5 and 6."""
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total += np.maximum(g[k], 0) * a[k]
    return np.maximum(total, 0)


def eigen_cam(a: Array) -> Array:
    """Muhammad & Yeasin (2020): positions projected on the first eigenvector of A^T A."""
    matrix = a.reshape(len(a), -1).T
    _, vectors = np.linalg.eigh(matrix.T @ matrix)
    heat = (matrix @ vectors[:, -1]).reshape(a.shape[1:])
    return heat if heat.sum() >= 0 else -heat


def score_cam(a: Array, image: Array, baseline: Array, score: Callable[[Array], float]) -> Array:
    """Wang et al. (2020), definitions 3 and 4, weights by the softmax of the authors' algorithm."""
    gains = []
    for k in range(len(a)):
        mask = upsample(a[k], image.shape[1:])
        span = mask.max() - mask.min()
        mask = (mask - mask.min()) / span if span else np.zeros_like(mask)
        gains.append(score(image * mask + baseline * (1 - mask)) - score(baseline))
    powers = [math.exp(gain - max(gains)) for gain in gains]
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        total += powers[k] / sum(powers) * a[k]
    return np.maximum(total, 0)


def upsample(heat: Array, size: tuple[int, ...]) -> Array:
    """Bilinear, pixel centres aligned, the border repeated; any number of axes."""
    for axis, wanted in enumerate(size):
        have = heat.shape[axis]
        rows = []
        for i in range(wanted):
            place = max((i + 0.5) * have / wanted - 0.5, 0)
            low = min(int(place), have - 1)
            high = min(low + 1, have - 1)
            part = place - low
            rows.append((1 - part) * np.take(heat, low, axis) + part * np.take(heat, high, axis))
        heat = np.stack(rows, axis)
    return heat
