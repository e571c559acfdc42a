"""The networks of the book chapter, of the axioms paper and of a radial boundary, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _linear(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight, dtype=torch.float64))
        layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def problem() -> nn.Module:
    """The network of the solved problems P9.1 to P9.4."""
    return nn.Sequential(
        _linear([[1, -1], [-1, 1]], [-0.5, -0.5]), nn.ReLU(), _linear([[1, 1], [-1, -1]], [-1, 1])
    )


def exercise() -> nn.Module:
    """The network of exercise E9.2."""
    return nn.Sequential(
        _linear([[1, -1], [-1, 1], [0, -1]], [-5, -5, -3]),
        nn.ReLU(),
        _linear([[1, 1, 1], [-1, -1, -1]], [-1, 1]),
    )


class LogSig(nn.Module):
    """a = 1 / (1 + exp(-n))."""

    def forward(self, n: Tensor) -> Tensor:
        return 1 / (1 + torch.exp(-n))


def radial(*, last: bool = True) -> nn.Module:
    """2-4-2-1, whose decision boundary is a circle; `last=False` stops at its net input n."""
    rows = [1.0, -1.0, 1.0, -1.0]
    layers = [
        _linear([[-0.2, 0], [-0.2, 0], [0, -0.2], [0, -0.2]], [2, -2, 2, -2]),
        LogSig(),
        _linear([[79.648 * r for r in rows], [113.312 * r for r in rows]], [-120.0208, -175.2374]),
        LogSig(),
        _linear([[-6.6898, 69.3431]], [1.6693]),
    ]
    return nn.Sequential(*layers, *([LogSig()] if last else []))


def flat_at_two(x: Tensor) -> Tensor:
    """F(x) = 1 - ReLU(1 - x)."""
    return 1 - torch.relu(1 - x[:, 0])


def rows(*points: tuple[float, ...]) -> Tensor:
    return torch.tensor(points, dtype=torch.float64)
