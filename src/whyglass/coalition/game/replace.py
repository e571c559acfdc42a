"""The masker that takes absent features from other rows as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups, feature_mask
from whyglass.core.inputs import Leaves


@dataclass
class Replace(Masker):
    """Absent features come from `others`: a row for each row explained, or a set for all."""

    groups: FeatureGroups
    points: Leaves
    others: Leaves
    shared: bool
    start: Leaves | None

    def __post_init__(self) -> None:
        self.background_size = len(self.others[0]) if self.shared else 1
        self.sample_size = len(self.others[0]) if self.shared else 0
        device = self.points[0].device
        self._masks = [mask.to(device) for mask in self.groups.masks]
        self._all = [
            None if bool((mask < 0).all()) else bool((mask >= 0).all())
            for mask in self.groups.masks
        ]
        # A leaf whose features are players in order needs no look-up.
        self._runs = [
            int(mask.flatten()[0])
            if torch.equal(mask.flatten(), torch.arange(mask.numel()) + mask.flatten()[0])
            else None
            for mask in self.groups.masks
        ]

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        made: list[Tensor] = []
        for point, other, mask, replaced, run in zip(
            self.points, self.others, self._masks, self._all, self._runs, strict=True
        ):
            here = point[rows]
            if replaced is None:
                made.append(here.repeat(len(present), *[1] * (here.dim() - 1)))
                continue
            if run is not None and replaced:
                keep = present[:, run : run + mask.numel()].reshape(-1, *mask.shape)
            else:
                keep = feature_mask(present, mask)
            away = other[background_rows][:, None] if self.shared else other[rows]
            made.append(torch.where(keep[:, None], here, away).flatten(0, 1))
        return tuple(made)

    def unchanged(self, rows: int, players: int) -> Tensor:
        differs: list[Tensor] = []
        for point, other in zip(self.points, self.others, strict=True):
            missing = other.isnan()
            if self.shared:
                # No row of a set differs where its smallest and its largest value are the input's.
                same = (point == other.amin(0)) & (point == other.amax(0))
                missing = missing.all(0)
            else:
                same = point == other
            differs.append(~(same | (point.isnan() & missing)))
        return self.groups.feature_means(tuple(differs)) == 0
