"""Maps over signals, volumes and sequences, and over one of several inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cam import naive
from tests.zoo.families import FAMILIES
from whyglass import (
    CAM,
    METHODS,
    BadInput,
    EigenCAM,
    GradCAM,
    GuidedGradCAM,
    LayerCAM,
    Method,
    ScoreCAM,
)
from whyglass.cam.activation_map import ActivationMap

F64 = torch.float64
MAPS = [kind for kind in METHODS.values() if kind.family == "cam" or kind.name == "guided-grad-cam"]


class Body(nn.Module):
    """Two convolutions along `axes` axes, the second with stride 2, pooled globally."""

    def __init__(self, axes: int, seed: int = 0) -> None:
        super().__init__()
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[axes]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = kind(2, 6, 3, padding=1)
            self.second = kind(6, 8, 3, stride=2, padding=1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(F.relu(self.first(x)))).flatten(2).mean(2)


class Fusion(nn.Module):
    """A convolutional body beside a table, or beside another body, under one linear layer."""

    def __init__(self, axes: int = 2, other: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.other = Body(axes), other or nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(9)
            self.head = nn.Linear(16, 3)
        self.double().eval()

    def forward(self, image: Tensor, other: Tensor) -> Tensor:
        return self.head(torch.cat([self.body(image), self.other(other)], 1))


class Words(nn.Module):
    """Token ids as their mean embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embedding(ids).mean(1)


def _random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("kind", MAPS)
def test_a_signal_is_an_image_one_pixel_high(kind: type[Method]) -> None:
    line, plane = Body(1), Body(2)
    for one, other in zip(line.parameters(), plane.parameters(), strict=True):
        with torch.no_grad():
            other.zero_()
            if one.dim() > 1:
                other[:, :, 1] = one
            else:
                other.copy_(one)
    plane.second.stride = (1, 2)
    signals = _random(3, 2, 14)
    head = _random(8, 3)
    values = kind()(lambda x: line(x) @ head, signals, target=1).values
    expected = kind()(lambda x: plane(x) @ head, signals[:, :, None], target=1).values
    assert isinstance(values, Tensor)
    assert isinstance(expected, Tensor)
    assert values.shape[2:] == signals.shape[2:]
    torch.testing.assert_close(values, expected[:, :, 0])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(0, 99))
def test_the_equation_along_any_number_of_axes(axes: int, seed: int) -> None:
    """Grad-CAM against the naive version, whose formula knows no axes."""
    body, head = Body(axes, seed), _random(8, 3, seed=seed)
    inputs = _random(2, 2, *(4, 6, 8)[:axes], seed=seed)
    values = GradCAM()(lambda x: body(x) @ head, inputs, target=2).values
    assert isinstance(values, Tensor)
    with torch.no_grad():
        activations = F.relu(body.second(F.relu(body.first(inputs))))
    slope = head[:, 2] / activations[0, 0].numel()
    for row in range(2):
        gradient = slope.reshape(-1, *[1] * axes).expand_as(activations[row])
        low = naive.grad_cam(activations[row].numpy(), gradient.numpy())
        full = naive.upsample(low, tuple(inputs.shape[2:]))
        torch.testing.assert_close(values[row, 0], torch.from_numpy(full))


@pytest.mark.parametrize("kind", MAPS)
def test_time_may_come_first(kind: type[Method]) -> None:
    """A sequence (B, T, F) is transposed by the network, and the map lies along T."""
    body, head = Body(1), _random(8, 3)
    signals = _random(3, 2, 14)
    expected = kind()(lambda x: body(x) @ head, signals, target=1).values
    assert isinstance(expected, Tensor)
    spellings: list[Any] = [
        lambda x: x.transpose(1, 2),
        lambda x: x.permute(0, 2, 1),
        lambda x: x.mT,
        lambda x: torch.einsum("btf->bft", x),
    ]
    for swapped in spellings:
        values = kind()(lambda x, s=swapped: body(s(x)) @ head, signals.mT, target=1).values
        torch.testing.assert_close(values, expected.mT)


@pytest.mark.parametrize("kind", MAPS)
def test_a_signal_without_channels(kind: type[Method]) -> None:
    body, head = Body(1), _random(8, 3)
    signals = _random(3, 14)
    values = kind()(lambda x: body(torch.stack([x, x], 1)) @ head, signals, target=1).values
    assert isinstance(values, Tensor)
    assert values.shape == signals.shape
    if kind.family == "cam":
        both = signals[:, None].expand(-1, 2, -1).contiguous()
        expected = kind()(lambda x: body(x) @ head, both, target=1).values
        assert isinstance(expected, Tensor)
        if kind is not ScoreCAM:
            torch.testing.assert_close(values, expected[:, 0])


class ChannelsLast(nn.Module):
    """A block as in ConvNeXt and Swin: (B, H, W, C) inside."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.patch = nn.Conv2d(2, 6, 2, stride=2)
            self.norm, self.linear = nn.LayerNorm(6), nn.Linear(6, 6)
            self.head = nn.Linear(6, 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = x + F.gelu(self.linear(self.norm(x)))
        return self.head(x.mean((1, 2)))


@pytest.mark.parametrize("size", [(8, 12), (12, 12)])
@pytest.mark.parametrize("kind", [GradCAM, LayerCAM, EigenCAM])
def test_channels_may_come_last(kind: type[ActivationMap], size: tuple[int, int]) -> None:
    """Width 6 is also the number of channels: the operations tell, where the shape does not."""
    model, images = ChannelsLast(), _random(2, 2, *size)
    result = kind()(model, images, target=1)
    with torch.no_grad():
        x = model.patch(images).permute(0, 2, 3, 1)
        x = (x + F.gelu(model.linear(model.norm(x)))).permute(0, 3, 1, 2)
    slopes = (model.head.weight[1] / x[0, 0].numel())[None, :, None, None].expand_as(x).detach()
    low = kind().heat(x, slopes)
    full = F.interpolate(low[:, None], size, mode="bilinear", align_corners=False)
    torch.testing.assert_close(result.values, full)
    at = kind()(model, images, target=1, at="linear")
    assert any(f"{size[0] // 2} x {size[1] // 2}" in note for note in at.notes)


CASES: dict[str, Any] = {
    "table": (lambda: Fusion(), (_random(1, 2, 8, 12), _random(1, 5))),
    "signal and table": (lambda: Fusion(1), (_random(1, 2, 12), _random(1, 5))),
    "ids": (lambda: Fusion(2, Words()), (_random(1, 2, 8, 12), torch.tensor([[1, 2, 3, 10]]))),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", MAPS)
def test_one_of_several_inputs(kind: type[Method], case: str) -> None:
    """The same map as of a network that holds the other input fixed; by position and by name."""
    make, (image, other) = CASES[case]
    model = make()
    expected = kind()(lambda x: model(x, other.expand(len(x), -1)), image, target=1).values
    for inputs in ((image, other), {"other": other, "image": image}):
        result = kind()(model, inputs, target=1)
        if kind.family == "cam":
            torch.testing.assert_close(result.values, expected)
        else:
            parts: Any = result.values
            mapped, rest = (parts["image"], parts["other"]) if isinstance(parts, dict) else parts
            torch.testing.assert_close(mapped, expected)
            assert rest.shape == other.shape
            assert not rest.any()
        assert any("over inputs[" in note for note in result.notes)


@pytest.mark.parametrize("kind", MAPS)
def test_the_input_may_be_named(kind: type[Method]) -> None:
    model = Fusion(2, Body(2, seed=5))
    left, right = _random(1, 2, 8, 12), _random(1, 2, 6, 6, seed=2)
    for name, expected in (
        ("image", kind()(lambda x: model(x, right.expand(len(x), -1, -1, -1)), left, target=1)),
        ("other", kind()(lambda x: model(left.expand(len(x), -1, -1, -1), x), right, target=1)),
    ):
        values: Any = kind(of=name)(model, {"image": left, "other": right}, target=1).values
        values = values[name] if isinstance(values, dict) else values
        torch.testing.assert_close(values, expected.values)


def test_a_layer_of_one_of_two_images_needs_a_name() -> None:
    model = Fusion(2, Body(2, seed=5))
    inputs = {"image": _random(2, 2, 8, 12), "other": _random(2, 2, 6, 6)}
    with pytest.raises(BadInput, match=r"'body.second'.*inputs\['image'\] or .*of='image'"):
        GradCAM()(model, inputs, at="body.second")
    assert GradCAM(of="image")(model, inputs, at="body.second").values.shape == (2, 1, 8, 12)  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", MAPS)
def test_inputs_that_no_map_lies_over(kind: type[Method]) -> None:
    model, inputs = Fusion(), (_random(2, 2, 8, 12), _random(2, 5))
    with pytest.raises(BadInput, match=r"of='picture' is none of the inputs, which are 0, 1"):
        kind(of="picture")(model, inputs)
    with pytest.raises(BadInput, match=r"no spatial activation.*\(2, 5\).*at="):
        kind(of=1)(model, inputs)
    if kind is not CAM:
        with pytest.raises(BadInput, match=r"'head'.*\(2, 3\).*at="):
            kind()(model, inputs, at="head")


@pytest.mark.parametrize("kind", MAPS)
def test_half_precision_and_a_batch_of_one(kind: type[Method]) -> None:
    model, image = Fusion(), _random(1, 2, 8, 12)
    table = _random(1, 5)
    expected: Any = kind()(model, (image, table), target=1).values
    model, half = Fusion().to(torch.bfloat16), torch.bfloat16
    values: Any = kind()(model, (image.to(half), table.to(half)), target=1).values
    one, other = (v[0] if isinstance(v, tuple) else v for v in (values, expected))
    assert one.dtype == torch.float32
    assert float((one.double() - other).abs().max()) < 0.1 * float(other.abs().max())


class TextCNN(nn.Module):
    """Ids (B, T), with a mask beside them or not, through a convolution to (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.embedding, self.conv = nn.Embedding(11, 8), nn.Conv1d(8, 6, 3, padding=1)
            self.head = nn.Linear(6, 3)
        self.double().eval()

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.head(F.relu(self.conv(self.embedding(input_ids).mT)).mean(2))


@pytest.mark.parametrize("at", ["embedding", "conv"])
def test_a_layer_of_token_ids(at: str) -> None:
    """A map over ids (B, T) has their form; what masks its input says why it cannot."""
    model, ids = TextCNN(), torch.tensor([[1, 5, 2, 10, 3], [4, 4, 0, 7, 9]])
    mask = torch.ones_like(ids)
    result = GradCAM(relu=False)(model, (ids, mask), target=1, at=at)
    states = model.embedding(ids).detach()
    if at == "conv":
        states = model.conv(states.mT).detach().mT
    states.requires_grad_()
    body: Any = (lambda x: x) if at == "conv" else (lambda x: model.conv(x.mT).mT)
    score = model.head(F.relu(body(states)).mean(1))[:, 1].sum()
    (slopes,) = torch.autograd.grad(score, states)
    expected = (slopes.mean(1, keepdim=True) * states).sum(2).detach()
    torch.testing.assert_close(result.values, expected)
    for kind in (ScoreCAM, GuidedGradCAM):
        with pytest.raises(BadInput, match=r"token ids.*grad-cam"):
            kind()(model, (ids, mask), target=1, at=at)


@pytest.mark.parametrize("name", ["Swin", "ConvNeXt", "ViT", "SegFormer"])
def test_families(name: str) -> None:
    pytest.importorskip("transformers", reason="extra dev is not installed")
    family = FAMILIES[name]
    inputs = family.batch()
    result = LayerCAM()(family.make(), inputs, output=family.output, target=1)
    assert isinstance(inputs, dict)
    assert isinstance(result.values, Tensor)
    assert result.values.shape[2:] == inputs["pixel_values"].shape[2:]
    assert result.verdict == "pass"
