"""Evaluations, made ready before any model is asked, and a cache of plans from call to call.

What a sample looks like depends on the number of players, the size of the background and the settings
alone: a data set explained in a thousand batches has one plan.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")

MOST_CACHED = 2**20


class Evaluations:
    """S coalitions (S, n), each with the number of one background row (S,).

    `coalitions` (D, n) and `background_rows` (D,) are those to evaluate: each once, in the order of
    their `keys`, and without the coalitions of everybody and nobody.
    """

    def __init__(self, coalitions: Tensor, background_rows: Tensor) -> None:
        sizes = coalitions.sum(1)
        nobody, everybody = sizes == 0, sizes == coalitions.shape[1]
        between = (~(nobody | everybody)).nonzero()[:, 0]
        coalitions, rows = coalitions[between], background_rows[between]
        self.keys, first, position = np.unique(
            _keys(coalitions, rows), return_index=True, return_inverse=True
        )
        self.coalitions, self.background_rows = coalitions[first], rows[first]
        self._positions = torch.where(everybody, len(first), len(first) + 1 + background_rows)
        self._positions[between] = torch.from_numpy(position.reshape(-1))

    def expand(self, scores: Tensor, full: Tensor, empties: Tensor) -> Tensor:
        """(R, S, K): the score of each evaluation.

        From the distinct scores (R, D, K), those of everybody (R, K), and those of nobody with each
        background row (R, A, K).
        """
        return torch.cat([scores, full[:, None], empties], 1)[:, self._positions]


def _keys(coalitions: Tensor, background_rows: Tensor) -> NDArray[Any]:
    """One comparable key for each evaluation: a number where 64 bits hold it."""
    bits = np.packbits(coalitions.numpy(), axis=1)
    size = 8 if bits.shape[1] <= 4 else bits.shape[1] + 4
    whole = np.zeros((len(bits), size), np.uint8)
    whole[:, : bits.shape[1]] = bits
    whole[:, -4:] = background_rows.numpy().astype("<u4")[:, None].view(np.uint8)
    return whole.view(np.uint64 if size == 8 else np.dtype((np.void, size)))[:, 0]


def cached_plan(make: Callable[P, T]) -> Callable[Concatenate[float, P], T]:
    """A cache of the last four results of `make`, which nobody may change.

    The new first argument is how many numbers a result holds: one with too many is not remembered.
    """
    cached = lru_cache(maxsize=4)(make)

    @wraps(make)
    def plan(numbers: float, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (cached if numbers <= MOST_CACHED else make)(*args, **kwargs)

    return plan
