"""Which masker a baseline asks for, and the one that takes tokens out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.coalition.game.conditional import table_of
from whyglass.coalition.game.inpainting import inpainted
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups, feature_mask, with_every_row
from whyglass.coalition.game.replace import Replace
from whyglass.core.baseline import Background, Baseline, Conditional, Deletion, Gaussian, Inpaint
from whyglass.core.baseline_rows import background, resolve
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.scorer import Scorer


@dataclass
class Delete(Masker):
    """The masker of `whyglass.core.baseline.Deletion`: tokens move up with what belongs to them."""

    groups: FeatureGroups
    points: Leaves
    pad: int
    text: int

    def __post_init__(self) -> None:
        self.start: Leaves | None = None

    def __call__(self, present: Tensor, rows: Tensor, background_rows: Tensor) -> Leaves:
        present, rows, _ = with_every_row(present, rows, background_rows)
        mask = self.groups.masks[self.text].to(present.device)
        keep = feature_mask(present, mask)
        order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)
        filled = torch.arange(keep.shape[1], device=keep.device) < keep.sum(1, keepdim=True)
        made: list[Tensor] = []
        for index, point in enumerate(self.points):
            here = point[rows]
            if point.shape == self.points[self.text].shape:
                fill = self.pad if index == self.text else 0
                here = torch.where(filled, here.gather(1, order), torch.full_like(here, fill))
            made.append(here)
        return tuple(made)


def masker(baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
    """The masker that a baseline asks for."""
    points = scorer.points
    if isinstance(baseline, Conditional | Gaussian):
        return table_of(baseline, points, groups)
    if isinstance(baseline, Inpaint):
        return inpainted(points, groups)
    leaves_with_players = [i for i, mask in enumerate(groups.masks) if bool((mask >= 0).any())]
    integers = [i for i in leaves_with_players if not differentiable(points[i])]
    if isinstance(baseline, Deletion):
        if leaves_with_players != integers or len(integers) != 1 or points[integers[0]].dim() != 2:
            kinds = [f"{points[i].dtype} {tuple(points[i].shape)}" for i in leaves_with_players]
            raise BadInput(
                "Deletion takes tokens out of one integer input (B, T), and the players are in "
                f"{', '.join(kinds)}: give the token ids, without at=, and players= that are in them "
                "alone"
            )
        return Delete(groups, points, baseline.pad, integers[0])
    if isinstance(baseline, Background):
        rows = scorer.activations(background(baseline, scorer))
        return Replace(groups, points, rows, True, tuple(row[:1] for row in rows))
    resolved = resolve(baseline, scorer, integers)
    starts = tuple(
        start if index in leaves_with_players else points[index]
        for index, start in enumerate(resolved)
    )
    return Replace(groups, points, starts, False, starts)
