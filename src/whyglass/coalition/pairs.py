"""Pairs of a coalition and its complement, drawn size by size without replacement.

A *stratum* holds the pairs whose smaller half has `size` players. With one alternative of the masker a
pair of coalitions is one *draw*; with more of them each combination of a pair and an alternative is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LISTED = 2**16


@dataclass(frozen=True)
class Stratum:
    """`total` distinct draws of pairs of `size`; `mass` is their weight in the sum over all pairs."""

    size: int
    total: int
    mass: float


def strata(n: int, alternatives: int) -> list[Stratum]:
    """All of them, with the mass that the Shapley kernel gives to each, which sum to one."""
    found: list[Stratum] = []
    for size in range(1, n // 2 + 1):
        both = 1 if 2 * size == n else 2
        pairs = math.comb(n, size) * both // 2
        found.append(Stratum(size, pairs * alternatives, both / (size * (n - size))))
    whole = sum(one.mass for one in found)
    return [Stratum(one.size, one.total, one.mass / whole) for one in found]


def allocate(layers: list[Stratum], pairs: int, weights: list[float]) -> list[int]:
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


class Draws:
    """The sequence of draws of one stratum, of which any sample is a beginning."""

    def __init__(self, layer: Stratum, n: int, alternatives: int, seed: int) -> None:
        self._n, self._alternatives = n, alternatives
        self._generator = generator = torch.Generator().manual_seed(seed)
        self._pairs = layer.total // alternatives
        self._size = layer.size
        self._laps = torch.randperm(alternatives, generator=generator)
        self._listed = self._list() if self._pairs <= LISTED else None
        self._made = torch.zeros(0, n, dtype=torch.bool)
        self._seen: set[bytes] = set()

    def take(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The smaller halves (D, n) of draws start to stop, and their alternatives (D,)."""
        place = torch.arange(start, stop)
        if self._listed is not None:
            lap, pair = place // self._pairs, place % self._pairs
            # Lap after lap through the pairs, each lap with other alternatives for each.
            return self._listed[pair], self._laps[(pair + lap) % self._alternatives]
        self._draw(stop)
        return self._made[start:stop], self._laps[place % self._alternatives]

    def _list(self) -> Tensor:
        listed = itertools.islice(itertools.combinations(range(self._n), self._size), self._pairs)
        flat = itertools.chain.from_iterable(listed)
        chosen = np.fromiter(flat, np.int64, self._pairs * self._size)
        members = torch.zeros(self._pairs, self._n, dtype=torch.bool)
        members.scatter_(1, torch.from_numpy(chosen).reshape(self._pairs, self._size), True)
        return members[torch.randperm(self._pairs, generator=self._generator)]

    def _draw(self, count: int) -> None:
        """More pairs than are worth a list: drawn until they are distinct."""
        while len(self._made) < count:
            order = torch.rand(self._n, generator=self._generator).argsort()
            members = torch.zeros(self._n, dtype=torch.bool)
            members[order[: self._size]] = True
            if 2 * self._size == self._n and not members[0]:
                members = ~members  # of two halves the one with the first player
            key = members.numpy().tobytes()
            if key not in self._seen:
                self._seen.add(key)
                self._made = torch.cat([self._made, members[None]])
