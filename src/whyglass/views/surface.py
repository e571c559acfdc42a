"""The score of a network of two inputs over a plane: as a surface, and as a contour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray
from torch import Tensor, nn

from whyglass.core.errors import BadInput
from whyglass.core.legend import Legend
from whyglass.core.method import positive_integer
from whyglass.core.output import Selector
from whyglass.core.scorer import Scorer
from whyglass.core.target import Contrast, LogOdds, Probability, Several, Target
from whyglass.gradient.linearise import Linearised
from whyglass.views.colours import AGAINST, FOR, SIGNED, UNSIGNED

Array = NDArray[np.floating]
Extent = tuple[float, float, float, float]
INK = "#222222"
# A gradient below this share of the largest has no direction worth an arrow.
FLAT = 1e-3


@dataclass(frozen=True)
class Plane:
    """Scores on a grid: `p1` and `p2` (M, N), `score` (M, N), `slope` (M, N, 2), and their name."""

    p1: Array
    p2: Array
    score: Array
    slope: Array
    label: str


def response_surface(
    model: Callable[..., Any],
    extent: Extent,
    *,
    linearised: Linearised | None = None,
    target: Target = None,
    output: Selector = None,
    legend: Legend | None = None,
    resolution: int = 41,
) -> Figure:
    """The score over the plane of two inputs, with its tangent plane at a point if given.

    Units: the score's. Source: Hagan, Demuth, Beale & De Jesús, Neural Network Design, figures 9.3a
    and 9.4a.

    Args:
        model: a model of two inputs, (B, 2).
        extent: the plane's (left, right, bottom, top).
        linearised: the linear model of one row, of the same model and target; see `linearise`.
        target: which scalar of the output; one class all over the plane.
        output: picks a tensor out of the model's output.
        legend: its `feature_names` name the axes, its `class_names` the score.
        resolution: points along each side.

    Raises:
        BadInput: the model takes another number of inputs, the predicted class changes over the
            plane, or the extent is empty.

    >>> import torch
    >>> figure = response_surface(lambda p: torch.sigmoid(p.sum(1) - 1), (-2, 2, -2, 2), resolution=9)
    >>> figure.axes[0].get_zlabel()
    'score'
    """
    flat = _flat(linearised)
    seen = _plane(model, extent, resolution, target, output, legend)
    made = Figure(figsize=(6.4, 5.4))
    FigureCanvasAgg(made)
    axes: Any = made.add_axes((0.0, 0.02, 0.94, 0.92), projection="3d", computed_zorder=False)
    quads = _quads(seen.p1, seen.p2, seen.score)
    middles = quads[..., 2].mean(1)
    faces = UNSIGNED(Normalize(middles.min(), middles.max())(middles))
    edges = np.tile(to_rgba(AGAINST, 0.6), (len(quads), 1))
    keys: list[Any] = [Patch(facecolor=UNSIGNED(0.5), edgecolor=AGAINST, label="network")]
    heights, azimuth = seen.score, -60.0
    if flat is not None:
        linear = flat(_points(flat, seen)).double().cpu().numpy().reshape(seen.score.shape)
        planes = _quads(seen.p1, seen.p2, linear)
        quads, heights = np.concatenate([quads, planes]), np.stack([seen.score, linear])
        colour = np.tile(to_rgba(FOR, 0.45), (len(planes), 1))
        faces, edges = np.vstack([faces, colour]), np.vstack([edges, 0 * colour])
        keys.append(Patch(facecolor=FOR, alpha=0.45, label="linear model, touching at the star"))
        # Nearly along the plane, which from elsewhere covers the surface or is covered.
        rise = flat.gradient[0].tolist()
        azimuth = np.degrees(np.arctan2(rise[1], rise[0])) - 110 if any(rise) else azimuth
    # One collection of all cells: matplotlib orders by depth within a collection only.
    axes.add_collection3d(
        Poly3DCollection(quads, facecolors=faces, edgecolors=edges, linewidths=0.3)
    )
    if flat is not None:
        (x, y), z = flat.point[0].tolist(), flat.value.item()
        axes.plot([x], [y], [z], marker="*", markersize=17, color="white", mec=INK, zorder=10)
        keys.append(_star(x, y))
    axes.set_xlim(*extent[:2])
    axes.set_ylim(*extent[2:])
    low, high = heights.min(), heights.max()
    axes.set_zlim(low, high if high > low else low + 1)
    _name(axes, legend)
    axes.set_zlabel(seen.label)
    axes.view_init(elev=20, azim=azimuth)
    axes.set_box_aspect((1, 1, 1), zoom=0.97)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    if flat is not None:
        made.legend(handles=keys, loc="upper center", ncols=3, fontsize=9, frameon=False)
    return made


def response_contour(
    model: Callable[..., Any],
    extent: Extent,
    *,
    level: float | None = 0.5,
    linearised: Linearised | None = None,
    target: Target = None,
    output: Selector = None,
    legend: Legend | None = None,
    resolution: int = 101,
    arrows: int = 15,
) -> Figure:
    """The score over the plane of two inputs as colour, with where it is decided and where it rises.

    Orange lies above the level and blue below; the line between is the decision boundary. Arrows
    have one length and point along the gradient; where that is nearly zero there is a dot.
    Units: the score's. Source: Hagan, Demuth, Beale & De Jesús, Neural Network Design, figures 9.3b
    and 9.4b.

    Args:
        model: a model of two inputs, (B, 2).
        extent: the plane's (left, right, bottom, top).
        level: the score of the decision boundary: 0.5 for a probability, 0 for a logit, None for no
            boundary.
        linearised: marks its point with a star.
        target: which scalar of the output; one class all over the plane.
        output: picks a tensor out of the model's output.
        legend: its `feature_names` name the axes, its `class_names` the score.
        resolution: points along each side.
        arrows: arrows along each side.

    Raises:
        BadInput: as for `response_surface`.

    >>> import torch
    >>> figure = response_contour(lambda p: torch.sigmoid(p.sum(1) - 1), (-2, 2, -2, 2), resolution=9)
    >>> figure.axes[1].get_ylabel()
    'score'
    """
    flat = _flat(linearised)
    positive_integer("arrows", arrows)
    seen = _plane(model, extent, resolution, target, output, legend)
    slopes = _plane(model, extent, arrows, target, output, legend, slopes=True)
    made = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots()
    low, high = float(seen.score.min()), float(seen.score.max())
    scale, colours = _around(level, low, high)
    axes.pcolormesh(seen.p1, seen.p2, seen.score, cmap=colours, norm=scale, shading="gouraud")
    bar = made.colorbar(ScalarMappable(scale, colours), ax=axes, shrink=0.85)
    if high > low:
        bar.ax.set_ylim(low, high)
    bar.ax.set_ylabel(seen.label)
    keys: list[Any] = []
    if level is not None and low < level < high:
        for colour, width in (("white", 4.0), (INK, 2.0)):
            axes.contour(
                seen.p1, seen.p2, seen.score, [level], colors=colour, linewidths=width, zorder=3
            )
        bar.ax.axhline(level, color=INK, linewidth=2)
        keys.append(Line2D([], [], color=INK, linewidth=2, label=f"decision boundary, {level:g}"))
    keys.append(_arrows(axes, slopes))
    if flat is not None:
        x, y = flat.point[0].tolist()
        axes.plot(x, y, marker="*", markersize=17, color="white", mec=INK, zorder=5)
        keys.append(_star(x, y))
    _name(axes, legend)
    axes.set_xlim(*extent[:2])
    axes.set_ylim(*extent[2:])
    axes.legend(
        handles=keys,
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=3,
        fontsize=9,
        frameon=False,
    )
    return made


def _around(level: float | None, low: float, high: float) -> tuple[Normalize, Any]:
    """A scale of colours from low to high, or with the level in its middle."""
    if level is None:
        return Normalize(low, high), UNSIGNED
    reach = max(high - level, level - low) or 1.0
    return Normalize(level - reach, level + reach), SIGNED


def _plane(
    model: Callable[..., Any],
    extent: Extent,
    resolution: int,
    target: Target,
    output: Selector,
    legend: Legend | None,
    slopes: bool = False,
) -> Plane:
    positive_integer("resolution", resolution)
    left, right, bottom, top = extent
    if not (left < right and bottom < top) or not np.isfinite(extent).all():
        raise BadInput(
            f"extent {extent} must be (left, right, bottom, top), left < right and so on"
        )
    if isinstance(target, Several):
        raise BadInput("target Several(...) makes many surfaces: draw one target a time")
    # Arrows stand in the middles of equal parts, so that none sits on the frame.
    along = (np.arange(resolution) + 0.5) / resolution if slopes else np.linspace(0, 1, resolution)
    p1, p2 = np.meshgrid(left + (right - left) * along, bottom + (top - bottom) * along)
    grid = torch.from_numpy(np.stack([p1.ravel(), p2.ravel()], 1)).to(_like(model))
    names = (legend or Legend()).class_names
    try:
        with torch.no_grad():
            model(grid[:1].clone())
    except (RuntimeError, IndexError) as error:
        raise BadInput(f"the model must take two inputs a row, (B, 2): {error}") from error
    scorer = Scorer(model, grid, target=target, output=output, class_names=names)
    here = scorer.at_inputs(slopes)
    classes = scorer.target.classes()
    if classes is not None and bool((classes != classes[0]).any()):
        raise BadInput("the predicted class changes over the plane: say which with target=")
    score = here.scores.double().cpu().numpy().reshape(p1.shape)
    slope = np.zeros((*p1.shape, 2))
    if slopes:
        slope = here.gradients[0].double().cpu().numpy().reshape(slope.shape)
    return Plane(p1, p2, score, slope, _label(scorer, target, names))


def _label(scorer: Scorer, target: Target, names: Sequence[str] | None) -> str:
    """What is drawn upwards."""
    name = scorer.target.labels()[0][0]
    if isinstance(target, Probability | LogOdds | Contrast) or callable(target):
        return name
    if names:
        return f"score of {name}"
    return "score" if target is None else f"score of class {name}"


def _like(model: Callable[..., Any]) -> Tensor:
    """A number of the kind and on the device that the model takes."""
    if isinstance(model, nn.Module):
        parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
        if parameter is not None:
            return parameter
    return torch.zeros(())


def _flat(linearised: Linearised | None) -> Linearised | None:
    if linearised is not None and tuple(linearised.point.shape) != (1, 2):
        raise BadInput(
            f"linearised has points of shape {tuple(linearised.point.shape)}, and one row of two "
            "inputs can be drawn: choose one with .row(i)"
        )
    return linearised


def _points(flat: Linearised, seen: Plane) -> Tensor:
    return torch.from_numpy(np.stack([seen.p1.ravel(), seen.p2.ravel()], 1)).to(flat.point)


def _quads(p1: Array, p2: Array, height: Array) -> Array:
    """(Q, 4, 3): the corners of each cell of the grid."""
    corner = np.stack([p1, p2, height], -1)
    cells = (corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1])
    return np.stack(cells, 2).reshape(-1, 4, 3)


def _arrows(axes: Axes, seen: Plane) -> Line2D:
    size = np.linalg.norm(seen.slope, axis=-1)
    steep = size > FLAT * size.max()
    unit = seen.slope[steep] / size[steep][:, None]
    axes.quiver(
        seen.p1[steep],
        seen.p2[steep],
        unit[:, 0],
        unit[:, 1],
        angles="xy",
        pivot="mid",
        facecolor=INK,
        edgecolor="white",
        linewidth=0.5,
        scale=len(seen.p1) * 1.4,
        width=0.005,
        zorder=4,
    )
    axes.plot(seen.p1[~steep], seen.p2[~steep], ".", color=INK, markersize=4, zorder=4)
    arrow = r"$\rightarrow$"
    return Line2D(
        [], [], color=INK, marker=arrow, linestyle="", markersize=12, label="gradient's direction"
    )


def _star(x: float, y: float) -> Line2D:
    label = f"p* = ({x:.3g}, {y:.3g})"
    return Line2D(
        [], [], marker="*", linestyle="", markersize=14, color="white", mec=INK, label=label
    )


def _name(axes: Any, legend: Legend | None) -> None:
    names: Sequence[str] = (legend or Legend()).feature_names or ("$p_1$", "$p_2$")
    if len(names) != 2:
        raise BadInput(f"legend names {len(names)} features, and there are two")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
