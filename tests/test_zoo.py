"""The zoo's real networks are built as they were trained: their logits, their accuracy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.zoo.resnet_cifar import MEAN, STD, resnet_cifar

DATA = Path(__file__).parents[2] / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the project")


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_cifar_resnets_give_the_recorded_logits(depth: int) -> None:
    stored = np.asarray(Image.open(DATA / "cifar10_test_subset" / "test_first2000.png"))
    images = torch.from_numpy(stored[:40].reshape(40, 32, 32, 3).copy()).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(part)[:, None, None] for part in (MEAN, STD))
    with torch.no_grad():
        found = resnet_cifar(depth, DATA / "cifar10_resnets")((images - mean) / std)
    with np.load(DATA / "cifar10_resnets" / "cifar10_test_logits.npz") as recorded:
        np.testing.assert_allclose(found, recorded[f"resnet{depth}"][:40], atol=1e-4)
        assert (found.argmax(1).numpy() == recorded["labels"][:40]).mean() >= 0.9


def test_the_digits_network_reads_the_test_digits() -> None:
    pytest.importorskip("h5py", reason="extra dev is not installed")
    from tests.zoo.digits import digits, mnist

    images, labels = mnist(DATA / "mnist")
    model = digits(DATA / "deeplift_mnist" / "keras2_mnist_cnn_allconv.h5")
    with torch.no_grad():
        right = (model(images).argmax(1) == labels).double().mean().item()
    assert right == pytest.approx(0.992, abs=0.0005)
