"""LRP as the papers print it, for one layer as a matrix, in float64.

`x` is the layer's input (J,), `w` its weights (K, J), `b` its bias (K,), zero where it does not share,
`r` the relevance of its outputs (K,). `reach` (K, J) tells which input an output can see. Each rule
returns the relevance of the inputs (J,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

Array = np.ndarray
Rule = Callable[[Array, Array, Array, Array, Array], Array]


class NoShares(Exception):
    """Relevance is divided by zero."""


def shares(r: Array, z: Array, *, strict: bool = False) -> Array:
    """r / z; where both are zero nothing, and where z alone is an error or nothing."""
    if strict and ((z == 0) & (r != 0)).any():
        raise NoShares
    return np.divide(r, z, out=np.zeros_like(r), where=z != 0)


def epsilon(x, w, b, r, _reach, eps=0.0, plain=False):  # type: ignore[no-untyped-def]
    """Bach et al. (2015), equations 56 and 58; Hagan et al. add epsilon without a sign."""
    z = w * x
    total = z.sum(1) + b
    total = total + eps * (1 if plain else np.where(total >= 0, 1, -1))
    return z.T @ shares(r, total, strict=not eps)


def gamma_of_positive(x, w, b, r, _reach, gamma=0.25, eps=0.0):  # type: ignore[no-untyped-def]
    """Montavon et al. (2019), section 10.2.1."""
    z = x * (w + gamma * np.maximum(w, 0))
    total = z.sum(1) + b + gamma * np.maximum(b, 0)
    total = total + eps * np.where(total >= 0, 1, -1)
    return z.T @ shares(r, total, strict=not eps)


def gamma_signed(x, w, b, r, _reach, gamma=0.25, eps=0.0):  # type: ignore[no-untyped-def]
    """Products of the output's own sign count 1 + gamma times."""
    z = w * x
    rising = (z.sum(1) + b >= 0)[:, None]

    def more(t):  # type: ignore[no-untyped-def]
        return t + gamma * np.where(rising, np.maximum(t, 0), np.minimum(t, 0))

    total = more(z).sum(1) + more(b[:, None])[:, 0]
    total = total + eps * np.where(total >= 0, 1, -1)
    return more(z).T @ shares(r, total, strict=not eps)


def alpha_beta(x, w, b, r, _reach, alpha=2.0, beta=1.0):  # type: ignore[no-untyped-def]
    """Bach et al. (2015), equation 60; contributions of one sign alone take all."""
    z = w * x
    up, down = np.maximum(z, 0), np.minimum(z, 0)
    ups, downs = up.sum(1) + np.maximum(b, 0), down.sum(1) + np.minimum(b, 0)
    for_up = np.where(downs == 0, 1.0, alpha)
    for_down = np.where(ups == 0, 1.0, -beta)
    return up.T @ shares(for_up * r, ups) + down.T @ shares(for_down * r, downs)


def w_square(_x, w, _b, r, _reach):  # type: ignore[no-untyped-def]
    """Montavon et al. (2017), section 4.1."""
    return (w**2).T @ shares(r, (w**2).sum(1))


def flat(_x, _w, _b, r, reach):  # type: ignore[no-untyped-def]
    """Lapuschkin et al. (2019), supplementary note 3."""
    return reach.T.astype(float) @ shares(r, reach.sum(1).astype(float))


def z_box(x, w, _b, r, _reach, low=None, high=None):  # type: ignore[no-untyped-def]
    """Montavon et al. (2017), section 4.1; a bound for each input."""
    low = x.min() if low is None else np.asarray(low)
    high = x.max() if high is None else np.asarray(high)
    z = x * w - low * np.maximum(w, 0) - high * np.minimum(w, 0)
    return z.T @ shares(r, z.sum(1))


@dataclass
class Layer:
    """A weighted operation as a matrix, a ReLU behind it or not."""

    w: Array
    b: Array
    reach: Array
    relu: bool


def matrices(net: nn.Sequential, shape: Sequence[int]) -> list[Layer]:
    """Every weighted module of a network, by what it makes of unit vectors."""
    found: list[Layer] = []
    point = torch.zeros(1, *shape, dtype=torch.float64)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.ReLU):
                found[-1].relu = True
            elif not isinstance(module, nn.Flatten):
                units = torch.eye(point.numel(), dtype=torch.float64).reshape(-1, *point.shape[1:])
                b = module(torch.zeros_like(point))
                w = (module(units) - b).flatten(1).T.numpy()
                weight = module.weight.clone()
                module.weight.fill_(1.0)
                reach = (module(units) - b).flatten(1).T.numpy() > 0.5
                module.weight.copy_(weight)
                found.append(Layer(w, b.flatten().numpy(), reach, relu=False))
            point = module(point)
    return found


def relevance(
    layers: Sequence[Layer], x: Array, target: int, rules: Sequence[Rule], *, bias: str
) -> tuple[Array, float]:
    """The relevance of the inputs, and the largest sum of sizes on the way, which bounds rounding."""
    inputs = [x]
    for layer in layers:
        y = layer.w @ inputs[-1] + layer.b
        inputs.append(np.maximum(y, 0) if layer.relu else y)
    r = np.zeros_like(inputs[-1])
    r[target] = inputs[-1][target]
    largest = abs(r).sum()
    for layer, rule, given in zip(layers[::-1], rules[::-1], inputs[-2::-1], strict=True):
        b = layer.b if bias == "share" else np.zeros_like(layer.b)
        r = rule(given, layer.w, b, r, layer.reach)
        largest = max(largest, abs(r).sum())
    return r, largest
