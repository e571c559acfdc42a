"""The parts add up to the change of score: on the zoo, on real networks, on random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.networks import ZOO
from tests.zoo.resnet_cifar import MEAN, STD, resnet_cifar
from whyglass import Contrast, DeepLIFT, LogOdds, Probability, Several
from whyglass.core.method import Method
from whyglass.data.image import Preprocess, read
from whyglass.data.loading import load

DATA = Path(__file__).parents[4] / "shared" / "data"
METHODS: list[Method] = [DeepLIFT(), DeepLIFT(rule="reveal-cancel")]
BOUNDS = ((torch.float64, 1e-9), (torch.float32, 1e-4))

every_method = pytest.mark.parametrize("method", METHODS, ids=repr)
in_both_precisions = pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the project")


@every_method
@pytest.mark.parametrize("name", ZOO)
@in_both_precisions
def test_on_the_zoo(method: Method, name: str, dtype: torch.dtype, bound: float) -> None:
    net = ZOO[name]
    # Through log-odds a float32 sum may cancel most of its digits.
    single = dtype == torch.float32
    target = Several(0, 1) if single else Several(0, Probability(1), LogOdds(0), Contrast(1, 0))
    found = method(
        net.make(dtype=dtype), net.inputs(dtype=dtype), target=target, at=net.at, output=net.output
    )
    assert found.checks[0].measured <= bound


@pytest.mark.slow
@with_data
@every_method
@pytest.mark.parametrize("name", ["efficientnet-lite0", "squeezenet"])
def test_on_photographs(method: Method, name: str) -> None:
    if name == "squeezenet":
        weights = DATA / "squeezenet1_0_imagenet" / "squeezenet1_0.safetensors"
        model = load("tests.zoo.squeezenet:squeezenet1_0", weights).model
        prepare = Preprocess(227, 227)
    else:
        pytest.importorskip("efficientnet_lite_pytorch", reason="extra demo is not installed")
        loaded = load(name)
        model, prepare = loaded.model, loaded.preprocess
    files = sorted((DATA / "imagenet_sample").glob("*.JPEG"))[::70]
    images = torch.stack([prepare(read(file)) for file in files])
    assert isinstance(model, nn.Module)
    for dtype, bound in BOUNDS:
        found = method(model.to(dtype), images.to(dtype), baseline=prepare.baseline("black"))
        assert found.checks[0].measured <= bound


@with_data
@every_method
@pytest.mark.parametrize("depth", [20, 56])
def test_on_deep_residual_networks(method: Method, depth: int) -> None:
    stored = np.asarray(Image.open(DATA / "cifar10_test_subset" / "test_first2000.png"))
    images = torch.from_numpy(stored[:3].reshape(3, 32, 32, 3).copy()).permute(0, 3, 1, 2) / 255
    prepare = Preprocess(32, 32, mean=MEAN, std=STD)
    mean, std = (torch.tensor(part)[:, None, None] for part in (MEAN, STD))
    model = resnet_cifar(depth, DATA / "cifar10_resnets")
    for dtype, bound in BOUNDS:
        rows = ((images - mean) / std).to(dtype)
        found = method(model.to(dtype), rows, baseline=prepare.baseline("black"))
        assert found.checks[0].measured <= bound


@with_data
@every_method
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_on_a_text_model(method: Method, attention: str) -> None:
    pytest.importorskip("transformers", reason="extra dev is not installed")
    minilm = pytest.importorskip("tests.zoo.minilm", reason="the package of MiniLM is missing")
    lines = (DATA / "text" / "trec" / "TREC.test").read_text("latin-1").splitlines()[:3]
    questions = minilm.tokens([line.split(" ", 1)[1] for line in lines])
    # The second is shorter, so that padding is masked.
    assert questions["attention_mask"].sum(1).unique().numel() > 1
    model = minilm.MiniLM(attention).eval()
    for dtype, bound in BOUNDS:
        for at in (minilm.WORDS, "body.embeddings"):
            found = method(model.to(dtype), questions, target=Several(0, 3), at=at)
            assert found.checks[0].measured <= bound
            assert isinstance(found.values, Tensor)
            assert found.values.abs().max() < 1


class BothWays(nn.Module):
    """A sequence (B, 7, 4) -> (B, 3) by an LSTM in both directions, its states averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, (last, _) = self.lstm(x)
        return self.head(states.mean(1) + torch.cat([last[-2], last[-1]], 1))


class Messages(nn.Module):
    """Nodes (B, 5, 4) of one graph -> (B, 3): three rounds of messages along its edges."""

    def __init__(self) -> None:
        super().__init__()
        self.edges = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 0], [1, 0, 2, 3, 1, 3, 0, 4]])
        self.say, self.hear = nn.Linear(8, 6), nn.GRUCell(6, 4)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        source, goal = self.edges
        place = goal[None, :, None].expand(len(x), -1, 6)
        for _ in range(3):
            said = F.relu(self.say(torch.cat([x[:, source], x[:, goal]], -1)))
            heard = torch.zeros(len(x), 5, 6, dtype=x.dtype).scatter_add(1, place, said)
            x = self.hear(heard.flatten(0, 1), x.flatten(0, 1)).unflatten(0, (-1, 5))
            x = self.norm(x)
        return self.head(torch.cat([x.mean(1), x.amax(1)], -1))


def overlapping_pools() -> nn.Module:
    """(B, 2, 12, 12) -> (B, 3)."""
    return nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.MaxPool2d(3, 1), nn.SiLU(), nn.Conv2d(5, 6, 3), nn.MaxPool2d(3, 2, 1),
        nn.ELU(), nn.MaxPool2d(2, 1, ceil_mode=True), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


@every_method
@pytest.mark.parametrize(
    ("make", "shape"),
    [(BothWays, (7, 4)), (Messages, (5, 4)), (overlapping_pools, (2, 12, 12))],
)
@in_both_precisions
def test_on_other_kinds_of_networks(
    method: Method, make: Callable[[], nn.Module], shape: tuple[int, ...], dtype: torch.dtype,
    bound: float,
) -> None:  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval().to(dtype)
        x, start = torch.randn(3, *shape).to(dtype), torch.randn(*shape).to(dtype)
    for baseline in (torch.zeros_like(start), start):
        found = method(model, x, target=Several(0, 2), baseline=baseline)
        assert found.checks[0].measured <= bound


CHANNELS, LENGTH = 4, 6
Layer = Callable[[Tensor], Tensor]

# Layers that square what they get, or let it choose, get it bounded: six of them in a row would
# otherwise leave the forward pass itself without digits.


def around(layer: Layer) -> Layer:
    """What the layer says of a tensor, beside the tensor itself."""
    return lambda x: x + layer(x)


def gated() -> Layer:
    value, gate = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1), nn.Linear(LENGTH, LENGTH)
    return lambda x: value(x) * torch.sigmoid(gate(x))


def attention() -> Layer:
    layer = nn.MultiheadAttention(LENGTH, 2, batch_first=True)
    return lambda x: layer(3 * x.tanh(), x.tanh(), x)[0]


def fused_attention() -> Layer:
    layer = nn.Linear(LENGTH, 3 * LENGTH)
    return lambda x: F.scaled_dot_product_attention(
        *layer(5 * x.tanh()).chunk(3, -1), is_causal=True
    )


def recurrent() -> Layer:
    layer = nn.GRU(LENGTH, LENGTH // 2, batch_first=True, bidirectional=True)
    return lambda x: layer(x)[0]


def statistics() -> Layer:
    norm = nn.BatchNorm1d(CHANNELS)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.eval()


def written(x: Tensor) -> Tensor:
    h = x * 1.5
    h[:, 0] = h[:, 1] * h[:, 2].tanh()
    h += x
    return h.relu_()


def scattered(x: Tensor) -> Tensor:
    goal = torch.tensor([0, 0, 3, 1]).reshape(1, CHANNELS, 1).expand_as(x)
    return torch.zeros_like(x).scatter_add(1, goal, x)


def masked(x: Tensor) -> Tensor:
    future = torch.ones(CHANNELS, CHANNELS, dtype=torch.bool).triu(1)
    y = 3 * x.tanh()
    return (y @ y.transpose(1, 2)).masked_fill(future, -torch.inf).softmax(-1) @ x


ACTIVATIONS: list[Layer] = [
    F.relu, F.relu6, F.leaky_relu, F.elu, F.celu, F.selu, F.gelu, F.silu, F.mish, F.hardswish,
    F.hardsigmoid, F.softplus, F.softsign, F.logsigmoid, F.tanhshrink, torch.tanh, torch.sigmoid,
    torch.sin, torch.erf, torch.abs, lambda x: x.tanh().square(), lambda x: x.tanh().exp(),
    lambda x: x.clamp(-0.5, 0.4), lambda x: torch.log1p(x * x), lambda x: (x * x + 0.1).sqrt(),
    lambda x: 1 / (1 + x * x), lambda x: x.clamp(-2, 2).pow(3),
]  # fmt: skip

MADE: list[Callable[[], Layer]] = [
    lambda: nn.Linear(LENGTH, LENGTH), lambda: nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1),
    lambda: nn.Conv1d(CHANNELS, CHANNELS, 3, padding=2, dilation=2, groups=2),
    lambda: nn.ConvTranspose1d(CHANNELS, CHANNELS, 3, padding=1),
    lambda: nn.Sequential(nn.Conv1d(CHANNELS, 2 * CHANNELS, 1), nn.GLU(1)),
    lambda: around(nn.Sequential(nn.Linear(LENGTH, 9), nn.GELU(), nn.Linear(9, LENGTH))),
    gated, attention, lambda: around(attention()), fused_attention, recurrent, statistics,
    lambda: nn.LayerNorm(LENGTH), lambda: nn.GroupNorm(2, CHANNELS), lambda: nn.RMSNorm(LENGTH),
    lambda: nn.InstanceNorm1d(CHANNELS), lambda: nn.MaxPool1d(3, 1, 1), lambda: nn.AvgPool1d(3, 1, 1),
    lambda: nn.Sequential(nn.MaxPool1d(2), nn.Upsample(scale_factor=2)),
]  # fmt: skip

SHAPED: list[Layer] = [
    lambda x: x.softmax(-1), lambda x: (10 * x.tanh()).softmax(1) * x, lambda x: F.log_softmax(x, -1),
    lambda x: x - x.logsumexp(-1, keepdim=True), lambda x: x - x.amax(-1, keepdim=True),
    lambda x: x.max(1, keepdim=True)[0] + x.min(2, keepdim=True).values,
    lambda x: torch.maximum(x, x.roll(1, 2)), lambda x: torch.minimum(x, 1 - x.flip(1)),
    lambda x: F.normalize(x, dim=-1), lambda x: x / (1 + x.norm(dim=1, keepdim=True)),
    lambda x: x / (0.1 + x.std(-1, keepdim=True)), lambda x: x / (1 + x.var((1, 2), keepdim=True)),
    lambda x: torch.cat([x[:, 2:].relu(), x[:, :2].flip(2)], 1),
    lambda x: F.pad(x, (2, 1))[..., :LENGTH],
    lambda x: torch.stack(x.chunk(2, 1), 1).transpose(1, 2).flatten(1, 2).tanh(),
    lambda x: x.cumsum(-1), lambda x: x.tanh() * x.sin(),
    lambda x: x.tanh() @ x.transpose(1, 2).tanh() @ x, lambda x: x - x.mean((1, 2), keepdim=True),
    lambda x: torch.einsum("bcl,bdl->bcd", x.tanh(), x.sigmoid()) @ x,
    lambda x: x.reshape(-1, LENGTH, CHANNELS).permute(0, 2, 1).contiguous(),
    lambda x: torch.where(torch.eye(CHANNELS, LENGTH) > 0, x, x * x.mean(1, keepdim=True).tanh()),
    written, scattered, masked,
]  # fmt: skip

COUNT = len(ACTIVATIONS) + len(MADE) + len(SHAPED)


def network(layers: list[int], seed: int) -> Layer:
    """Layers by their places in the three lists; (B, C, L) goes in, three scores come out."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = [[*ACTIVATIONS, *(make() for make in MADE), *SHAPED][place] for place in layers]
            head = nn.Linear(CHANNELS * LENGTH, 3)
    finally:
        torch.set_default_dtype(torch.float32)

    def run(x: Tensor) -> Tensor:
        for layer in made:
            x = layer(x)
        return head(x.flatten(1))

    return run


@every_method
@given(
    layers=st.lists(st.integers(0, COUNT - 1), min_size=2, max_size=6),
    seed=st.integers(0, 2**31),
    from_zero=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_on_random_networks(method: Method, layers: list[int], seed: int, from_zero: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, start = torch.randn(2, 3, CHANNELS, LENGTH, dtype=torch.float64, generator=generator)
    found = method(
        network(layers, seed), x, target=Several(0, 1), baseline=start[0] * (not from_zero)
    )
    assert isinstance(found.values, Tensor)
    assert found.baseline_score is not None
    change = found.score - found.baseline_score
    gap = (found.values.flatten(1, -2).sum(1) - change).abs()
    size = torch.maximum(change.abs(), found.values.abs().flatten(1, -2).sum(1) / 100)
    # A network that flattens everything changes its score by less than the score's own rounding.
    assert (gap <= 1e-9 * size + 1e-13 * (1 + found.score.abs())).all()
