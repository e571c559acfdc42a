"""Real networks on real photographs: what the toy networks of the other tests cannot show."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.zoo.squeezenet import squeezenet1_0
from whyglass import CAM, Explanation, GradCAM, IntegratedGradients, Legend
from whyglass.data.image import Preprocess, class_names, read
from whyglass.data.loading import Loaded, load

DATA = Path(__file__).parents[2] / "shared" / "data"
PHOTOS = DATA / "imagenet_sample"
COUNT = 6

pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no data set at {PHOTOS.parent.name}")


def lite0() -> Loaded:
    pytest.importorskip("efficientnet_lite_pytorch", reason="extra demo is not installed")
    return load("efficientnet-lite0")


def squeezenet() -> Loaded:
    weights = DATA / "squeezenet1_0_imagenet" / "squeezenet1_0.safetensors"
    loaded = load(f"{squeezenet1_0.__module__}:squeezenet1_0", weights)
    return Loaded(loaded.model, loaded.name, Preprocess(227, 227))


def batch(loaded: Loaded) -> tuple[Tensor, Tensor]:
    """Photographs and their classes."""
    files = sorted(PHOTOS.glob("*.JPEG"))
    wnids = [line.split("\t")[1] for line in (PHOTOS / "classes.tsv").read_text().splitlines()]
    chosen = files[:: len(files) // COUNT][:COUNT]
    images = torch.stack([loaded.preprocess(read(file)) for file in chosen])
    return images, torch.tensor([wnids.index(file.name.split("_")[0]) for file in chosen])


@pytest.mark.parametrize(("network", "right"), [(lite0, 5), (squeezenet, 3)])
def test_predictions_and_integrated_gradients(network: object, right: int) -> None:
    loaded: Loaded = network()  # type: ignore[operator]
    images, classes = batch(loaded)
    black = loaded.preprocess.baseline("black")
    found = IntegratedGradients()(loaded.model, images, baseline=black)
    assert found.classes is not None
    assert int((found.classes == classes).sum()) >= right
    assert found.gradients <= 64 * COUNT
    gap = {check.name: check for check in found.checks}["completeness"]
    assert gap.verdict == "pass"
    assert gap.measured <= 0.01


def test_grad_cam_is_cam_over_z_on_lite0(tmp_path: Path) -> None:
    loaded = lite0()
    images, _ = batch(loaded)
    legend = Legend(class_names=class_names(PHOTOS / "classes.tsv"))
    cam = CAM()(loaded.model, images, legend=legend)
    grad = GradCAM(relu=False)(loaded.model, images)
    assert isinstance(cam.values, Tensor)
    assert isinstance(grad.values, Tensor)
    torch.testing.assert_close(grad.values, cam.values / 49, atol=1e-6, rtol=1e-5)
    cam.save(tmp_path / "cam.safetensors")
    assert Explanation.load(tmp_path / "cam.safetensors").targets == cam.targets
