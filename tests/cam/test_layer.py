"""Which layer a class activation map is read from, and which networks CAM can explain."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.cam import naive
from tests.zoo.networks import ZOO
from tests.zoo.vit import trained
from whyglass import (
    CAM,
    BadInput,
    EigenCAM,
    GradCAM,
    LayerCAM,
    LogOdds,
    Method,
    Probability,
    ScoreCAM,
    Unsupported,
)
from whyglass.catalogue import METHODS

MAPS = [kind for kind in METHODS.values() if kind.family == "cam"]


def _seeded(make: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double().eval()


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Ending(nn.Module):
    """A CNN whose layer of interest is `last`, with any ending."""

    def __init__(self, ending: Any, features: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Identity()
        self.gate = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(features, 4)
        self.hidden = nn.Linear(8, 8)
        self.ending = ending

    def forward(self, x: Tensor) -> Any:
        x = F.relu(self.first(x))
        return self.ending(self, self.last(F.relu(self.second(x))))


def _trace(net: Ending, x: Tensor) -> Tensor:
    """Squeeze and excite on a pooled tensor of one position, then pool."""
    gate = torch.sigmoid(net.gate(F.adaptive_avg_pool2d(x, 1)))
    return net.head((x.mean((2, 3), keepdim=True) * gate).flatten(1))


ENDINGS: dict[str, tuple[Any, int]] = {
    "adaptive average": (lambda n, x: n.head(F.adaptive_avg_pool2d(x, 1).flatten(1)), 8),
    "average": (lambda n, x: n.head(F.avg_pool2d(x, 8).squeeze((2, 3))), 8),
    "mean": (lambda n, x: n.head(x.mean((2, 3))), 8),
    "mean of the end": (lambda n, x: n.head(x.flatten(2).mean(-1)), 8),
    "adaptive maximum": (lambda n, x: n.head(F.adaptive_max_pool2d(x, 1).flatten(1)), 8),
    "amax": (lambda n, x: n.head(x.amax((2, 3))), 8),
    "flatten": (lambda n, x: n.head(x.flatten(1)), 512),
    "view": (lambda n, x: n.head(x.view(len(x), -1)), 512),
    "maximum and flatten": (lambda n, x: n.head(F.max_pool2d(x, 2).flatten(1)), 128),
    "average and flatten": (lambda n, x: n.head(F.avg_pool2d(x, 2, 2).flatten(1)), 128),
    "two poolings": (lambda n, x: n.head(F.avg_pool2d(F.max_pool2d(x, 2), 4).flatten(1)), 8),
    "dropout": (lambda n, x: n.head(F.dropout2d(x, 0.5, False).mean((2, 3))), 8),
    "squeeze and excite": (_trace, 8),
    "einsum": (lambda n, x: torch.einsum("bchw,kc->bk", x, n.head.weight), 8),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [kind for kind in MAPS if kind is not CAM])
def test_the_last_activation_before_pooling(kind: type[Method], ending: str) -> None:
    """The layer found is the one named, in value and in what the explanation says of its size."""
    body, features = ENDINGS[ending]
    model, images = _seeded(lambda: Ending(body, features)), _images(2, 3, 8, 8)
    result, expected = kind()(model, images), kind()(model, images, at="last")
    torch.testing.assert_close(result.values, expected.values)
    assert expected.at == "last"
    assert result.at is not None
    assert "relu" in result.at
    assert any("8 x 8" in note and result.at in note for note in result.notes)


@pytest.mark.parametrize(
    "ending", ["adaptive average", "average", "mean", "mean of the end", "dropout"]
)
def test_cam_reads_the_same_layer(ending: str) -> None:
    body, features = ENDINGS[ending]
    model, images = _seeded(lambda: Ending(body, features)), _images(2, 3, 8, 8)
    expected = GradCAM(relu=False)(model, images, at="last")
    torch.testing.assert_close(CAM()(model, images).values, 64 * expected.values)


def test_vgg_ends_in_pooling_and_linear_layers() -> None:
    network = ZOO["vgg"]
    model, images = network.make(), network.inputs()
    result = GradCAM()(model, images)
    assert result.at is not None
    assert result.at.startswith("features.4")
    torch.testing.assert_close(result.values, GradCAM()(model, images, at="features.4").values)
    assert (result.values - GradCAM()(model, images, at="features.5").values).abs().max() > 1e-3


def test_residual_network_reads_the_sum_after_its_relu() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))
            self.norm, self.out = nn.BatchNorm2d(3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.conv2(F.relu_(self.conv1(x))))
            y += x
            return self.out(F.relu(y, inplace=True))

    model = _seeded(
        lambda: nn.Sequential(
            Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
        )
    )
    images = _images(2, 3, 6, 6)
    for kind in (GradCAM, LayerCAM, EigenCAM, ScoreCAM):
        torch.testing.assert_close(
            kind()(model, images).values, kind()(model, images, at="1.out").values
        )
    torch.testing.assert_close(
        CAM()(model, images).values, 36 * GradCAM(relu=False)(model, images, at="1.out").values
    )


def test_volume() -> None:
    network = ZOO["volume"]
    model, volumes = network.make(), network.inputs()
    result = GradCAM()(model, volumes)
    assert result.values.shape == (3, 1, 4, 6, 6)
    torch.testing.assert_close(result.values, GradCAM()(model, volumes, at="3").values)
    lower = GradCAM()(nn.Sequential(nn.AvgPool3d(2), *model), volumes)
    assert any("2 x 3 x 3" in note for note in lower.notes)


def test_volume_is_stretched_along_all_three_axes() -> None:
    model = _seeded(
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(72, 2)
        )
    )
    volumes = _images(1, 2, 4, 6, 6)
    result = EigenCAM()(model, volumes)
    with torch.no_grad():
        activations = model[:2](volumes)[0].numpy()
    heat = naive.eigen_cam(activations)
    torch.testing.assert_close(
        result.values[0, 0], torch.from_numpy(naive.upsample(heat, (4, 6, 6)))
    )


def test_at_by_name_and_by_module() -> None:
    network = ZOO["vgg"]
    model, images = network.make(), network.inputs()
    by_name = LayerCAM()(model, images, at="features.1")
    by_module = LayerCAM()(model, images, at=model.get_submodule("features.1"))
    torch.testing.assert_close(by_name.values, by_module.values)
    assert by_name.at == by_module.at == "features.1"
    assert any("8 x 8" in note for note in by_name.notes)


@pytest.mark.parametrize("style", ["functional", "reused", "in-place"])
def test_layers_without_a_module_of_their_own(style: str) -> None:
    plain, other = ZOO["gap-cnn"], ZOO[f"gap-cnn-{style}"]
    expected = GradCAM()(plain.make(), plain.inputs(), at="relu.modules_in_use.1")
    torch.testing.assert_close(GradCAM()(other.make(), plain.inputs()).values, expected.values)


def test_a_second_output_that_the_score_does_not_use_is_not_the_layer() -> None:
    """A map made after the logits, for another purpose."""

    def ending(net: Ending, x: Tensor) -> dict[str, Tensor]:
        logits = net.head(x.mean((2, 3)))
        return {"logits": logits, "mask": torch.sigmoid(net.gate(x))}

    model, images = _seeded(lambda: Ending(ending)), _images(2, 3, 8, 8)
    result = GradCAM()(model, images, output="logits")
    expected = GradCAM()(model, images, output="logits", at="last")
    torch.testing.assert_close(result.values, expected.values)
    assert result.values.any()


def test_a_plain_callable() -> None:
    network = ZOO["gap-cnn"]
    model, images = network.make(), network.inputs()
    result = GradCAM()(model.forward, images)
    torch.testing.assert_close(result.values, GradCAM()(model, images).values)
    assert result.at == "relu"


def test_other_inputs_beside_the_image() -> None:
    inner: Any = ZOO["gap-cnn"].make()

    def model(image: Tensor, scale: Tensor) -> Tensor:
        return inner(image) * scale

    images = ZOO["gap-cnn"].inputs()
    scale = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    for kind in (GradCAM, LayerCAM, ScoreCAM):
        result = kind()(model, (images, scale), target=1)
        for row in range(3):
            alone = kind()(lambda x, r=row: inner(x) * scale[r], images[row : row + 1], target=1)
            torch.testing.assert_close(result.values[row], alone.values[0])


class TestNetworksThatCAMRefuses:
    @pytest.mark.parametrize("name", ["relu6", "vgg", "vit"])
    def test_no_global_pooling(self, name: str) -> None:
        with pytest.raises(Unsupported, match=r"global average pooling.*grad-cam"):
            CAM()(ZOO[name].make(), ZOO[name].inputs())

    @pytest.mark.parametrize(
        "ending",
        [
            lambda n, x: n.head(F.adaptive_max_pool2d(x, 1).flatten(1)),
            lambda n, x: n.head(F.relu(n.hidden(x.mean((2, 3))))),
            lambda n, x: n.head(x.mean((2, 3))).softmax(1),
            lambda n, x: torch.tanh(n.head(x.mean((2, 3)))),
            lambda n, x: n.head(F.normalize(x.mean((2, 3)))),
            lambda n, x: n.head(x.mean((2, 3)) ** 2),
            lambda n, x: n.head(x.mean((2, 3)) * x.mean((2, 3))),
            lambda n, x: n.head(x.mean((2, 3)) * torch.sigmoid(n.hidden(x.mean((2, 3))))),
            _trace,
        ],
        ids=["max", "hidden", "softmax", "tanh", "norm", "power", "square", "gate", "excite"],
    )
    def test_heads_that_are_not_linear(self, ending: Any) -> None:
        with pytest.raises(Unsupported, match="grad-cam"):
            CAM()(_seeded(lambda: Ending(ending)), _images(2, 3, 8, 8))

    @pytest.mark.parametrize(
        "ending",
        [
            lambda n, x: n.head(n.hidden(x.mean((2, 3)))),
            lambda n, x: 2 * n.head(x.mean((2, 3))) + 1,
            lambda n, x: n.head(F.dropout(x.mean((2, 3)), 0.5, False)),
            lambda n, x: n.head(x.mean((2, 3)).contiguous()),
            lambda n, x: F.adaptive_avg_pool2d(F.conv2d(x, n.gate.weight[:4]), 1).flatten(1),
        ],
        ids=["two layers", "scaled", "dropout", "contiguous", "convolution"],
    )
    def test_heads_that_are(self, ending: Any) -> None:
        model, images = _seeded(lambda: Ending(ending)), _images(2, 3, 8, 8)
        result = CAM()(model, images, target=0)
        zero = GradCAM(relu=False)(model, images, target=0)
        torch.testing.assert_close(result.values, 64 * zero.values)

    def test_a_hook_of_the_user_is_no_operation(self) -> None:
        """Calls that make no tensor are not part of the head."""

        def ending(net: Ending, x: Tensor) -> Tensor:
            pooled = x.mean((2, 3))
            assert pooled.is_contiguous()
            assert not pooled.is_complex()
            output = net.head(pooled)
            if output.requires_grad:
                output.register_hook(lambda gradient: gradient)
            return output

        result = CAM()(_seeded(lambda: Ending(ending)), _images(2, 3, 8, 8))
        plain = CAM()(_seeded(lambda: Ending(ENDINGS["mean"][0])), _images(2, 3, 8, 8))
        torch.testing.assert_close(result.values, plain.values)

    @pytest.mark.parametrize(
        "target",
        [Probability(0), LogOdds(0), lambda y: y[:, 0] ** 2],
        ids=["probability", "log-odds", "callable"],
    )
    def test_targets_that_are_not_linear(self, target: Any) -> None:
        with pytest.raises(BadInput, match=r"logits.*grad-cam"):
            CAM()(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs(), target=target)


class Tokens(nn.Module):
    """Patches of a convolution as tokens after some special ones; a plain sum is read out."""

    def __init__(self, special: int, patch: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 5, patch, stride=patch)
        self.special = nn.Parameter(torch.randn(1, special, 5))
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.special.expand(len(x), -1, -1), tokens], 1)
        return self.head(F.relu(self.norm(tokens)).mean(1))


@pytest.mark.parametrize("special", [0, 1, 2, 5])
@pytest.mark.parametrize(("height", "width"), [(12, 12), (8, 20), (20, 8)])
@pytest.mark.parametrize("at", [None, "norm"])
def test_token_grid(special: int, height: int, width: int, at: str | None) -> None:
    """Special tokens come first and are left out; patches run along the rows of the image."""
    model = _seeded(lambda: Tokens(special, 4))
    images = _images(2, 1, height, width)
    tokens: list[Tensor] = []
    handle = model.get_submodule("norm").register_forward_hook(
        lambda _m, _i, out: tokens.append(out)
    )
    model(images)
    handle.remove()
    result = LayerCAM()(model, images, target=1, at=at)
    values = tokens[0].detach().requires_grad_()
    head: Any = model.get_submodule("head")
    (gradient,) = torch.autograd.grad(head(F.relu(values).mean(1))[:, 1].sum(), values)
    for row in range(2):
        heat = torch.zeros(height // 4, width // 4, dtype=torch.float64)
        for i in range(height // 4):
            for j in range(width // 4):
                place = special + i * (width // 4) + j
                heat[i, j] = (
                    (gradient[row, place].relu() * values[row, place]).sum().relu().detach()
                )
        expected = naive.upsample(heat.numpy(), (height, width))
        torch.testing.assert_close(result.values[row, 0], torch.from_numpy(expected))
    assert any(f"{height // 4} x {width // 4}" in note for note in result.notes)


class Windows(nn.Module):
    """A convolution, then a layer norm in windows that stand where the batch does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.LayerNorm(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        windows = x.unflatten(2, (2, 4)).unflatten(4, (2, 4)).permute(0, 2, 4, 3, 5, 1)
        tokens = self.norm(windows.reshape(-1, 16, 6))
        return self.head(tokens.reshape(len(x), 64, 6).mean(1))


@pytest.mark.parametrize("kind", [kind for kind in MAPS if kind is not CAM])
def test_windows_in_place_of_the_batch_are_no_map(kind: type[Method]) -> None:
    """The layer before them is taken, and one of them by name is refused."""
    model, images = _seeded(Windows), _images(2, 3, 8, 8)
    with pytest.raises(BadInput, match=r"\(8, 16, 6\).*at="):
        kind()(model, images, target=1, at="norm")
    result = kind()(model, images, target=1)
    assert isinstance(result.values, Tensor)
    assert result.values.shape == (2, 1, 8, 8)
    assert str(result.at).startswith("Windows")


def test_tokens_that_form_no_grid() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x.flatten(1)[:, :188].reshape(len(x), 47, 4)).mean(1)

    with pytest.raises(BadInput, match=r"47 tokens.*\(14, 14\).*at="):
        GradCAM()(Odd().double(), _images(1, 1, 14, 14))


class TestVisionTransformer:
    """The trained network on 28 x 28 digits: one class token and 7 x 7 patches."""

    @pytest.mark.parametrize("kind", [k for k in MAPS if k is not CAM])
    def test_reads_a_layer_where_patches_count(self, kind: type[Method]) -> None:
        """Behind the last attention only the class token has a gradient."""
        model = trained()
        images = _ring(torch.tensor([[14.0, 14.0], [10.0, 17.0]]))
        result = kind()(model, images)
        assert result.at is not None
        assert result.at.startswith("blocks.3.norm1")
        assert any("7 x 7" in note for note in result.notes)
        expected = kind()(model, images, at="blocks.3.norm1")
        torch.testing.assert_close(result.values, expected.values)
        assert result.values.flatten(1).any(1).all()

    def test_a_layer_behind_the_last_attention_is_flat_and_says_so(self) -> None:
        result = LayerCAM()(trained(), _ring(torch.tensor([[14.0, 14.0]])), at="norm")
        assert not result.values.any()
        assert result.verdict == "warn"

    def test_the_map_follows_the_image(self) -> None:
        """A ring in each of the four corners: the centre of the map moves with it."""
        corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
        heat = LayerCAM()(trained(), _ring(13.5 + 7 * corners)).values[:, 0]
        place = torch.arange(28.0) - 13.5
        total = heat.sum((1, 2))
        middle = torch.stack(
            [(heat.sum(2) * place).sum(1) / total, (heat.sum(1) * place).sum(1) / total], 1
        )
        assert (middle * corners > 2).all(), middle

    def test_a_batch_of_one(self) -> None:
        model, images = trained(), _ring(torch.tensor([[14.0, 14.0], [10.0, 17.0]]))
        both = LayerCAM()(model, images)
        for row in range(2):
            alone = LayerCAM()(model, images[row : row + 1])
            torch.testing.assert_close(both.values[row], alone.values[0], rtol=1e-4, atol=1e-6)


def _ring(middles: Tensor) -> Tensor:
    """A zero of radius 4, in the style of the digits."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    made = [
        ((((y - a) ** 2 / 1.3 + (x - b) ** 2).sqrt() - 4).abs().neg() + 1.5).clamp(0, 1)
        for a, b in middles.tolist()
    ]
    return torch.stack(made)[:, None]
