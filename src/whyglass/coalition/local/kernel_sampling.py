"""Coalitions drawn as often as a kernel weighs them, for a regression with that kernel.

A kernel gives a weight to each coalition, most often by its size. Nobody and everybody are always in
the sample: their scores are known. A size between is used whole where the budget pays for that. The
other sizes are drawn in proportion to their part in the kernel: what chance draws weighs the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from whyglass.coalition.game.evaluations import Evaluations, cached_plan
from whyglass.coalition.stratified_sampling import Stratum, allocate, draw
from whyglass.core.errors import BadInput

Kernel: TypeAlias = "Literal['euclidean', 'cosine'] | Callable[[Tensor], Tensor]"

# A callable is tried on so many coalitions of each size before any are drawn.
TRIED = 64
# This share of the draws goes to sizes by their number of coalitions alone: the trial may miss some.
EVEN = 0.1
# The input outweighs coalitions without one player by no more than exp(30): rounding hides more.
STEEPEST = 30.0


@dataclass(frozen=True)
class KernelSample:
    """S draws: coalitions (S, n), background_size (S,), weights (S,) that sum to one.

    `chance` (S,) is the share of the variance of a draw that chance makes, zero where its size is
    there whole. `total` is what the kernel's weights of as many coalitions, all sizes alike, sum to.
    """

    coalitions: Tensor
    background_rows: Tensor
    weights: Tensor
    chance: Tensor
    total: float

    def weighed(self, weights: Tensor, logs: tuple[float, ...]) -> KernelSample:
        """The sample with weights (S,) of its own for each coalition, not the kernel's by size."""
        sizes = self.coalitions.sum(1)
        usual = torch.tensor(logs, dtype=torch.float64).exp()[sizes]
        return replace(self, weights=self.weights * weights / usual)

    @property
    def random(self) -> int:
        """How many draws chance chose."""
        return int((self.chance > 0).sum())


def log_kernel(n: int, kernel: Kernel, width: float | None) -> tuple[float, ...]:
    """The logarithm of the kernel at sizes 0 to n; of a callable, that of its mean over a few."""
    if callable(kernel):
        return tuple(_tried(n, size, kernel) for size in range(n + 1))
    sizes = torch.arange(n + 1, dtype=torch.float64)
    if kernel == "cosine":
        distance, usual = 1 - (sizes / n).sqrt(), 0.25
    else:
        distance, usual = (n - sizes).sqrt(), 0.75 * n**0.5
    # Kernels that are narrower than the first step by so much give the same slopes.
    deviation = max(width or usual, 1e-3 * float(distance[-2]))
    logs = (-((distance / deviation) ** 2) / 2).tolist()
    return (*logs[:-1], min(logs[-1], logs[-2] + STEEPEST))


def _tried(n: int, size: int, kernel: Callable[[Tensor], Tensor]) -> float:
    distinct = math.comb(n, size)
    coalitions, _ = draw(Stratum(size, distinct, 1.0), n, 1, min(TRIED, distinct), 0)
    mean = float(own_weights(coalitions, kernel).mean())
    return math.log(max(mean, 1e-300))


def own_weights(coalitions: Tensor, kernel: Callable[[Tensor], Tensor]) -> Tensor:
    """(S,) weights by a callable, refused where they are none."""
    weights = kernel(coalitions).double()
    if weights.shape != coalitions.shape[:1] or not bool((weights >= 0).all()):
        raise BadInput("kernel must return one weight a coalition, none negative")
    return weights


@cached_plan
def kernel_sample(
    n: int, background_size: int, draws: int, logs: tuple[float, ...], even: float, seed: int
) -> tuple[KernelSample, Evaluations]:
    """At most `draws` draws of coalitions other than nobody and everybody, and those two."""
    counted = [math.log(math.comb(n, size)) for size in range(n + 1)]
    joint = torch.tensor([c + log for c, log in zip(counted, logs, strict=True)]).double()
    scale = float(joint.logsumexp(0))
    share = (joint - scale).exp()
    by_number = (torch.tensor(counted).double() - n * math.log(2)).exp()
    masses = ((1 - even) * share + even * by_number).tolist()
    strata = [Stratum(s, math.comb(n, s) * background_size, masses[s]) for s in range(1, n)]
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.rand(len(strata), generator=generator).tolist()
    seeds = torch.randint(2**62, (n + 1,), generator=generator).tolist()
    counts = allocate(strata, draws, [one.mass for one in strata], offsets=offsets)
    ends = [Stratum(size, background_size, masses[size]) for size in dict.fromkeys((0, n))]
    strata, counts = [*strata, *ends], [*counts, *([background_size] * len(ends))]
    drawn = [
        draw(one, n, background_size, count, seeds[one.size])
        for one, count in zip(strata, counts, strict=True)
    ]
    coalitions, background_rows = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    chance = [1 - count / one.total for one, count in zip(strata, counts, strict=True)]
    # A size that is drawn weighs by its part in the draws, not by its rounded count.
    mass = sum(one.mass for one, left in zip(strata, chance, strict=True) if left)
    rate = sum(count for count, left in zip(counts, chance, strict=True) if left) / max(
        mass, 1e-300
    )
    weights = [
        float(share[one.size]) / (one.mass * rate if left else one.total) if count else 0.0
        for one, left, count in zip(strata, chance, counts, strict=True)
    ]
    size = len(coalitions)
    times = torch.tensor(counts)
    each = torch.tensor([weights, chance], dtype=torch.float64).repeat_interleave(times, 1)
    total = size * math.exp(scale - n * math.log(2))
    sample = KernelSample(coalitions, background_rows, each[0], each[1], total)
    return sample, Evaluations(coalitions, background_rows)
