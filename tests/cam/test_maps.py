"""Each class activation map against its paper's equations, at the layer's size and upsampled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.cam import naive
from tests.zoo.networks import ZOO, GlobalPoolCNN
from whyglass import (
    CAM,
    Blur,
    Contrast,
    CounterfactualGradCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    LayerCAM,
    Probability,
    ScoreCAM,
    Several,
)
from whyglass.cam.activation_map import ActivationMap


class Strided(nn.Module):
    """(B, 3, 8, 12) -> a layer of (B, 6, 4, 3) -> (B, 4): a map that must be stretched."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, stride=(1, 2), padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(72, 10), nn.Tanh(), nn.Linear(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _split(name: str) -> tuple[nn.Module, nn.Module, nn.Module, Tensor]:
    """The network, its part below the layer, its part above, and images."""
    if name == "same size":
        model = ZOO["gap-cnn"].make()
        assert isinstance(model, GlobalPoolCNN)
        lower = nn.Sequential(model.conv1, nn.ReLU(), model.conv2, nn.ReLU())
        upper = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), model.head)
        images = ZOO["gap-cnn"].inputs()
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            model = Strided().double()
        lower, upper = model.features, model.head
        generator = torch.Generator().manual_seed(2)
        images = torch.randn(3, 3, 8, 12, generator=generator, dtype=torch.float64)
    assert isinstance(images, Tensor)
    return model, lower, upper, images


SIZES = ["same size", "stretched"]
TARGETS: dict[str, tuple[Any, Any]] = {
    "logit": (2, lambda y: y[:, 2]),
    "probability": (Probability(1), lambda y: y.softmax(1)[:, 1]),
    "contrast": (Contrast(0, 3), lambda y: y[:, 0] - y[:, 3]),
}
METHODS: dict[str, tuple[ActivationMap, Any]] = {
    "grad-cam": (GradCAM(), naive.grad_cam),
    "without relu": (GradCAM(relu=False), lambda a, g: naive.grad_cam(a, g, relu=False)),
    "counterfactual": (CounterfactualGradCAM(), lambda a, g: naive.grad_cam(a, -g)),
    "plus plus": (GradCAMPlusPlus(), naive.grad_cam_plus_plus),
    "layer-cam": (LayerCAM(), naive.layer_cam),
    "eigen-cam": (EigenCAM(), lambda a, g: naive.eigen_cam(a)),
}


def _low(
    lower: nn.Module, upper: nn.Module, images: Tensor, score: Any, formula: Any
) -> np.ndarray:
    """(B, h, w): the naive map of each image at the layer's size."""
    activations = lower(images).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(score(upper(activations)).sum(), activations)
    pairs = zip(activations.detach().numpy(), gradients.numpy(), strict=True)
    return np.stack([formula(a, g) for a, g in pairs])


def _full(low: np.ndarray, images: Tensor) -> np.ndarray:
    return np.stack([naive.upsample(heat, tuple(images.shape[2:])) for heat in low])[:, None]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", METHODS)
def test_equations(size: str, target: str, method: str) -> None:
    model, lower, upper, images = _split(size)
    chosen, score = TARGETS[target]
    kind, formula = METHODS[method]
    result = kind(model, images, target=chosen)
    expected = _full(_low(lower, upper, images, score, formula), images)
    assert expected.any()
    np.testing.assert_allclose(result.values.numpy(), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.score, score(model(images)).detach())
    several = kind(model, images, target=Several(3, chosen))
    np.testing.assert_allclose(several.values[..., 1].numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("baseline", ["zero", "blur"])
def test_score_cam(size: str, target: str, baseline: str) -> None:
    model, lower, _, images = _split(size)
    chosen, score = TARGETS[target]
    absent = torch.zeros_like(images) if baseline == "zero" else Blur(2.0)(images)
    result = ScoreCAM()(
        model, images, target=chosen, baseline=None if baseline == "zero" else Blur(2.0)
    )

    def of(image: np.ndarray) -> float:
        with torch.no_grad():
            return score(model(torch.from_numpy(image)[None])).item()

    low = np.stack(
        [
            naive.score_cam(a, image, empty, of)
            for a, image, empty in zip(
                lower(images).detach().numpy(), images.numpy(), absent.numpy(), strict=True
            )
        ]
    )
    np.testing.assert_allclose(result.values.numpy(), _full(low, images), rtol=1e-9, atol=1e-12)
    # The image once for its activations, the baseline once, and each channel.
    assert result.evaluations == 3 * (2 + lower(images).shape[1])


@pytest.mark.parametrize("target", [0, 1, 2, 3])
def test_cam(target: int) -> None:
    model, lower, upper, images = _split("same size")
    head = upper[2]
    result = CAM()(model, images, target=target)
    expected = np.stack(
        [naive.cam(head.weight[target].detach().numpy(), a) for a in lower(images).detach().numpy()]
    )
    np.testing.assert_allclose(result.values[:, 0].numpy(), expected, rtol=1e-9, atol=1e-12)
    # Equation 1: the mean of the map and the bias make the logit.
    logit = result.values.mean((1, 2, 3)) + head.bias[target]
    torch.testing.assert_close(logit, model(images)[:, target])


@pytest.mark.parametrize("name", ["gap-cnn", "residual", "silu", "volume"])
def test_grad_cam_is_rectified_cam_over_z(name: str) -> None:
    """On nets that end in global average pooling, here with maps as large as the image."""
    network = ZOO[name]
    model, images = network.make(), network.inputs()
    assert isinstance(images, Tensor)
    z = images[0, 0].numel()
    for target in range(3):
        cam = CAM()(model, images, target=target).values
        torch.testing.assert_close(
            GradCAM()(model, images, target=target).values, cam.relu() / z, rtol=0, atol=1e-6
        )
        torch.testing.assert_close(
            CounterfactualGradCAM()(model, images, target=target).values,
            (-cam).relu() / z,
            rtol=0,
            atol=1e-6,
        )
        torch.testing.assert_close(
            GradCAM(relu=False)(model, images, target=target).values, cam / z, rtol=0, atol=1e-6
        )


def _small_map() -> nn.Module:
    """Layer 4 x 4 of an image 8 x 8, globally pooled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        ).double()


def test_grad_cam_is_rectified_cam_over_z_after_upsampling() -> None:
    """The map is rectified at the layer's size, then stretched; Z counts the layer's positions."""
    model, images = _small_map(), ZOO["gap-cnn"].inputs()
    lower, upper = model[:2], model[2:]
    for target in range(4):
        weights = model[4].weight[target].detach().numpy()
        low = _low(
            lower,
            upper,
            images,
            lambda y, t=target: y[:, t],
            lambda a, _g, w=weights: naive.cam(w, a),
        )
        np.testing.assert_allclose(
            CAM()(model, images, target=target).values.numpy(), _full(low, images), rtol=1e-9
        )
        np.testing.assert_allclose(
            GradCAM()(model, images, target=target).values.numpy(),
            _full(np.maximum(low, 0) / 16, images),
            rtol=0,
            atol=1e-6,
        )


def test_counterfactual_is_grad_cam_of_the_negated_score() -> None:
    network = ZOO["vgg"]
    model, images = network.make(), network.inputs()
    result = CounterfactualGradCAM()(model, images, target=1)
    negated = GradCAM()(model, images, target=lambda y: -y[:, 1])
    torch.testing.assert_close(result.values, negated.values)
    both = GradCAM(relu=False)(model, images, target=1).values
    plus = GradCAM()(model, images, target=1).values
    # At the layer's size the two are the parts of one map; stretching is linear.
    torch.testing.assert_close(plus - result.values, both)


def test_eigen_cam_does_not_see_the_class() -> None:
    network = ZOO["vgg"]
    maps = [EigenCAM()(network.make(), network.inputs(), target=c).values for c in range(4)]
    for other in maps[1:]:
        assert torch.equal(maps[0], other)


def test_eigen_cam_of_a_map_of_one_sign_is_not_negative() -> None:
    """The arbitrary sign of the singular vector, settled."""
    result = EigenCAM()(ZOO["vgg"].make(), ZOO["vgg"].inputs(8))
    assert (result.values.sum((1, 2, 3)) >= 0).all()


def test_a_score_that_does_not_depend_on_the_layer_gives_zeros_and_a_warning() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    model = model.double()
    with torch.no_grad():
        model[3].weight.zero_()
    result = GradCAM()(model, ZOO["gap-cnn"].inputs())
    assert not result.values.any()
    assert result.verdict == "warn"


def test_channels_that_are_constant_are_no_division_by_zero() -> None:
    model = _small_map()
    with torch.no_grad():
        model[0].weight[:3] = 0
    for method in (ScoreCAM(), GradCAMPlusPlus(), EigenCAM()):
        assert torch.isfinite(method(model, ZOO["gap-cnn"].inputs()).values).all()


def test_an_image_of_nothing() -> None:
    model = _small_map()
    with torch.no_grad():
        model[0].bias.zero_()
    black = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    for kind in (GradCAM, CAM, GradCAMPlusPlus, LayerCAM, EigenCAM, ScoreCAM):
        result = kind()(model, black)
        assert not result.values.any()
        assert result.verdict == "warn"
