"""Photographs: geometry, normalisation, baselines by name, files that are none."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from whyglass import BadInput, Blur, ExactShapley, Inpaint, MissingExtra, PerChannel
from whyglass.data.image import Preprocess, Superpixels, class_names, read


def test_short_side_centre_crop_and_units() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 30:50] = (255, 128, 0)
    plain = Preprocess(40, 20, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    found = plain(Image.fromarray(pixels))
    torch.testing.assert_close(
        found, torch.tensor([1.0, 128 / 255, 0.0])[:, None, None].expand(3, 20, 20)
    )
    normal = Preprocess(40, 20, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))(Image.fromarray(pixels))
    torch.testing.assert_close(normal[:, 0, 0], torch.tensor([2.0, (128 / 255 - 0.5) / 0.5, -0.5]))


def test_odd_sizes_and_grey() -> None:
    assert Preprocess(33, 32)(Image.new("RGB", (201, 67))).shape == (3, 32, 32)
    assert Preprocess(33, 32)(Image.new("RGBA", (5, 400))).shape == (3, 32, 32)
    assert Preprocess(28, 28, (0.0,), (1.0,))(Image.new("RGB", (60, 50))).shape == (1, 28, 28)


def test_baselines_by_name() -> None:
    prepare = Preprocess(8, 8)
    black = prepare.baseline("black")
    assert isinstance(black, PerChannel)
    assert isinstance(prepare.baseline("blur"), Blur)
    assert prepare.baseline("inpaint") == Inpaint()
    image = prepare(Image.new("RGB", (8, 8)))[None]
    torch.testing.assert_close(black(image), image)
    white = prepare.baseline("1")
    assert isinstance(white, PerChannel)
    torch.testing.assert_close(white(image), prepare(Image.new("RGB", (8, 8), "white"))[None])
    for wrong in ("mauve", "2", "-0.1", "nan"):
        with pytest.raises(BadInput, match=wrong):
            prepare.baseline(wrong)


@pytest.mark.parametrize(
    "settings",
    [{"size": 10, "crop": 20}, {"crop": 0}, {"mean": (0.5,)}, {"std": (1.0, 0.0, 1.0)},
     {"interpolation": "spline"}],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        Preprocess(**settings)  # type: ignore[arg-type]


def test_a_camera_held_sideways(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "side.jpg", exif=exif)
    assert read(tmp_path / "side.jpg").size == (10, 20)


def test_class_names_from_lines_and_columns(tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text(
        "0\tn01\tgreat_white_shark\n1\tn02\tWürger\n", encoding="utf-8"
    )
    assert class_names(tmp_path / "names.tsv") == ["great white shark", "Würger"]
    for bad in ("gone.txt", "empty.txt"):
        (tmp_path / "empty.txt").write_text("\n")
        with pytest.raises(BadInput, match=bad):
            class_names(tmp_path / bad)


class TestSuperpixels:
    """SLIC's patches as players."""

    def test_patches_of_even_colour(self) -> None:
        pytest.importorskip("skimage")
        image = torch.zeros(1, 3, 32, 32)
        image[:, 0, :, 16:] = 1
        mask = Superpixels(8)(image)
        assert mask.shape == (32, 32)
        assert mask.unique().tolist() == list(range(int(mask.max()) + 1))
        assert 4 <= mask.max() + 1 <= 16
        assert not set(mask[:, :14].flatten().tolist()) & set(mask[:, 18:].flatten().tolist())

    def test_as_players(self) -> None:
        pytest.importorskip("skimage")
        image = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        found = ExactShapley(players=Superpixels(4))(lambda x: x.sum((1, 2, 3)), image)
        mask = found.players[0]
        for number in mask.unique():
            torch.testing.assert_close(
                found.player_values[0, number], image[0, 0, mask == number].sum()
            )

    def test_of_one_image_only(self) -> None:
        with pytest.raises(BadInput, match="one image"):
            Superpixels()(torch.rand(2, 3, 8, 8))

    def test_without_scikit_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
        with pytest.raises(MissingExtra, match="pip install scikit-image"):
            Superpixels()(torch.rand(1, 3, 8, 8))
