"""Pairs of a coalition and its complement, drawn size by size without replacement.

A stratum holds the pairs whose smaller half has `size` players.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.coalition.game.evaluations import Evaluations, cached_plan
from whyglass.coalition.stratified_sampling import Stratum, allocate, draw

# A variance within a stratum takes two pairs of it.
LEAST = 2


def strata(n: int, background_size: int) -> list[Stratum]:
    """The strata of all pairs, with the masses that the Shapley kernel gives them: they sum to one."""
    sizes = range(1, n // 2 + 1)
    halves = [1 if 2 * size == n else 2 for size in sizes]
    masses = [both / (size * (n - size)) for size, both in zip(sizes, halves, strict=True)]
    return [
        Stratum(size, math.comb(n, size) * both // 2 * background_size, mass / sum(masses))
        for size, both, mass in zip(sizes, halves, masses, strict=True)
    ]


@dataclass(frozen=True)
class Sample:
    """Smaller halves of D pairs (D, n), their background rows (D,), and `counts` of each stratum."""

    members: Tensor
    background_rows: Tensor
    layers: list[Stratum]
    counts: list[int]

    def per_pair(self, strata: list[float]) -> Tensor:
        """(D, 1): of numbers of the strata, that of each pair."""
        counts = torch.tensor(self.counts)
        return torch.tensor(strata, dtype=torch.float64).repeat_interleave(counts)[:, None]

    @property
    def share(self) -> Tensor:
        """(D, 1): the mass of a stratum, shared evenly by the pairs drawn from it."""
        return self.per_pair(
            [one.mass / count for one, count in zip(self.layers, self.counts, strict=True)]
        )

    def only(self, players: Tensor) -> Sample:
        """The sample without the players where (n,) is false."""
        return Sample(self.members[:, players], self.background_rows, self.layers, self.counts)


@cached_plan
def sampled(
    n: int, background_size: int, pairs: int, weights: tuple[float, ...], seed: int
) -> tuple[Sample, Evaluations]:
    """At most `pairs` pairs, by `allocate`, and their evaluations: halves first, then the others."""
    layers = strata(n, background_size)
    counts = allocate(layers, pairs, weights, LEAST)
    # Each stratum has a generator: how far one stratum is drawn does not change the next.
    seeds = torch.randint(2**62, (len(layers),), generator=torch.Generator().manual_seed(seed))
    drawn = [
        draw(layer, n, background_size, count, own)
        for layer, count, own in zip(layers, counts, seeds.tolist(), strict=True)
    ]
    members, background_rows = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    evaluations = Evaluations(torch.cat([members, ~members]), background_rows.repeat(2))
    return Sample(members, background_rows, layers, counts), evaluations
