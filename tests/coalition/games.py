"""Games with known answers, and Shapley values by their definition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

Worth = Callable[[frozenset[int]], float]


def naive_shapley(worth: Worth, n: int) -> Tensor:
    """Shapley (1953): the mean gain of each player over all n! orders, one at a time."""
    total = torch.zeros(n, dtype=torch.float64)
    for order in itertools.permutations(range(n)):
        present: frozenset[int] = frozenset()
        for player in order:
            total[player] += worth(present | {player}) - worth(present)
            present |= {player}
    return total / math.factorial(n)


def lookup(table: Tensor) -> Callable[[Tensor], Tensor]:
    """The model whose game, from zeros to ones, is worth `table` (2^n,) or (2^n, K)."""

    def model(x: Tensor) -> Tensor:
        bits = (x > 0.5).long()
        return table[(bits << torch.arange(x.shape[1])).sum(1)]

    return model


def worth_of(table: Tensor) -> Worth:
    """The same as a function of sets."""
    return lambda players: float(table[sum(2**player for player in players)])


def random_table(n: int, seed: int) -> Tensor:
    return torch.randn(2**n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones(n: int, rows: int = 1) -> Tensor:
    return torch.ones(rows, n, dtype=torch.float64)


def sickness(x: Tensor) -> Tensor:
    """Lundberg & Lee (2017), figure 4A: 2 with fever and cough, 5 with one of them."""
    fever, cough = x[:, 0] > 0.5, x[:, 1] > 0.5
    return 5.0 * (fever ^ cough) + 2.0 * (fever & cough)


def profit(x: Tensor) -> Tensor:
    """Figure 4B: the best of three sales counts is what all earn."""
    return x.amax(1)
