"""A heat map over an image, and the outlines that tell its sign without colour."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.explanation import Explanation, Legend
from whyglass.views.colours import NO_SIGN, SIGNED, limit, overlay

Array = NDArray[np.floating]
# Players of fewer pixels than this are drawn without outlines, which would hide them.
SMALLEST_OUTLINED = 9
# Contours need two rows and two columns.
SMALLEST_CONTOURED = 2


@dataclass(frozen=True)
class Picture:
    """A heat map and the photograph under it, ready to draw.

    `heat` is (H, W), summed over channels and smoothed by `smoothing` pixels; `photo` (H, W, 3). Of a
    map of levels it is the departure from their mean. `players` (H, W) numbers the patches that stood
    or fell together, if there are any. `caption` says what part of the input is shown.
    """

    heat: Array
    photo: Array
    top: float
    smoothing: float
    levels: bool = False
    players: NDArray[np.integer] | None = None
    caption: str = ""

    @property
    def signed(self) -> bool:
        """Whether anything speaks against the target."""
        return bool((self.heat < 0).any())


def picture_of(
    values: Tensor,
    pixels: Tensor,
    legend: Legend,
    levels: bool = False,
    players: NDArray[np.integer] | None = None,
) -> Picture:
    """Values (C', [D,] H', W') over an image (C, [D,] H, W); the map of a layer is enlarged to fit.

    Of a volume the slice is shown where the values are largest.
    """
    heat, caption = values.sum(0, keepdim=True), ""
    if heat.shape[1:] != pixels.shape[1:]:
        mode = "trilinear" if pixels.dim() == 4 else "bilinear"
        heat = F.interpolate(heat[None], pixels.shape[1:], mode=mode, align_corners=False)[0]
    if pixels.dim() == 4:
        depth = int(heat.abs().sum((0, 2, 3)).argmax())
        caption = f"slice {depth} of {pixels.shape[1]}, where the values are largest"
        heat, pixels = heat[:, depth], pixels[:, depth]
    smoothing = 0.0
    if players is None and values.shape == pixels.shape and min(pixels.shape[1:]) >= 64:
        # A map of single pixels is too fine for the eye: what is shown is a local mean of it.
        smoothing = round(min(pixels.shape[1:]) / 100)
        heat = smooth(heat, smoothing)
    array = (heat - heat.mean() if levels else heat)[0].numpy()
    shown = photograph(pixels, legend)
    return Picture(array, shown, limit(array), smoothing, levels, players, caption)


def photograph(pixels: Tensor, legend: Legend) -> Array:
    """An image (C, H, W) as (H, W, 3) in [0, 1], with the normalisation undone."""
    pixels = pixels.detach().cpu().double()
    mean, std = legend.pixel_mean, legend.pixel_std
    if mean is not None and std is not None:
        pixels = pixels * torch.tensor(std).double()[:, None, None]
        pixels = pixels + torch.tensor(mean).double()[:, None, None]
    elif float(pixels.min()) < 0 or float(pixels.max()) > 1:
        span = (pixels.max() - pixels.min()).clamp_min(1e-12)
        pixels = (pixels - pixels.min()) / span
    if len(pixels) not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    return pixels.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()


def patches(explanation: Explanation) -> NDArray[np.integer] | None:
    """The player of each pixel (H, W): None without players, or where they are too small to see."""
    if explanation.players is None or explanation.player_values is None:
        return None
    packed = explanation.players
    masks = [packed] if isinstance(packed, Tensor) else list(_entries(packed))
    mask = next((m for m in masks if m.dim() == 3), None)
    if mask is None or not bool((mask == mask[:1]).all()):
        return None
    count = explanation.player_values.shape[1]
    return None if mask[0].numel() < SMALLEST_OUTLINED * count else mask[0].cpu().numpy()


def _entries(packed: tuple[Tensor, ...] | dict[str, Tensor]) -> tuple[Tensor, ...]:
    return tuple(packed.values()) if isinstance(packed, dict) else packed


def draw_image(figure: Figure, axes: Axes, shown: Picture) -> None:
    """Heat map, outlines with the sign, colour bar."""
    draw_overlay(axes, shown)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-shown.top, shown.top), SIGNED),
        ax=axes,
        shrink=0.85,
        extend="both" if shown.signed else "max",
    )
    label = "speaks against (dashed line)   |   speaks for (solid line)"
    if shown.levels:
        label = "lower than the map's mean (dashed line)   |   higher (solid line)"
    elif not shown.signed:
        bar.ax.set_ylim(0, shown.top)
        label = NO_SIGN
    bar.ax.set_ylabel(label, fontsize=8)
    if shown.caption:
        axes.text(0, -0.02, shown.caption, transform=axes.transAxes, fontsize=8, va="top")


def draw_overlay(axes: Axes, shown: Picture) -> None:
    """The photograph in grey, the heat in colour, and lines that tell its sign without colour.

    Thin lines part the players.
    """
    height, width = shown.heat.shape
    grey = shown.photo @ np.array([0.299, 0.587, 0.114])
    axes.imshow(overlay(shown.heat, grey, shown.top), interpolation="lanczos")
    coarse = shown.heat
    if shown.players is None:
        blurred = smooth(torch.from_numpy(coarse.copy())[None], max(height, width) / 40)
        coarse = blurred[0].numpy()
    else:
        edges = borders(shown.players)
        for colour, weight in (("white", 1.2), ("#555555", 0.5)):
            axes.add_collection(LineCollection(edges, colors=colour, linewidths=weight, alpha=0.8))
    axes.set_axis_off()
    if min(height, width) >= SMALLEST_CONTOURED:
        _draw_contours(axes, coarse)


def _draw_contours(axes: Axes, heat: Array) -> None:
    """Lines at half the largest value: solid for, dashed against."""
    top = float(np.abs(heat).max())
    # White under a dark line shows on any ground.
    for sign, style in ((1, "solid"), (-1, (0, (3, 2)))):
        if top > 0 and float((sign * heat).max()) > 0.5 * top:
            for colour, weight in (("white", 2.6), ("black", 1.0)):
                axes.contour(
                    sign * heat,
                    [0.5 * top],
                    colors=colour,
                    linewidths=weight,
                    linestyles="solid" if colour == "white" else [style],
                )


def borders(players: NDArray[np.integer]) -> list[list[tuple[float, float]]]:
    """The sides of pixels (x, y) between one player and another."""
    below, right = players[1:] != players[:-1], players[:, 1:] != players[:, :-1]
    lines = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(below)]
    return lines + [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(right)]


def smooth(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of (C, H, W), normalised at the border."""
    if sigma <= 0:
        return images
    reach = max(1, int(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    for shape, pad in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
        weights = kernel.reshape(shape)
        whole = F.conv2d(torch.ones_like(images[:, None]), weights, padding=pad)
        images = (F.conv2d(images[:, None], weights, padding=pad) / whole)[:, 0]
    return images
