"""One explanation as a matplotlib Figure, in the form its data asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation
from whyglass.views.colours import AGAINST, FOR, SIGNED, limit, overlay

Array = NDArray[np.floating]
TOP_FEATURES = 20
# Players of fewer pixels than this are drawn without outlines, which would hide them.
SMALLEST_OUTLINED = 9


@dataclass(frozen=True)
class Picture:
    """A heat map and the photograph under it, ready to draw.

    `heat` is (H, W), summed over channels and smoothed by `smoothing` pixels; `photo` (H, W, 3). Of a
    map of levels it is the departure from their mean. `players` (H, W) numbers the patches that stood
    or fell together, if there are any.
    """

    heat: Array
    photo: Array
    top: float
    smoothing: float
    levels: bool = False
    players: NDArray[np.integer] | None = None

    @property
    def signed(self) -> bool:
        """Whether anything speaks against the target."""
        return bool((self.heat < 0).any())


def figure(explanation: Explanation, row: int = 0, target: int = 0) -> Figure:
    """The explanation of one row: a heat map over an image, bars or coloured tokens."""
    if not 0 <= row < len(explanation):
        raise BadInput(f"row {row} is out of range: the explanation has {len(explanation)} rows")
    values, inputs = _one(explanation, row, target)
    made = Figure(figsize=(6, 5.2), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots()
    if inputs.dim() == 3 and inputs.shape[0] in (1, 3) and values.dim() == 3:
        draw_image(made, axes, picture(explanation, row, target))
    elif explanation.legend.tokens is not None:
        words = list(explanation.legend.tokens[row])
        draw_bars(axes, words, values.reshape(len(words), -1).sum(1).numpy(), None, sort=False)
    else:
        _draw_features(explanation, axes, values, row, target)
    axes.set_title(heading(explanation, row, target), fontsize=9)
    return made


def heading(explanation: Explanation, row: int, target: int) -> str:
    """Method, target and score in a line."""
    score = explanation.score[row]
    score = score[target] if explanation.target.many else score
    return f"{explanation.method}\nwhy {explanation.targets[row][target]}? (score {score:.3g})"


def picture(explanation: Explanation, row: int = 0, target: int = 0) -> Picture:
    """What is drawn over an image (C, H, W)."""
    values, pixels = _one(explanation, row, target)
    heat = values.sum(0, keepdim=True)
    smoothing, players = 0.0, patches(explanation)
    if players is None and len(values) == len(pixels) and min(pixels.shape[1:]) >= 64:
        # A map of single pixels is too fine for the eye: what is shown is a local mean of it.
        smoothing = round(min(pixels.shape[1:]) / 100)
        heat = _smooth(heat, smoothing)
    array = (heat - heat.mean() if explanation.levels else heat)[0].numpy()
    return Picture(
        array, photo(explanation, row), limit(array), smoothing, explanation.levels, players
    )


def patches(explanation: Explanation) -> NDArray[np.integer] | None:
    """The player of each pixel (H, W): None without players, or where they are too small to see."""
    if explanation.players is None or explanation.player_values is None:
        return None
    mask = next((m for m in _all(explanation.players) if m.dim() == 3), None)
    if mask is None or not bool((mask == mask[:1]).all()):
        return None
    count = explanation.player_values.shape[1]
    return None if mask[0].numel() < SMALLEST_OUTLINED * count else mask[0].cpu().numpy()


def photo(explanation: Explanation, row: int = 0) -> Array:
    """The image of a row, (H, W, 3) in [0, 1], with the normalisation undone."""
    pixels = _leaf(explanation.inputs)[row].detach().cpu().double()
    mean, std = explanation.legend.pixel_mean, explanation.legend.pixel_std
    if mean is not None and std is not None:
        pixels = pixels * torch.tensor(std).double()[:, None, None]
        pixels = pixels + torch.tensor(mean).double()[:, None, None]
    elif float(pixels.min()) < 0 or float(pixels.max()) > 1:
        span = (pixels.max() - pixels.min()).clamp_min(1e-12)
        pixels = (pixels - pixels.min()) / span
    return pixels.clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0).numpy()


def draw_image(made: Figure, axes: Axes, shown: Picture) -> None:
    """Heat map, outlines with the sign, colour bar."""
    draw_overlay(axes, shown)
    bar = made.colorbar(
        ScalarMappable(Normalize(-shown.top, shown.top), SIGNED),
        ax=axes,
        shrink=0.85,
        extend="both",
    )
    label = "speaks against (dashed line)   |   speaks for (solid line)"
    if shown.levels:
        label = "lower than the map's mean (dashed line)   |   higher (solid line)"
    elif not shown.signed:
        bar.ax.set_ylim(0, shown.top)
        label = "importance, without a sign"
    bar.ax.set_ylabel(label, fontsize=8)


def draw_overlay(axes: Axes, shown: Picture) -> None:
    """The photograph in grey, the heat in colour, and lines that tell its sign without colour.

    Thin lines part the players.
    """
    height, width = shown.heat.shape
    grey = shown.photo @ np.array([0.299, 0.587, 0.114])
    axes.imshow(overlay(shown.heat, grey, shown.top), interpolation="lanczos")
    coarse = shown.heat
    if shown.players is None:
        blurred = _smooth(torch.from_numpy(coarse.copy())[None], max(height, width) / 40)
        coarse = blurred[0].numpy()
    else:
        edges = borders(shown.players)
        for colour, weight in (("white", 1.2), ("#555555", 0.5)):
            axes.add_collection(LineCollection(edges, colors=colour, linewidths=weight, alpha=0.8))
    top = float(np.abs(coarse).max())
    if top > 0:
        # White under a dark line shows on any ground.
        for sign, style in ((1, "solid"), (-1, (0, (3, 2)))):
            if float((sign * coarse).max()) > 0.5 * top:
                for colour, weight in (("white", 2.6), ("black", 1.0)):
                    axes.contour(
                        sign * coarse,
                        [0.5 * top],
                        colors=colour,
                        linewidths=weight,
                        linestyles="solid" if colour == "white" else [style],
                    )
    axes.set_axis_off()


def borders(players: NDArray[np.integer]) -> list[list[tuple[float, float]]]:
    """The sides of pixels (x, y) between one player and another."""
    below, right = players[1:] != players[:-1], players[:, 1:] != players[:, :-1]
    lines = [[(x - 0.5, y + 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(below)]
    return lines + [[(x + 0.5, y - 0.5), (x + 0.5, y + 0.5)] for y, x in np.argwhere(right)]


def draw_bars(
    axes: Axes, names: list[str], values: Array, errors: Array | None, sort: bool = True
) -> None:
    """One bar a feature, the largest first, with 95% intervals where they are known."""
    order = (
        np.argsort(-np.abs(values), kind="stable")[:TOP_FEATURES]
        if sort
        else np.arange(len(values))
    )
    place = np.arange(len(order))[::-1]
    colours = [FOR if values[i] >= 0 else AGAINST for i in order]
    axes.barh(
        place,
        values[order],
        color=colours,
        hatch=["" if values[i] >= 0 else "///" for i in order],
        edgecolor="white",
        xerr=None if errors is None else 1.96 * errors[order],
        ecolor="#444444",
        capsize=2,
    )
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(place, [names[i] for i in order], fontsize=8)
    meaning = "" if errors is None else "\nwhiskers: 95% intervals"
    axes.set_xlabel("speaks against (hatched)   |   speaks for" + meaning, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_features(
    explanation: Explanation, axes: Axes, values: Tensor, row: int, target: int
) -> None:
    given = explanation.legend.feature_names
    flat = values.reshape(-1)
    names = list(given) if given is not None and len(given) == len(flat) else _indices(values)
    errors = None
    if explanation.std_error is not None:
        leaf = _leaf(explanation.std_error)[row]
        leaf = leaf[..., target] if explanation.target.many else leaf
        errors = leaf.detach().cpu().double().reshape(-1).numpy()
    draw_bars(axes, names, flat.numpy(), errors)


def _indices(values: Tensor) -> list[str]:
    shape = tuple(values.shape)
    return [
        ", ".join(map(str, map(int, np.unravel_index(i, shape)))) for i in range(values.numel())
    ]


def _one(explanation: Explanation, row: int, target: int) -> tuple[Tensor, Tensor]:
    """Values and inputs of one row and target, float64."""
    values = _leaf(explanation.values)[row].detach().cpu().double()
    if explanation.target.many:
        values = values[..., target]
    return values, _leaf(explanation.inputs)[row].detach().cpu()


def _leaf(packed: object) -> Tensor:
    """The first tensor, or the first image among several."""
    if isinstance(packed, Tensor):
        return packed
    leaves = _all(packed)
    return next((leaf for leaf in leaves if leaf.dim() == 4), leaves[0])


def _all(packed: object) -> list[Tensor]:
    if isinstance(packed, Tensor):
        return [packed]
    return list(packed.values() if isinstance(packed, dict) else packed)  # type: ignore[arg-type]


def _smooth(images: Tensor, sigma: float) -> Tensor:
    """A Gaussian blur of (C, H, W), normalised at the border."""
    if sigma <= 0:
        return images
    reach = max(1, int(3 * sigma))
    place = torch.arange(-reach, reach + 1, dtype=images.dtype)
    kernel = torch.exp(-(place**2) / (2 * sigma**2))
    for shape, pad in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
        weights = kernel.reshape(shape)
        whole = F.conv2d(torch.ones_like(images[:, None]), weights, padding=pad)
        images = (F.conv2d(images[:, None], weights, padding=pad) / whole)[:, 0]
    return images
