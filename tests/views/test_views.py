"""Figures and the notebook's summary: what they draw, by its numbers and colours."""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor, nn

from whyglass import (
    RISE,
    BadInput,
    ExactShapley,
    Explanation,
    GradientXInput,
    Legend,
    LinearSHAP,
    PermutationShapley,
    Saliency,
    Several,
    SmoothGrad,
)
from whyglass.views.colours import SIGNED
from whyglass.views.figures import figure, photo, picture
from whyglass.views.images import borders
from whyglass.views.report import Case, Report

WEIGHTS = torch.zeros(1, 32, 32)
WEIGHTS[:, 4:12, 4:12], WEIGHTS[:, 20:28, 20:28] = 1.0, -1.0


def image_score(x: Tensor) -> Tensor:
    return (x * WEIGHTS).sum((1, 2, 3))


def explained() -> Explanation:
    legend = Legend(pixel_mean=(0.5,), pixel_std=(0.25,), titles=["a"])
    return GradientXInput()(image_score, torch.ones(1, 1, 32, 32), legend=legend)


def test_the_photograph_is_shown_with_its_normalisation_undone() -> None:
    np.testing.assert_allclose(photo(explained()), np.full((32, 32, 3), 0.75))


def test_the_map_is_the_values_and_its_colours_the_sign() -> None:
    shown = picture(explained())
    np.testing.assert_allclose(shown.heat, WEIGHTS[0].numpy())
    assert shown.top == 1
    assert shown.signed
    made = figure(explained())
    file = io.BytesIO()
    made.savefig(file, format="png")
    drawn = np.asarray(made.axes[0].images[0].get_array())
    for place, end in (((8, 8), 1.0), ((24, 24), 0.0)):
        np.testing.assert_allclose(drawn[place], SIGNED(end)[:3], atol=1e-6)
    assert np.ptp(drawn[16, 2]) < 1e-6, "no value, no colour"
    assert len(Image.open(file).getcolors(10**6) or ()) > 20


def test_a_map_of_levels_is_drawn_about_its_mean() -> None:
    """RISE's values are mean scores, all of them far from zero."""
    found = RISE(samples=100)(lambda x: 50 + image_score(x), torch.ones(1, 1, 32, 32))
    assert isinstance(found.values, Tensor)
    assert found.values.min() > 1
    shown = picture(found)
    np.testing.assert_allclose(shown.heat, (found.values - found.values.mean())[0, 0], atol=1e-6)
    made = figure(found)
    assert "lower than the map's mean" in made.axes[1].get_ylabel()
    assert "lower" not in figure(explained()).axes[1].get_ylabel()


def test_colours_stay_apart_without_red_or_green_and_darken_on_both_sides() -> None:
    ends = np.array([SIGNED(t)[:3] for t in (0.0, 0.25, 0.5, 0.75, 1.0)])
    luminance = ends @ np.array([0.2126, 0.7152, 0.0722])
    assert luminance[2] > luminance[1] > luminance[0]
    assert luminance[2] > luminance[3] > luminance[4]
    # In a dichromat's eye red and green fall together; blue against the rest does not.
    assert ends[1, 2] - ends[1, :2].mean() > 0.3 > ends[3, 2] - ends[3, :2].mean() + 0.3


def test_bars_carry_names_values_and_errors() -> None:
    legend = Legend(feature_names=["age", "größe", "<b>"])
    x = torch.tensor([[1.0, -2.0, 0.5]])
    made = figure(SmoothGrad(samples=8)(lambda x: (x**3).sum(1), x, legend=legend))
    axes = made.axes[0]
    assert {text.get_text() for text in axes.get_yticklabels()} == {"age", "größe", "<b>"}
    assert axes.patches
    assert any(getattr(part, "has_xerr", False) for part in axes.containers)
    assert "whiskers: 95% intervals" in axes.get_xlabel()


def test_tokens_keep_their_order() -> None:
    legend = Legend(tokens=[["what", "is", "it"]])
    embedded = torch.tensor([[[1.0, 1.0], [-3.0, 0.0], [0.0, 0.5]]])
    made = figure(GradientXInput()(lambda x: x.sum((1, 2)), embedded, legend=legend))
    axes = made.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["what", "is", "it"]
    assert "whiskers" not in axes.get_xlabel()
    widths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    assert widths == [2.0, -3.0, 0.5]


def test_rows_and_targets_are_chosen_and_checked() -> None:
    x = torch.rand(2, 3)
    two = Saliency()(lambda x: torch.stack([x.sum(1), -x.sum(1)], 1), x, target=Several(0, 1))
    assert "why 1?" in two.plot(1, target=1).axes[0].get_title()
    with pytest.raises(BadInput, match="row 2 is out of range"):
        two.plot(2)


def test_plotting_opens_no_window_and_registers_no_figure() -> None:
    before = plt.get_fignums()
    explained().plot()
    assert plt.get_fignums() == before


def test_notebook_summary_is_small_escaped_and_has_no_script() -> None:
    legend = Legend(class_names=["<script>alert(1)</script>", "b"])
    many = Saliency()(lambda x: x[:, :2], torch.rand(40, 2), target=0, legend=legend)
    page = many._repr_html_()
    assert len(page) < 200_000
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "37 more rows" in page
    assert "not flat" in page


def test_players_are_parted_by_lines_and_their_map_is_not_smoothed() -> None:
    """Two halves: the line between them runs down the middle, from top to bottom."""
    halves = (torch.arange(128) >= 64).long().expand(128, 128)
    x = torch.ones(1, 1, 128, 128)
    found = ExactShapley(players=halves)(lambda g: g[:, :, :, :64].mean((1, 2, 3)), x)
    shown = picture(found)
    assert shown.smoothing == 0
    np.testing.assert_array_equal(shown.players, halves.numpy())
    assert shown.heat[0, 63] > 0 == shown.heat[0, 64]
    made = figure(found)
    for drawn in made.axes[0].collections[:2]:
        ends = np.array(drawn.get_segments())  # pyright: ignore[reportAttributeAccessIssue]
        assert (ends[..., 0] == 63.5).all()
        assert sorted(ends[:, 0, 1]) == [row - 0.5 for row in range(128)]
    assert np.array(borders(halves.T.numpy()))[..., 1].tolist() == [[63.5, 63.5]] * 128


def test_single_pixels_and_methods_without_players_get_no_lines() -> None:
    x = torch.ones(1, 1, 4, 4)
    each = LinearSHAP()(lambda g: g.sum((1, 2, 3)), x)
    assert picture(each).players is None
    assert picture(explained()).players is None
    channels = torch.arange(3)[:, None, None].expand(3, 8, 8)
    apart = ExactShapley(players=channels)(lambda g: g.mean((1, 2, 3)), torch.ones(1, 3, 8, 8))
    assert picture(apart).players is None


def test_outlines_survive_a_file(tmp_path: Path) -> None:
    found = ExactShapley(players=2)(lambda g: g.mean((1, 2, 3)), torch.ones(1, 3, 8, 8))
    found.save(tmp_path / "one.safetensors")
    again = picture(Explanation.load(tmp_path / "one.safetensors")).players
    np.testing.assert_array_equal(again, picture(found).players)


def test_the_report_names_the_strongest_patch_with_its_interval() -> None:
    def model(g: Tensor) -> Tensor:
        return torch.stack(
            [0 * g[:, 0, 0, 0], (3 * g[:, 0, :4, :4].mean((1, 2)) + g.mean((1, 2, 3))).exp()], 1
        )

    found = PermutationShapley(players=4, budget=100)(model, torch.ones(1, 3, 16, 16), target=1)
    report = Report("m", "0")
    report.add(Case("a", [], [found]))
    best = int(found.player_values[0].argmax())
    value, error = found.player_values[0, best], found.player_std_error[0, best]
    page = report.html()
    assert f"16 patches; the strongest has {value:+.3g} ± {1.96 * error:.2g} (95% interval)" in page


def drawn(found: Explanation, row: int = 0) -> list[Axes]:
    """The axes of a figure that is drawn to its end."""
    made = found.plot(row)
    made.savefig(io.BytesIO(), format="png")
    return made.axes


@pytest.mark.parametrize("spatial", [(3, 17), (1, 24), (24, 1), (8, 8)])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_the_map_of_a_layer_lies_over_the_whole_image(spatial: tuple[int, int], layer: str) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.LazyLinear(2)
    )
    x = torch.rand(2, 3, *spatial)
    net(x)
    found = GradientXInput()(net.eval(), x, at=layer)
    assert picture(found).heat.shape == spatial
    assert "row 1 of 2" in drawn(found, 1)[0].get_title()


def test_a_layer_without_positions_is_bars() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    (axes,) = drawn(GradientXInput()(net, torch.rand(1, 3, 4, 4), at="1"))
    assert len(axes.patches) == 5


def test_every_input_has_a_panel() -> None:
    def model(image: Tensor, table: Tensor) -> Tensor:
        return image.sum((1, 2, 3)) + (table * torch.tensor([1.0, -2.0])).sum(1)

    axes = drawn(GradientXInput()(model, (torch.rand(1, 3, 8, 8), torch.ones(1, 2))))
    assert axes[0].images
    widths = sorted(patch.get_width() for patch in axes[1].patches)  # type: ignore[attr-defined]
    assert widths == [-2.0, 1.0]


def test_columns_without_a_bar_of_their_own_are_summed() -> None:
    slopes = torch.linspace(1, 2, 30)
    (axes,) = drawn(GradientXInput()(lambda x: x @ slopes, torch.ones(1, 30)))
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[-1] == "sum of 11 others"
    sums = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(sum(sums), float(slopes.sum()), rtol=1e-6)
    np.testing.assert_allclose(sums[-1], float(slopes.sort().values[:11].sum()), rtol=1e-6)


def test_embedded_ids_have_a_bar_each() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    found = GradientXInput()(net, torch.tensor([[7, 1, 3]]), at="0")
    (axes,) = drawn(found)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["id 7", "id 1", "id 3"]
    assert isinstance(found.values, Tensor)
    widths = [patch.get_width() for patch in axes.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(widths, found.values[0].sum(1).detach().numpy(), rtol=1e-6)


@pytest.mark.parametrize("shape", [(200,), (2, 200), (60, 3)])
def test_a_series_keeps_its_order(shape: tuple[int, ...]) -> None:
    first = drawn(GradientXInput()(lambda x: x.flatten(1).sum(1), torch.randn(1, *shape)))[0]
    assert first.get_xlabel() == "position"
    assert not first.patches


def test_a_volume_shows_the_slice_of_the_largest_values() -> None:
    x = torch.zeros(1, 1, 5, 8, 8)
    x[:, :, 3, 2:4, 2:4] = 1
    found = GradientXInput()(lambda v: v.sum((1, 2, 3, 4)), x)
    assert picture(found).caption.startswith("slice 3 of 5")
    np.testing.assert_allclose(picture(found).heat, x[0, 0, 3].numpy())
    assert drawn(found)


def test_a_scale_without_a_sign_has_one_end() -> None:
    unsigned, signed = Saliency()(image_score, torch.ones(1, 1, 32, 32)), explained()
    for found, ends in ((unsigned, "max"), (signed, "both")):
        bar = drawn(found)[1]
        assert bar._colorbar.extend == ends  # type: ignore[attr-defined]
        assert (bar.get_ylim()[0] == 0) == (found is unsigned)


@pytest.mark.parametrize("shape", [(6,), (30,), (200,), (12, 3), (2, 60)])
def test_nothing_speaks_against_where_no_value_is_negative(shape: tuple[int, ...]) -> None:
    x = torch.randn(1, *shape)
    for method, negative in ((Saliency(), False), (GradientXInput(), True)):
        first = drawn(method(lambda z: z.flatten(1).sum(1), x))[0]
        label = first.get_xlabel() + first.get_ylabel()
        assert ("against" in label) == negative
        assert ("importance" in label) != negative


def test_tokens_without_a_sign_have_none_on_their_axis() -> None:
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    unsigned = Saliency()(net, torch.tensor([[7, 1, 3]]), target=1, at="0")
    assert "against" not in drawn(unsigned)[0].get_xlabel()


def test_a_single_output_is_asked_for_its_score() -> None:
    found = GradientXInput()(nn.Linear(3, 1).eval(), torch.ones(1, 3))
    assert "why this score?" in drawn(found)[0].get_title()
