"""Small networks of every kind that the contract tests run on, each with inputs that suit it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.vit import VisionTransformer

# Where the contract tests run; `benchmarks/device.py` sets it.
DEVICE = torch.device(os.environ.get("WHYGLASS_TEST_DEVICE", "cpu"))
Style = Literal["module", "functional", "reused", "in-place"]
Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class Rectifier(nn.Module):
    """The same ReLU in each of the spellings that people use."""

    def __init__(self, style: Style, count: int) -> None:
        super().__init__()
        self.style = style
        if style == "module":
            self.modules_in_use = nn.ModuleList(nn.ReLU() for _ in range(count))
        elif style == "reused":
            self.one = nn.ReLU()
        elif style == "in-place":
            self.one = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, place: int) -> Tensor:
        if self.style == "module":
            return self.modules_in_use[place](x)
        return F.relu(x) if self.style == "functional" else self.one(x)


class MLP(nn.Module):
    """(B, 5) -> (B, 4)."""

    def __init__(self, style: Style = "module", *, relu_first: bool = False) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 16), nn.Linear(16, 12), nn.Linear(12, 4)
        self.relu = Rectifier(style, 3)
        self.relu_first = relu_first

    def forward(self, x: Tensor) -> Tensor:
        if self.relu_first:
            x = self.relu(x, 2)
        x = self.relu(self.first(x), 0)
        return self.last(self.relu(self.second(x), 1))


class GlobalPoolCNN(nn.Module):
    """(B, 3, 8, 8) -> (B, 4), ending in global average pooling and one linear layer."""

    def __init__(self, style: Style = "module", classes: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.relu = Rectifier(style, 2)
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x), 0)
        x = self.relu(self.conv2(x), 1)
        return self.head(self.pool(x).flatten(1))


class Residual(nn.Module):
    """Two residual blocks with batch norm and in-place functional ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(4))
        self.head = nn.Linear(6, 4)
        for norm in self.norms:
            nn.init.normal_(norm.running_mean, 0, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in range(2):
            y = F.relu_(self.norms[2 * block](self.convs[2 * block](x)))
            y = self.norms[2 * block + 1](self.convs[2 * block + 1](y))
            x = F.relu(x + y, inplace=True)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


def relu6_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU6(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU6(),
        nn.Flatten(),
        nn.Linear(8 * 16, 4),
    )


def silu_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.SiLU(),
        nn.AvgPool2d(8),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


class VGG(nn.Module):
    """Pools after its last convolution, then flattens into two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(8 * 4, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def volume_cnn() -> nn.Module:
    """(B, 2, 4, 6, 6) -> (B, 3)."""
    return nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv3d(4, 5, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    )


class Transformer(nn.Module):
    """Float tokens (B, 6, 8) -> (B, 3), the mean token read out."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)
        # A layer repeats its deep copy: without this both would hold the same numbers.
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, 0, 0.4)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        tokens = self.encoder(tokens, src_key_padding_mask=mask)
        if mask is None:
            return self.head(tokens.mean(1))
        kept = (~mask)[..., None].to(tokens.dtype)
        return self.head((tokens * kept).sum(1) / kept.sum(1))


class TokenClassifier(nn.Module):
    """Integer tokens (B, 6) -> (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.body = Transformer()

    def forward(self, ids: Tensor) -> Tensor:
        return self.body(self.embedding(ids))


class MaskedClassifier(nn.Module):
    """A float input beside a boolean one, by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer()

    def forward(self, *, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.body(tokens, mask)


class Recurrent(nn.Module):
    """A sequence (B, 7, 4) -> (B, 3), the last state read out."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 9, batch_first=True), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class TwoInputs(nn.Module):
    """(B, 4) and (B, 3) -> (B, 3), multiplied in the middle so that neither acts alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.tanh(self.left(a)) * F.relu(self.right(b)))


class SignalAndTable(nn.Module):
    """A signal (B, 2, 10) and columns (B, 3) -> (B, 3), under one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(2, 5, 3, padding=1), nn.Conv1d(5, 6, 3, padding=1)
        self.columns, self.head = nn.Linear(3, 4), nn.Linear(10, 3)

    def forward(self, *, signal: Tensor, table: Tensor) -> Tensor:
        pooled = F.relu(self.conv2(F.relu(self.conv1(signal)))).mean(2)
        return self.head(torch.cat([pooled, F.relu(self.columns(table))], 1))


@dataclass
class Prediction:
    """What a Hugging Face model returns looks like this."""

    loss: Tensor | None
    logits: Tensor


class Wrapped(nn.Module):
    """An MLP whose output is inside something else."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.wrap = MLP(), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.body(x))


@dataclass(frozen=True)
class Network:
    """A network of the zoo.

    `module` builds it, after the seed is set; `shapes` are those of one row of each input, by name
    where the model wants keywords. `at` is the layer to explain where the input has no gradient, and
    `layer` one that any method may explain. `classes` is the length of an output row. `multiplies`
    says that it multiplies activations with one another, `convolves` that one of several inputs is a
    signal that it convolves. `respelled` networks are another in other
    words: what holds of every answer is shown once, on the first.
    """

    name: str
    module: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...] | dict[str, tuple[int, ...]]
    classes: int
    at: str | None = None
    layer: str | None = None
    output: Any = None
    pools_globally: bool = False
    respelled: bool = False
    attends: bool = False
    multiplies: bool = False
    convolves: bool = False

    def make(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The network in eval mode; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.module().eval().to(DEVICE, dtype)
        # Larger weights than by default, so that kinks matter and rows differ in their class.
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                with torch.no_grad():
                    module.weight.mul_(2)
        return model

    def inputs(self, rows: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Inputs:
        """Random rows: integer tokens for `at`, a boolean mask for "mask", else floats."""
        generator = torch.Generator().manual_seed(1000 + seed)

        def one(name: str, shape: tuple[int, ...]) -> Tensor:
            if name == "mask":
                mask = torch.zeros(rows, *shape, dtype=torch.bool)
                mask[:, -2:] = torch.rand(rows, 2, generator=generator) > 0.5
                return mask.to(DEVICE)
            if self.at is not None:
                return torch.randint(0, 11, (rows, *shape), generator=generator).to(DEVICE)
            drawn = torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
            return drawn.to(DEVICE, dtype)

        if isinstance(self.shapes, dict):
            return {name: one(name, shape) for name, shape in self.shapes.items()}
        made = tuple(one("", shape) for shape in self.shapes)
        return made[0] if len(made) == 1 else made

    @property
    def is_image(self) -> bool:
        """Whether there is one input with height and width."""
        return not isinstance(self.shapes, dict) and [len(s) > 2 for s in self.shapes] == [True]

    @property
    def all_float(self) -> bool:
        """Whether every input has a gradient."""
        return self.at is None and "mask" not in self.shapes


IMAGE = ((3, 8, 8),)
SEQUENCE = ((6, 8),)

_NETWORKS = (
    Network("mlp", MLP, ((5,),), 4, layer="first"),
    Network("mlp-functional", lambda: MLP("functional"), ((5,),), 4, layer="first", respelled=True),
    Network("mlp-reused", lambda: MLP("reused"), ((5,),), 4, layer="first", respelled=True),
    Network("mlp-in-place", lambda: MLP("in-place"), ((5,),), 4, layer="first", respelled=True),
    Network("in-place-first", lambda: MLP("in-place", relu_first=True), ((5,),), 4, layer="first"),
    Network("gap-cnn", GlobalPoolCNN, IMAGE, 4, layer="conv2", pools_globally=True),
    *(
        Network(
            f"gap-cnn-{style}",
            lambda style=style: GlobalPoolCNN(style),
            IMAGE,
            4,
            layer="conv2",
            pools_globally=True,
            respelled=True,
        )
        for style in get_args(Style)[1:]
    ),
    Network("residual", Residual, IMAGE, 4, layer="stem", pools_globally=True),
    Network("relu6", relu6_cnn, IMAGE, 4, layer="2"),
    Network("silu", silu_cnn, IMAGE, 4, layer="2", pools_globally=True),
    Network("vgg", VGG, IMAGE, 4, layer="features.3"),
    Network("volume", volume_cnn, ((2, 4, 6, 6),), 3, layer="2", pools_globally=True),
    Network(
        "vit",
        lambda: VisionTransformer(16, 2, 2),
        ((1, 28, 28),),
        10,
        layer="blocks.0",
        attends=True,
        multiplies=True,
    ),
    Network(
        "transformer",
        Transformer,
        SEQUENCE,
        3,
        layer="encoder.layers.0",
        attends=True,
        multiplies=True,
    ),
    Network(
        "tokens",
        TokenClassifier,
        ((6,),),
        3,
        at="embedding",
        layer="embedding",
        attends=True,
        multiplies=True,
    ),
    Network(
        "masked",
        MaskedClassifier,
        {"tokens": (6, 8), "mask": (6,)},
        3,
        layer="body.encoder.layers.0",
        attends=True,
        multiplies=True,
    ),
    Network(
        "signal-and-table",
        SignalAndTable,
        {"table": (3,), "signal": (2, 10)},
        3,
        layer="conv2",
        pools_globally=True,
        convolves=True,
    ),
    Network("lstm", Recurrent, ((7, 4),), 3, layer="lstm", multiplies=True),
    Network("two-inputs", TwoInputs, ((4,), (3,)), 3, layer="left", multiplies=True),
    Network("dict-input", TwoInputs, {"b": (3,), "a": (4,)}, 3, layer="left", multiplies=True),
    Network(
        "dict-output",
        lambda: Wrapped(lambda y: {"loss": None, "logits": y}),
        ((5,),),
        4,
        layer="body.first",
        output="logits",
    ),
    Network(
        "tuple-output",
        lambda: Wrapped(lambda y: (None, y)),
        ((5,),),
        4,
        layer="body.first",
        output=1,
    ),
    Network(
        "dataclass-output",
        lambda: Wrapped(lambda y: Prediction(None, y)),
        ((5,),),
        4,
        layer="body.first",
        output="logits",
    ),
)

ZOO: dict[str, Network] = {network.name: network for network in _NETWORKS}
