"""What a background row has in place of a player, as columns that take up what differs by it.

A play meets one alternative of the masker, and how that differs from the others is noise to a
regression on coalitions. Centred over the alternatives these columns take it up and, over all plays,
leave what is explained as it was.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

STEPS = 15


def as_key(coordinates: Tensor | None) -> bytes | None:
    """(A, n) float64 numbers, to be compared and remembered."""
    return None if coordinates is None else coordinates.numpy().tobytes()


def departures(key: bytes | None, n: int, most: int) -> list[list[Tensor]]:
    """Columns (A, E) of each player: its coordinate, and with that steps at 15 of its quantiles.

    The kinds that come to `most` columns or fewer for all players; none without coordinates.
    """
    if key is None:
        return []
    spots = torch.from_numpy(np.frombuffer(key).reshape(-1, n).copy())
    found = ([_columns(spot, steps) for spot in spots.T] for steps in (0, STEPS))
    return [kind for kind in found if sum(columns.shape[1] for columns in kind) <= most]


def times(presence: Tensor, kind: list[Tensor], which: Tensor) -> Tensor:
    """(S, E): the columns of each play's alternative (S,), times (S, n) how far a player counts."""
    return torch.cat([presence[:, i : i + 1] * columns[which] for i, columns in enumerate(kind)], 1)


def _columns(spot: Tensor, steps: int) -> Tensor:
    levels = torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1)
    above = spot[:, None] > spot.quantile(levels).unique()
    about = torch.cat([spot[:, None], above.double()], 1)
    about -= about.mean(0)
    spread = about.std(0, correction=0)
    about = about[:, spread > 0] / spread[spread > 0]
    # Orthogonal and of even size, without those that follow from the others.
    own, sizes, _ = torch.linalg.svd(about, full_matrices=False)
    return own[:, sizes > 1e-6 * sizes.sum()] * len(spot) ** 0.5
