"""Pairs of a coalition and its complement, drawn size by size without replacement.

A *stratum* holds the pairs whose smaller half has `size` players. With one background row a
pair of coalitions is one *draw*; with more of them each combination of a pair and a background row is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whyglass.coalition.game.evaluations import Evaluations, cached_plan

LISTED = 2**16
BLOCK = 64


@dataclass(frozen=True)
class Stratum:
    """`total` distinct draws of pairs of `size`; `mass` is their weight in the sum over all pairs."""

    size: int
    total: int
    mass: float


def strata(n: int, background_size: int) -> list[Stratum]:
    """All of them, with the mass that the Shapley kernel gives to each, which sum to one."""
    found: list[Stratum] = []
    for size in range(1, n // 2 + 1):
        both = 1 if 2 * size == n else 2
        pairs = math.comb(n, size) * both // 2
        found.append(Stratum(size, pairs * background_size, both / (size * (n - size))))
    whole = sum(one.mass for one in found)
    return [Stratum(one.size, one.total, one.mass / whole) for one in found]


def allocate(layers: list[Stratum], pairs: int, weights: Sequence[float]) -> list[int]:
    """How many draws each stratum gets: in proportion to `weights`, two at least, never too many.

    No count falls when `pairs` rises, so that a larger sample continues a smaller one.
    """
    totals = [layer.total for layer in layers]

    def counts(scale: float) -> list[int]:
        return [
            min(total, max(2, int(scale * weight)))
            for total, weight in zip(totals, weights, strict=True)
        ]

    if sum(totals) <= pairs:
        return totals
    low, high = 0.0, 1.0
    while sum(counts(high)) <= pairs:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts(middle)) <= pairs else (low, middle)
    return counts(low)


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
        """The same without the players where (n,) is false."""
        return Sample(self.members[:, players], self.background_rows, self.layers, self.counts)


@cached_plan
def sampled(
    n: int, background_size: int, pairs: int, weights: tuple[float, ...], seed: int
) -> tuple[Sample, Evaluations]:
    """At most `pairs` pairs, by `allocate`, and their evaluations: halves first, then the others."""
    layers = strata(n, background_size)
    counts = allocate(layers, pairs, weights)
    # A generator each: how far one stratum is drawn does not change the next.
    seeds = torch.randint(2**62, (len(layers),), generator=torch.Generator().manual_seed(seed))
    drawn = [
        draw(layer, n, background_size, count, own)
        for layer, count, own in zip(layers, counts, seeds.tolist(), strict=True)
    ]
    members, background_rows = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    evaluations = Evaluations(torch.cat([members, ~members]), background_rows.repeat(2))
    return Sample(members, background_rows, layers, counts), evaluations


def draw(
    layer: Stratum, n: int, background_size: int, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Smaller halves (D, n) and background rows (D,) of the first `count` draws of a stratum."""
    generator = torch.Generator().manual_seed(seed)
    laps = torch.randperm(background_size, generator=generator)
    pairs, place = layer.total // background_size, torch.arange(count)
    if pairs > LISTED:
        return _drawn(n, layer.size, count, generator), laps[place % background_size]
    listed = itertools.islice(itertools.combinations(range(n), layer.size), pairs)
    flat = itertools.chain.from_iterable(listed)
    chosen = torch.from_numpy(np.fromiter(flat, np.int64, pairs * layer.size))
    members = torch.zeros(pairs, n, dtype=torch.bool)
    members.scatter_(1, chosen.reshape(pairs, layer.size), True)
    # Lap after lap through the pairs, each lap with other background rows for each.
    lap, pair = place // pairs, place % pairs
    order = torch.randperm(pairs, generator=generator)
    return members[order[pair]], laps[(pair + lap) % background_size]


def _drawn(n: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """More pairs than are worth a list: drawn until they are distinct."""
    seen: dict[bytes, None] = {}
    while len(seen) < count:
        order = torch.rand(BLOCK, n, generator=generator).argsort(1)
        members = torch.zeros(BLOCK, n, dtype=torch.bool).scatter_(1, order[:, :size], True)
        if 2 * size == n:
            members ^= ~members[:, :1]  # of two halves the one with the first player
        seen |= dict.fromkeys(map(np.ndarray.tobytes, members.numpy()))
    found = b"".join(itertools.islice(seen, count))
    return torch.from_numpy(np.frombuffer(found, bool).reshape(count, n).copy())
