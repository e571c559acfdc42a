"""Plays, made ready before any model is asked, and plans of them kept from call to call.

What a sample looks like depends on the number of players, the alternatives and the settings alone: a
data set explained in a thousand batches has one plan.
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

MOST_KEPT = 2**20


class Plays:
    """S coalitions (S, n), each with its alternative of the masker (S,).

    `coalitions` (D, n) and `which` (D,) are those to evaluate: each once, in the order of their `keys`,
    and without the coalitions of everybody and nobody.
    """

    def __init__(self, coalitions: Tensor, which: Tensor) -> None:
        sizes = coalitions.sum(1)
        nobody, everybody = sizes == 0, sizes == coalitions.shape[1]
        between = (~(nobody | everybody)).nonzero()[:, 0]
        coalitions, at = coalitions[between], which[between]
        self.keys, first, place = np.unique(
            _keys(coalitions, at), return_index=True, return_inverse=True
        )
        self.coalitions, self.which = coalitions[first], at[first]
        self._place = torch.where(everybody, len(first), len(first) + 1 + which)
        self._place[between] = torch.from_numpy(place.reshape(-1))

    def spread(self, scores: Tensor, full: Tensor, empties: Tensor) -> Tensor:
        """(R, S, K): what each play is worth, from (R, D, K), (R, K) and (R, A, K) by alternative."""
        return torch.cat([scores, full[:, None], empties], 1)[:, self._place]


def _keys(coalitions: Tensor, which: Tensor) -> NDArray[Any]:
    """One comparable key a play: a number where 64 bits hold it."""
    bits = np.packbits(coalitions.numpy(), axis=1)
    size = 8 if bits.shape[1] <= 4 else bits.shape[1] + 4
    whole = np.zeros((len(bits), size), np.uint8)
    whole[:, : bits.shape[1]] = bits
    whole[:, -4:] = which.numpy().astype("<u4")[:, None].view(np.uint8)
    return whole.view(np.uint64 if size == 8 else np.dtype((np.void, size)))[:, 0]


def kept(make: Callable[P, T]) -> Callable[Concatenate[float, P], T]:
    """Remember the last four results, unless they hold more numbers, the first argument, than is worth.

    Nobody may change what is returned.
    """
    recent = lru_cache(maxsize=4)(make)

    @wraps(make)
    def found(numbers: float, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (recent if numbers <= MOST_KEPT else make)(*args, **kwargs)

    return found
