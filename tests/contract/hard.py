"""Scores whose samples mislead: heavy tails, rare jumps, saturation, columns without a part."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from whyglass.coalition.game.game import members

Score = Callable[[Tensor], Tensor]
COLUMNS = 6
W = torch.randn(COLUMNS, generator=torch.Generator().manual_seed(0)).double()


def _linear(x: Tensor) -> Tensor:
    return x @ W.to(x)


SCORES: dict[str, Score] = {
    "smooth": lambda x: _linear(x).tanh() + x[:, 0] * x[:, 1],
    "heavy tails": lambda x: (1.5 * _linear(x)).exp(),
    "saturated": lambda x: torch.sigmoid(12 * (_linear(x) - 1)),
    "near-deterministic": lambda x: torch.sigmoid(60 * x[:, 0]) + 0.1 * x[:, 1],
    "kinks": lambda x: torch.relu((4 * _linear(x)).sin()) + 0.3 * x[:, 2],
    "high order": lambda x: (x[:, 0] * x[:, 1] + x[:, 5]) * x[:, 2] * x[:, 3],
    "one column": lambda x: x[:, 0] ** 3,
}


def rows(count: int, seed: int) -> Tensor:
    """(count, 6) of which the last column repeats the first, and the one before is constant."""
    x = torch.randn(count, COLUMNS, generator=torch.Generator().manual_seed(seed)).double()
    x[:, 4], x[:, 5] = 1.0, x[:, 0]
    return x


def games(n: int) -> dict[str, Tensor]:
    """Worths (2^n,) of all coalitions."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).double()

    z = members(torch.arange(2**n), n).double()
    size, part = z.sum(1), z @ random(n)
    return {
        "smooth": (z @ random(n, 16) * 0.4).tanh() @ random(16),
        "and of three": z[:, :3].prod(1) + 0.05 * part,
        "and of most": z[:, : n - 2].prod(1),
        "and of all": z.prod(1),
        "or": 1 - (1 - z[:, : n // 2]).prod(1),
        "parity": size % 2,
        "parity of some": z[:, :5].sum(1) % 2,
        "majority": (size > n / 2).double(),
        "threshold": (part > 1).double(),
        "saturated": torch.sigmoid(10 * (size - n / 2 + 0.5) + part),
        "heavy tails": (4 * part / n**0.5).exp(),
        "random": random(2**n),
        "heavy random": (2 * random(2**n)).sinh(),
        "spikes": 0.3 * part + 5 * (random(2**n) > 1.6),
        "linear": part,
        "maximum": (z * torch.arange(1, n + 1)).amax(1),
        "dummies": (2 * z[:, 0] - z[:, 1] * z[:, 2]).tanh(),
    }


def images() -> dict[str, Score]:
    """Scores of images (B, 1, 8, 8)."""
    return {
        "smooth": lambda x: (x[:, 0, :4, :4].mean((1, 2)) + x[:, 0, 2, 5]).tanh(),
        "both patches": lambda x: x[:, 0, :4, :4].mean((1, 2)) * x[:, 0, 4:, 4:].mean((1, 2)),
        "saturated": lambda x: torch.sigmoid(40 * (x.mean((1, 2, 3)) - 0.5)),
        "a step": lambda x: (x.mean((1, 2, 3)) > 0.45).to(x),
        "heavy tails": lambda x: (20 * x.mean((1, 2, 3))).exp(),
    }
