"""Guided backprop, deconvolution and guided Grad-CAM against their definitions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.networks import ZOO
from whyglass import BadInput, Deconvolution, GradCAM, GuidedBackprop, GuidedGradCAM, Saliency

DRAW = np.random.default_rng(0)
W1, W2 = DRAW.normal(size=(7, 5)), DRAW.normal(size=(3, 7))
X = torch.from_numpy(DRAW.normal(size=(4, 5)))


def network(gate: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    first, second = torch.from_numpy(W1), torch.from_numpy(W2)
    return lambda x: gate(gate(x @ first.T) @ second.T)


def naive(x: np.ndarray, target: int, gate: Callable, slope: Callable, guided: bool) -> np.ndarray:
    """Springenberg et al. (2015), figure 1; Zeiler & Fergus (2014), section 2.1."""
    first = W1 @ x
    second = W2 @ gate(first)
    back = np.eye(3)[target]
    back = np.maximum(back, 0) * (slope(second) if guided else 1)
    back = back @ W2
    back = np.maximum(back, 0) * (slope(first) if guided else 1)
    return back @ W1


GATES = {
    "relu": (torch.relu, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "module": (nn.ReLU(), lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "in place": (
        lambda z: F.relu(z, inplace=True), lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0
    ),
    "relu6": (F.relu6, lambda z: np.clip(z, 0, 6), lambda z: ((z > 0) & (z < 6)) * 1.0),
    "leaky": (lambda z: F.leaky_relu(z, 0.1), lambda z: np.where(z > 0, z, 0.1 * z),
              lambda z: np.where(z > 0, 1, 0.1)),
    "silu": (F.silu, lambda z: z / (1 + np.exp(-z)),
             lambda z: (1 + np.exp(-z) + z * np.exp(-z)) / (1 + np.exp(-z)) ** 2),
}  # fmt: skip


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("method", [GuidedBackprop(), Deconvolution()], ids=lambda m: m.name)
def test_equals_the_definition(gate: str, method: GuidedBackprop | Deconvolution) -> None:
    torch_gate, numpy_gate, slope = GATES[gate]
    found = method(network(torch_gate), X, target=1).values
    guided = isinstance(method, GuidedBackprop)
    expected = [naive(x, 1, numpy_gate, slope, guided) for x in X.numpy()]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_differs_from_the_plain_gradient_and_says_where() -> None:
    net = network(F.relu6)
    guided, plain = GuidedBackprop()(net, X, target=0), Saliency()(net, X, target=0)
    assert not torch.allclose(guided.values.abs(), plain.values)  # type: ignore[union-attr,arg-type]
    assert guided.notes == ("changed at relu6",)
    linear = GuidedBackprop()(lambda x: x.sum(1), X)
    assert "no gate was met" in linear.notes[0]


def test_guided_grad_cam_is_the_product() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU6(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).double().eval()  # fmt: skip
    images = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    found = GuidedGradCAM()(net, images, target=2)
    fine, coarse = (m(net, images, target=2).values for m in (GuidedBackprop(), GradCAM()))
    torch.testing.assert_close(found.values, fine * coarse)  # type: ignore[operator]
    assert found.at == "4 (relu)"
    assert any("changed at" in note for note in found.notes)


def test_guided_grad_cam_refuses_what_is_no_image() -> None:
    tokens = ZOO["tokens"]
    for at in (None, tokens.at):
        with pytest.raises(BadInput, match=r"lies over token ids|embedding"):
            GuidedGradCAM()(tokens.make(), tokens.inputs(), at=at)
