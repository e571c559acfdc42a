"""Players: groups of features that are present or absent together.

==============================  =================================================================
``None``                        each feature a player; an image's channels together
``8``                           windows: each axis but batch and channels cut into 8 even parts
``"superpixels"``               some 50 patches of even colour of one image (needs scikit-image)
tensor or nested tuple          the number of each feature's player, 0 to n - 1, or -1: always present
callable                        ``inputs -> tensor``, such as ``whyglass.data.image.Superpixels(99)``
==============================  =================================================================

A mask has the shape of one row, or one that broadcasts to it: (H, W) for an image (C, H, W). It holds
for the whole batch. For several inputs give a tuple or dict of masks.

Without masks the inputs of floats have players, or where there is none those of integers: tokens, say.
What describes tokens has none and is held fixed. That is an input with the shape of an input of tokens
which is called `attention_mask`, `token_type_ids`, `position_ids` or `special_tokens_mask`, or which
holds 0 and 1 alone (or booleans), or counts 0, 1, 2, ... along each row. Where all integers look like
that, only the names tell. A note in the explanation says what was held fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable, flat_rows
from whyglass.core.scorer import Scorer
from whyglass.core.token_descriptions import describing_tokens

# Tuples nest; callables and tuples are hashable, so that settings are, too.
Players: TypeAlias = (
    "int | str | Tensor | tuple[Any, ...] | dict[str, Any] | Callable[[Any], Any] | None"
)


@dataclass(frozen=True)
class FeatureGroups:
    """`count` players; `masks` hold the player of each feature of a row, one mask a leaf of points.

    A mask is as large as the map of its values: one channel where an image's channels go together.
    """

    count: int
    masks: Leaves

    def spread_over_features(self, values: Tensor, points: Leaves, many: bool) -> Leaves:
        """Values of players (B, n, K), each divided evenly among its features, shaped as points.

        The axis of targets is left out unless there are `many`.
        """
        sizes = sum(torch.bincount(m[m >= 0].flatten(), minlength=self.count) for m in self.masks)
        assert isinstance(sizes, Tensor)
        share = values / sizes[:, None]
        share = torch.cat([share, torch.zeros_like(share[:, :1])], 1)
        values_of_features = (share[:, mask] for mask in self.masks)
        return tuple(
            to_result_dtype(leaf if many else leaf[..., 0], point).to(point.device)
            for leaf, point in zip(values_of_features, points, strict=True)
        )

    def feature_means(self, leaves: Leaves) -> Tensor:
        """(N, n) float64 on the processor: the mean of each player's features, for N points."""
        sums = torch.zeros(len(leaves[0]), self.count + 1, dtype=torch.float64)
        sizes = torch.zeros(self.count + 1, dtype=torch.float64)
        for leaf, mask in zip(leaves, self.masks, strict=True):
            # -1, held fixed, comes last.
            player = mask.expand(leaf.shape[1:]).flatten().cpu() % (self.count + 1)
            sums.index_add_(1, player, flat_rows(leaf.double().cpu()))
            sizes.index_add_(0, player, torch.ones_like(player, dtype=torch.float64))
        return (sums / sizes)[:, :-1]


def feature_mask(present: Tensor, mask: Tensor) -> Tensor:
    """`(E, *mask)`: the features present with the players (E, n); those of no player always are."""
    return torch.cat([present, torch.ones_like(present[:, :1])], 1)[:, mask]


def with_every_row(
    present: Tensor, rows: Tensor, background_rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Every evaluation (S, n), (S,) with every row (R,): players, row, background row of a point."""
    return (
        present.repeat_interleave(len(rows), 0),
        rows.repeat(len(present)),
        background_rows.repeat_interleave(len(rows)),
    )


def to_result_dtype(values: Tensor, point: Tensor) -> Tensor:
    """Values in float64 if the inputs are, otherwise in float32."""
    return values if point.dtype == torch.float64 else values.float()


def _superpixels(name: str) -> Callable[[Tensor], Tensor]:
    if name != "superpixels":
        raise BadInput(
            f'players {name!r} must be "superpixels", a number of windows along each axis, or a mask '
            "of integers"
        )
    from whyglass.data.image import Superpixels

    return Superpixels()


def feature_groups(players: Players, scorer: Scorer) -> FeatureGroups:
    """The players that the setting `players` describes for this batch."""
    points = scorer.points
    if isinstance(players, str):
        players = _superpixels(players)
    setting: Any = players(scorer.structure.pack(points)) if callable(players) else players
    if setting is None or isinstance(setting, int):
        split = has_players(points, scorer.structure.names or ())
        masks = (
            _single_features(points, split) if setting is None else _windows(points, split, setting)
        )
    else:
        masks = tuple(
            _mask(part, point, scorer.structure.label(index))
            for index, (part, point) in enumerate(zip(_parts(setting, scorer), points, strict=True))
        )
    numbers = torch.cat([mask.flatten() for mask in masks]).unique()
    numbers = numbers[numbers >= 0]
    count = len(numbers)
    if not count or int(numbers[-1]) != count - 1:
        raise BadInput(
            f"players are numbered {numbers[:6].tolist()}...: use every number from 0 to n - 1, and -1 "
            "for what is always present"
        )
    return FeatureGroups(count, masks)


def _shape(point: Tensor) -> tuple[int, ...]:
    """The shape of one row's map: an image's channels go together."""
    return (1, *point.shape[2:]) if point.dim() >= 4 else tuple(point.shape[1:])


def has_players(points: Leaves, names: Sequence[str | int]) -> list[bool]:
    """Which leaves have players by default: the float ones, or where none is the others.

    Leaves that describe the tokens in another leaf have none.
    """
    held = describing_tokens(points, names)
    floats = [differentiable(point) and index not in held for index, point in enumerate(points)]
    return floats if any(floats) else [index not in held for index in range(len(points))]


def _single_features(points: Leaves, has_players: Sequence[bool]) -> Leaves:
    masks: list[Tensor] = []
    first = 0
    for point, split in zip(points, has_players, strict=True):
        shape = _shape(point)
        size = math.prod(shape)
        masks.append(
            torch.arange(first, first + size).reshape(shape) if split else torch.full(shape, -1)
        )
        first += size if split else 0
    return tuple(masks)


def _windows(points: Leaves, has_players: Sequence[bool], parts: int) -> Leaves:
    if isinstance(parts, bool) or parts < 1:
        raise BadInput(f"players must be a positive number of windows along each axis, not {parts}")
    masks: list[Tensor] = []
    first = 0
    for point, split in zip(points, has_players, strict=True):
        shape = _shape(point)
        number = torch.zeros(shape, dtype=torch.long)
        for axis, size in enumerate(shape):
            cells = min(parts, size)
            cell = torch.arange(size) * cells // size
            number = number * cells + cell.reshape(-1, *[1] * (len(shape) - axis - 1))
        masks.append(number + first if split else torch.full(shape, -1))
        first += int(number.max()) + 1 if split else 0
    return tuple(masks)


def _parts(players: Any, scorer: Scorer) -> Sequence[Any]:
    """One mask for each leaf."""
    names = scorer.structure.names
    if names is None:
        return (players,)
    if isinstance(players, dict):
        named = cast("dict[Any, Any]", players)
        if set(named) == set(names):
            return [named[name] for name in names]
    if isinstance(players, tuple | list):
        parts = cast("Sequence[Any]", players)
        if len(parts) == len(names):
            return parts
    raise BadInput(f"players must hold one mask for each of the inputs {list(names)}")


def _mask(part: object, point: Tensor, label: str) -> Tensor:
    try:
        mask = torch.as_tensor(cast("Any", part)).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadInput(f"players of {label} are no mask of integers: {error}") from error
    if mask.is_floating_point() or mask.dtype == torch.bool:
        raise BadInput(
            f"players of {label} are {mask.dtype}: number them with integers, use .long()"
        )
    row = tuple(point.shape[1:])
    # A mask without channels gives a map of one channel, one that tells channels apart a map of all.
    shape = _shape(point)
    if row and mask.dim() == len(row) and mask.shape[0] > 1:
        shape = row
    try:
        return mask.long().expand(shape)
    except RuntimeError:
        raise BadInput(
            f"players of {label} have shape {tuple(mask.shape)}, which does not broadcast to a row's, "
            f"{row}"
        ) from None
