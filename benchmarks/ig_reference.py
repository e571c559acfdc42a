"""Integrated gradients of photographs by a very fine rule, computed once and kept: the truth that
`ig_rules.py` compares with.

    python -m benchmarks.ig_reference ../shared/data/imagenet_sample --cache ~/.cache/whyglass-ig
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from whyglass.data.image import read
from whyglass.loading import Loaded, load

BATCH = 4


def photographs(folder: Path, count: int) -> list[Path]:
    """`count` photographs spread evenly over the folder."""
    files = sorted(folder.glob("*.JPEG"))
    return files[:: max(1, len(files) // count)][:count]


def prepared(loaded: Loaded, file: Path) -> tuple[Tensor, Tensor, int]:
    """Image (1, 3, H, W), black image, predicted class."""
    image = loaded.preprocess(read(file))[None]
    black = loaded.preprocess.baseline("black")
    assert callable(black)
    with torch.no_grad():
        return image, black(image), int(loaded.model(image).argmax())


def reference(loaded: Loaded, file: Path, steps: int, cache: Path) -> Tensor:
    """(3, H, W), float64: the midpoint rule with `steps` points."""
    kept = cache / f"{file.stem}.{steps}.safetensors"
    if kept.exists():
        return load_file(kept)["map"]
    image, black, target = prepared(loaded, file)
    way = image - black
    total = torch.zeros_like(image[0], dtype=torch.float64)
    for start in range(0, steps, BATCH):
        alpha = (torch.arange(start, min(start + BATCH, steps)) + 0.5) / steps
        points = (black + alpha[:, None, None, None] * way).requires_grad_()
        (slope,) = torch.autograd.grad(loaded.model(points)[:, target].sum(), points)
        total += slope.sum(0, dtype=torch.float64)
    total *= way[0].double() / steps
    cache.mkdir(parents=True, exist_ok=True)
    save_file({"map": total.contiguous()}, kept)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--steps", type=int, default=4096)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "whyglass-ig")
    given = parser.parse_args()
    loaded = load("efficientnet-lite0")
    for file in photographs(given.folder, given.photos):
        reference(loaded, file, given.steps, given.cache)
        print(file.name, flush=True)


if __name__ == "__main__":
    main()
