"""Covariates of the background rows, which a regression on coalitions fits beside them.

An evaluation meets one background row, and how that row differs from the others is noise to the
regression. The covariates are centred over the background: they take up this noise and, over all
evaluations, leave the values of the players as they are.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

QUANTILES = 15


def as_key(coordinates: Tensor | None) -> bytes | None:
    """The float64 coordinates (A, n) as bytes, which a cache can compare."""
    return None if coordinates is None else coordinates.numpy().tobytes()


def covariates(key: bytes | None, n: int, most: int) -> list[list[Tensor]]:
    """The sets of covariates that have at most `most` columns, the smaller first.

    A set holds columns (A, E) for each of n players: its coordinate alone, or with that the indicators
    of 15 of its quantiles. There is no set without coordinates.
    """
    if key is None:
        return []
    coordinates = torch.from_numpy(np.frombuffer(key).reshape(-1, n).copy())
    sets = ([_columns(one, number) for one in coordinates.T] for number in (0, QUANTILES))
    return [columns for columns in sets if sum(one.shape[1] for one in columns) <= most]


def covariate_columns(presence: Tensor, columns: list[Tensor], background_rows: Tensor) -> Tensor:
    """(S, E): the covariates of each evaluation's background row, times a player's presence (S, n)."""
    return torch.cat(
        [presence[:, i : i + 1] * own[background_rows] for i, own in enumerate(columns)], 1
    )


def _columns(coordinate: Tensor, quantiles: int) -> Tensor:
    levels = torch.arange(1, quantiles + 1, dtype=torch.float64) / (quantiles + 1)
    above = coordinate[:, None] > coordinate.quantile(levels).unique()
    columns = torch.cat([coordinate[:, None], above.double()], 1)
    columns -= columns.mean(0)
    deviation = columns.std(0, correction=0)
    columns = columns[:, deviation > 0] / deviation[deviation > 0]
    # Orthogonal and of even size, without those that follow from the others.
    basis, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    return basis[:, sizes > 1e-6 * sizes.sum()] * len(coordinate) ** 0.5
