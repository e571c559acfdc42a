"""The logits of a class over a region of the output, for segmentation networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whyglass.core.entry import Entry, Rows, class_index, require_names
from whyglass.core.errors import BadInput
from whyglass.core.inputs import take_rows


@dataclass(frozen=True, eq=False)
class Region:
    r"""The logit of a class over a region of the image: output (B, C, H, W) of a segmentation network.

    .. math:: S = \sum_{p \in M} z_{c,p}

    or with `reduce="mean"` the mean. `mask` is M, boolean, (H, W) or one a row (B, H, W), in the size
    of the output, which is often coarser than the image; by default it holds the places where the
    class wins at the input, and does not move afterwards. `of` is the class, number or name. Outputs
    (B, C, L) and (B, C, D, H, W) are taken alike. `Contrast` takes regions.
    """

    of: int | str
    mask: Tensor | None = None
    reduce: Literal["sum", "mean"] = "sum"


class RegionEntry(Entry):
    """The logits of a class over a mask."""

    def __init__(self, region: Region, rows: int, names: Sequence[str] | None, name: str) -> None:
        self.rows, self.names, self.region = rows, list(names or ()), region
        self._class = class_index(region.of, rows, names, f"{name}: Region of")
        self._mask: Tensor | None = None
        if region.reduce not in ("sum", "mean"):
            raise BadInput(f'Region reduce must be "sum" or "mean", not {region.reduce!r}')
        mask: Any = region.mask
        if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool):
            kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise BadInput(f"Region mask must be a boolean tensor (H, W), not {kind}: use mask > 0")

    def bind(self, output: Tensor, rows: Rows) -> None:
        axes = output.shape[1:]
        if len(axes) < 2:
            raise BadInput(
                f"Region needs an output (B, classes, H, W) and this one has shape "
                f"{tuple(output.shape)}: give the class alone, target={self.region.of!r}"
            )
        require_names(self.names, axes[0])
        high = int(self._class.max())
        if int(self._class.min()) < 0 or high >= axes[0]:
            raise BadInput(f"Region of {high} is out of range: the output has {axes[0]} classes")
        if self._mask is None:
            self._mask = torch.zeros(self.rows, *axes[1:], dtype=torch.bool)
        if self.region.mask is None:
            winners = output.argmax(1).cpu()
            classes = take_rows(self._class, rows).reshape(-1, *[1] * (winners.dim() - 1))
            self._mask[rows] = winners == classes
        else:
            self._mask[rows] = self._rows_of_mask(self.region.mask, axes[1:])[rows]
        filled = take_rows(self._mask, rows).flatten(1).any(1)
        if not bool(filled.all()):
            row = int(torch.arange(self.rows)[rows][~filled][0])
            what = "wins nowhere" if self.region.mask is None else "has an empty mask"
            raise BadInput(
                f"class {self.region.of!r} of Region {what} in row {row}: give a mask that holds one "
                "place or more"
            )

    def _rows_of_mask(self, mask: Tensor, size: torch.Size) -> Tensor:
        fits = mask.shape == size or (len(mask) == self.rows and mask.shape[1:] == size)
        if not fits:
            raise BadInput(
                f"Region mask has shape {tuple(mask.shape)} and the output's classes cover "
                f"{tuple(size)}: bring it to that size, for example torch.nn.functional.interpolate("
                f"mask[None, None].float(), {tuple(size)})[0, 0] > 0.5"
            )
        return mask.cpu().expand(self.rows, *size)

    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        assert self._mask is not None
        mask = take_rows(self._mask, rows).to(output.device)
        chosen = take_rows(self._class, rows).to(output.device)
        logits = output[torch.arange(len(output), device=output.device), chosen]
        total = torch.where(mask, logits, torch.zeros_like(logits)).flatten(1).sum(1)
        return total if self.region.reduce == "sum" else total / mask.flatten(1).sum(1)

    def label(self, row: int) -> str:
        index = int(self._class[row])
        name = self.names[index] if index < len(self.names) else str(index)
        where = "where it wins" if self.region.mask is None else "over a region"
        return f"{name} {where}"
