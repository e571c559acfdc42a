"""The masker that fills absent pixels from the present ones around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups, feature_mask, with_every_row
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable

SWEEPS = 4


@dataclass
class Inpainted(Masker):
    """The masker of `whyglass.core.baseline.Inpaint`."""

    groups: FeatureGroups
    points: Leaves
    picture: int

    def __post_init__(self) -> None:
        point = self.points[self.picture]
        self._mask = self.groups.masks[self.picture].to(point.device)
        nobody = torch.zeros(1, self.groups.count, dtype=torch.bool, device=point.device)
        rows = torch.arange(len(point), device=point.device)
        self.start: Leaves | None = self(nobody, rows, rows[:1])

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, _ = with_every_row(present, rows, background_rows)
        made = [point[rows] for point in self.points]
        made[self.picture] = inpaint(made[self.picture], feature_mask(present, self._mask))
        return tuple(made)


def inpainted(points: Leaves, groups: FeatureGroups) -> Inpainted:
    """The masker of the one image among the inputs."""
    taking = [i for i, mask in enumerate(groups.masks) if bool((mask >= 0).any())]
    pictures = [i for i in taking if points[i].dim() == 4 and differentiable(points[i])]
    if len(taking) != 1 or len(pictures) != 1:
        shapes: Sequence[tuple[int, ...]] = [tuple(points[i].shape) for i in taking]
        raise BadInput(
            f"Inpaint fills one image (B, C, H, W) of floats, and the players are in {shapes}"
        )
    return Inpainted(groups, points, pictures[0])


def inpaint(images: Tensor, keep: Tensor) -> Tensor:
    """Images (E, C, H, W) with the pixels filled where `keep` (E, 1 or C, H, W) is false."""
    wide = images if images.dtype == torch.float64 else images.float()
    nothing = ~keep.flatten(2).any(2)[..., None, None]
    mean = wide.mean((2, 3), keepdim=True)
    filled = torch.where(nothing, mean, _fill(wide * keep, keep))
    return torch.where(keep, images, filled.to(images.dtype))


def _fill(images: Tensor, keep: Tensor) -> Tensor:
    """Fill from half the size, whose pixels are the means of those present, then let it diffuse.

    `images` are zero where nothing is present.
    """
    height, width = images.shape[2:]
    if height == width == 1 or bool(keep.all()):
        return images
    odd = (0, width % 2, 0, height % 2)
    share = F.avg_pool2d(F.pad(keep.to(images.dtype), odd), 2)
    total = F.avg_pool2d(F.pad(images, odd), 2)
    reached = share > 0
    coarse = _fill(torch.where(reached, total / share.clamp_min(0.25), total), reached)
    finer = F.interpolate(coarse, scale_factor=2, mode="bilinear")[:, :, :height, :width]
    filled = torch.where(keep, images, finer)
    position = torch.arange(height, device=images.device)[:, None]
    odd_ones = (position + torch.arange(width, device=images.device)) % 2 > 0
    for _ in range(SWEEPS):
        for half in (odd_ones, ~odd_ones):
            around = F.pad(filled, (1, 1, 1, 1), mode="replicate")
            mean = around[:, :, 1:-1, :-2] + around[:, :, 1:-1, 2:]
            mean = (mean + around[:, :, :-2, 1:-1] + around[:, :, 2:, 1:-1]) / 4
            filled = torch.where(keep | ~half, filled, mean)
    return filled
