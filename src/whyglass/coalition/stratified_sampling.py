"""Coalitions drawn size by size without replacement.

A *stratum* holds coalitions of one size. With one background row a coalition is one *draw*; with more
of them each combination of a coalition and a background row is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LISTED = 2**16
BLOCK = 64


@dataclass(frozen=True)
class Stratum:
    """`total` distinct draws of coalitions of `size`; `mass` is their weight in the sum over all."""

    size: int
    total: int
    mass: float


def allocate(
    strata: Sequence[Stratum],
    draws: int,
    weights: Sequence[float],
    minimum: int = 0,
    offsets: Sequence[float] | None = None,
) -> list[int]:
    """How many draws each stratum gets: its weight times a common scale, rounded down, never too many.

    `minimum` is the least for each. `offsets` in [0, 1) are added before rounding, so that chance
    rounds. No count falls when `draws` rises: a larger sample continues a smaller one.
    """
    parts = list(
        zip(
            [stratum.total for stratum in strata],
            weights,
            offsets or [0.0] * len(strata),
            strict=True,
        )
    )

    def counts(scale: float) -> list[int]:
        return [
            min(total, max(minimum, int(min(total, scale * weight + offset))))
            for total, weight, offset in parts
        ]

    largest = [total if weight else min(total, minimum) for total, weight, _ in parts]
    if sum(largest) <= draws:
        return largest
    low, high = 0.0, 1.0
    while sum(counts(high)) <= draws:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts(middle)) <= draws else (low, middle)
    return counts(low)


def draw(
    stratum: Stratum, n: int, background_size: int, count: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Coalitions (D, n) and background rows (D,) of the first `count` draws of a stratum.

    A stratum of half of all coalitions of n / 2 players holds those with the first player.
    """
    generator = torch.Generator().manual_seed(seed)
    lap_order = torch.randperm(background_size, generator=generator)
    distinct, position = stratum.total // background_size, torch.arange(count)
    size = min(stratum.size, n - stratum.size)
    if distinct > max(LISTED, 4 * count):
        first = 2 * distinct == math.comb(n, size)
        coalitions = _distinct(n, size, count, first, generator)
        background_rows = lap_order[position % background_size]
    else:
        listed = itertools.islice(itertools.combinations(range(n), size), distinct)
        flat = itertools.chain.from_iterable(listed)
        chosen = torch.from_numpy(np.fromiter(flat, np.int64, distinct * size))
        # Lap after lap through the coalitions, each lap with other background rows for each.
        lap, coalition = position // distinct, position % distinct
        order = torch.randperm(distinct, generator=generator)
        coalitions = torch.zeros(count, n, dtype=torch.bool)
        coalitions.scatter_(1, chosen.reshape(distinct, size)[order[coalition]], True)
        background_rows = lap_order[(coalition + lap) % background_size]
    return (coalitions if size == stratum.size else ~coalitions), background_rows


def _distinct(n: int, size: int, count: int, first: bool, generator: torch.Generator) -> Tensor:
    """More coalitions than are worth a list: drawn until they are distinct."""
    seen: dict[bytes, None] = {}
    while len(seen) < count:
        order = torch.rand(BLOCK, n, generator=generator).argsort(1)
        coalitions = torch.zeros(BLOCK, n, dtype=torch.bool).scatter_(1, order[:, :size], True)
        if first:
            coalitions ^= ~coalitions[:, :1]
        seen |= dict.fromkeys(map(np.ndarray.tobytes, coalitions.numpy()))
    drawn = b"".join(itertools.islice(seen, count))
    return torch.from_numpy(np.frombuffer(drawn, bool).reshape(count, n).copy())
