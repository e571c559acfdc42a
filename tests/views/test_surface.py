"""Figures of a network of two inputs: what they draw, by its numbers and colours."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from torch import nn

from tests.gradient.book import problem, radial, rows
from whyglass import BadInput, Legend, LogOdds, Several, linearise
from whyglass.views.colours import FOR, SIGNED, UNSIGNED
from whyglass.views.surface import response_contour, response_surface

SQUARE = (-2.0, 2.0, -2.0, 2.0)


def drawn(made: Figure) -> Any:
    """The main axes, after the figure could be rendered."""
    made.savefig(io.BytesIO(), format="png")
    return made.axes[0]


def boundary(axes: Any) -> np.ndarray:
    """The vertices of the line of the level."""
    contours = [c for c in axes.collections if type(c).__name__ == "QuadContourSet"]
    return contours[-1].get_paths()[0].vertices


def test_the_boundary_of_the_radial_network_is_a_circle() -> None:
    """Its radius is .9988 along the axes, to four digits; the figure interpolates between points."""
    found = boundary(drawn(response_contour(radial(), SQUARE, resolution=201)))
    radius = np.linalg.norm(found, axis=1)
    low, high = 0.5, 1.5
    while high - low > 1e-12:
        middle = (low + high) / 2
        inside = radial()(rows((0, middle))).item() > 0.5
        low, high = (middle, high) if inside else (low, middle)
    assert low == pytest.approx(0.9988, abs=5e-5)
    on_axis = radius[np.abs(found).min(1) < 1e-9]
    assert len(on_axis) >= 4
    np.testing.assert_allclose(on_axis, low, atol=1e-3)
    assert radius.std() < 0.01


def test_orange_lies_above_the_level_and_blue_below() -> None:
    axes = drawn(response_contour(radial(), SQUARE, resolution=9))
    mesh = axes.collections[0]
    score = np.asarray(mesh.get_array()).ravel()
    score = score[np.abs(score - 0.5) > 0.01]
    red, _, blue, _ = mesh.to_rgba(score).T
    assert ((red > blue) == (score > 0.5)).all()
    assert (score > 0.5).any()
    np.testing.assert_allclose(mesh.to_rgba(0.5), SIGNED(0.5))


def test_arrows_point_along_the_gradient_and_not_where_it_is_flat() -> None:
    axes = drawn(response_contour(radial(), SQUARE, arrows=5))
    (arrows,) = (c for c in axes.collections if isinstance(c, Quiver))
    places = torch.from_numpy(np.asarray(arrows.XY)).double()
    slope = linearise(radial(), places).gradient
    unit = slope / slope.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(np.stack([arrows.U, arrows.V], 1), unit.numpy(), atol=1e-9)
    assert len(places) == 24, "at the middle the gradient is zero: a dot"
    dots = axes.lines[-1].get_xydata()
    np.testing.assert_allclose(dots, [[0, 0]], atol=1e-12)


def test_the_surface_is_the_score_and_the_plane_touches_it_at_the_star() -> None:
    flat = linearise(radial(), rows((0, -1)))
    axes = drawn(response_surface(radial(), SQUARE, linearised=flat, resolution=5))
    (cells,) = axes.collections
    # Corners of all cells: 16 of the surface, then 16 of the plane.
    corners = np.asarray(cells._faces).reshape(32, 4, 3)
    for half, model in ((corners[:16], radial()), (corners[16:], flat)):
        points = torch.from_numpy(half.reshape(-1, 3)).double()
        score = model(points[:, :2]).detach().reshape(-1)
        torch.testing.assert_close(points[:, 2], score, rtol=0, atol=1e-6)
    (star,) = axes.lines
    np.testing.assert_allclose(np.ravel(star.get_data_3d()), [0, -1, 0.499523], atol=1e-6)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("$p_1$", "$p_2$")
    assert axes.get_zlabel() == "score"


def test_names_of_axes_and_score() -> None:
    legend = Legend(feature_names=["age", "dose"], class_names=["well", "ill"])
    for target, label in (("ill", "score of ill"), (LogOdds(0), "log-odds of well")):
        made = response_contour(problem(), SQUARE, level=0, target=target, legend=legend)
        axes = drawn(made)
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("age", "dose")
        assert made.axes[1].get_ylabel() == label
    made = response_contour(problem(), SQUARE, target=1, resolution=9)
    assert made.axes[1].get_ylabel() == "score of class 1"


def test_no_boundary_where_none_was_asked_for_or_none_is() -> None:
    for level in (None, 3.0):
        axes = drawn(response_contour(radial(), SQUARE, level=level, resolution=9))
        words = [text.get_text() for text in axes.get_legend().get_texts()]
        assert words == ["gradient's direction"]
    words = [
        text.get_text()
        for text in response_contour(radial(), SQUARE, linearised=linearise(radial(), rows((1, 0))))
        .axes[0]
        .get_legend()
        .get_texts()
    ]
    assert words == ["decision boundary, 0.5", "gradient's direction", "p* = (1, 0)"]


@pytest.mark.parametrize("draw", [response_surface, response_contour])
def test_a_constant_score_is_drawn(draw: Any) -> None:
    drawn(draw(lambda p: 0 * p.sum(1) + 0.5, SQUARE, resolution=5))
    if draw is response_contour:
        drawn(draw(lambda p: 0 * p.sum(1), SQUARE, resolution=5, level=None))


def test_colours_without_red_or_green() -> None:
    """Blue deepens with the surface, the plane is orange: the two stay apart for every eye."""
    shades = UNSIGNED(np.linspace(0, 1, 20))[:, :3]
    luminance = shades @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) < 0).all()
    assert (shades[:, 2] > shades[:, :2].max(1)).all()
    flat = linearise(radial(), rows((0, -1)))
    made = response_surface(radial(), SQUARE, linearised=flat, resolution=5)
    assert [text.get_text() for text in made.legends[0].get_texts()][1].startswith("linear model")
    assert FOR == "#c2570c"


def test_no_window_is_opened() -> None:
    before = plt.get_fignums()
    response_surface(radial(), SQUARE, resolution=5)
    response_contour(radial(), SQUARE, resolution=5)
    assert plt.get_fignums() == before


def three(p: torch.Tensor) -> torch.Tensor:
    return p[:, 0] + p[:, 2]


@pytest.mark.parametrize("draw", [response_surface, response_contour])
def test_what_cannot_be_drawn_is_refused(draw: Any) -> None:
    for model in (nn.Linear(3, 1), three):
        with pytest.raises(BadInput, match="two inputs"):
            draw(model, SQUARE)
    with pytest.raises(BadInput, match="predicted class changes"):
        draw(problem(), SQUARE)
    with pytest.raises(BadInput, match="Several"):
        draw(problem(), SQUARE, target=Several(0, 1))
    for extent in ((2, -2, -2, 2), (-2, 2, 0, 0), (-2, 2, 0, float("inf"))):
        with pytest.raises(BadInput, match="extent"):
            draw(radial(), extent)
    with pytest.raises(BadInput, match="resolution"):
        draw(radial(), SQUARE, resolution=0)
    two = linearise(radial(), rows((0, -1), (0, 0)))
    with pytest.raises(BadInput, match=r"\.row\(i\)"):
        draw(radial(), SQUARE, linearised=two)
    with pytest.raises(BadInput, match="3 features"):
        draw(radial(), SQUARE, legend=Legend(feature_names=["a", "b", "c"]))
