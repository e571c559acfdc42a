"""RISE: its time beside its own forward passes, and the masks that each sampler needs.

    python -m benchmarks.rise [--samples 64] [--rounds 7] [--masks 1000] [--photo FILE] [--map FILE]

The floor evaluates as many masked photographs as RISE does, in a plain loop, from masks that are
ready. The masks to a given error, for the probability of the class over zeros as published, follow
from the standard errors, which fall as one over the root of the count; the tests compare those with
long runs. Errors are beside the map's spread, root mean squares over pixels. The published sum
divides by N p; divided by the masks' sum instead it is sampler="published".
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import whyglass
from benchmarks.models import BLACK, lite0, photo, photo_case
from benchmarks.timing import HEADING, alternate, machine
from whyglass.coalition.local.grid_masks import GridMasks

BATCH = 4


def masks(samples: int, paired: bool, seed: int) -> Tensor:
    """(samples, 1, 224, 224)."""
    method = whyglass.RISE(seed=seed)
    grid = GridMasks((224, 224), (7, 7), 0.5, paired, method._generator, torch.zeros(0))
    return grid.make(0, samples)[:, None]


def overhead(samples: int, rounds: int) -> None:
    """Time of RISE over that of its forward passes."""
    case = photo_case()
    ready = masks(samples, True, 0)
    black = torch.full_like(case.inputs, BLACK)

    def floor() -> None:
        with torch.no_grad():
            for first in range(0, samples, BATCH):
                case.model(torch.lerp(black, case.inputs, ready[first : first + BATCH]))

    def ours(sampler: str) -> None:
        method = whyglass.RISE(samples=samples, sampler=sampler)
        method(case.model, case.inputs, target=case.target, baseline=BLACK)

    print(f"\n{case.name}, {samples} masks")
    print(HEADING)
    contenders = {
        "floor: masked photographs, ready masks": floor,
        "whyglass rise": lambda: ours("paired"),
        "whyglass rise, published sampler": lambda: ours("published"),
    }
    names = list(contenders)
    for timed in alternate(contenders, names[0], 0, "cpu", rounds, rounds):
        print(timed.row())


def errors(path: Path | None, count: int, picture: Path | None) -> None:
    """Standard error of each sampler beside the map's spread, and the masks to 10% of it."""
    case = photo_case()
    x = case.inputs if path is None else photo(Image.open(path))
    model = case.model if path is None else lite0()
    with torch.no_grad():
        target = int(model(x).argmax(1))
    print(f"\n{path.stem if path else 'cat'}, class {target}, {count} masks")
    print(f"{'':<42}{'error/spread':>14}{'masks to 10%':>14}")
    paired, published = (
        whyglass.RISE(samples=count, sampler=sampler)(model, x, target=whyglass.Probability(target))
        for sampler in ("paired", "published")
    )
    assert isinstance(paired.values, Tensor)
    # The map's own spread, less what its noise adds.
    spread = float((paired.values.var() - rms(paired.std_error) ** 2).sqrt())
    rows = {
        "paired": rms(paired.std_error) / spread,
        "published, divided by the masks' sum": rms(published.std_error) / spread,
        "published, divided by N p": plain_error(model, x, target, count) / spread,
    }
    for name, error in rows.items():
        print(f"{name:<42}{error:>14.3f}{count * (error / 0.1) ** 2:>14.0f}")
    if picture is not None:
        paired.plot().savefig(picture)


def plain_error(model: torch.nn.Module, x: Tensor, target: int, count: int) -> float:
    """Standard error of sum_m s_m M_m / (N p), over a quarter of the masks."""
    few = count // 4
    made = masks(few, False, 1)
    with torch.no_grad():
        scores = torch.cat([model(x * part).softmax(1)[:, target] for part in made.split(BATCH)])
    terms = scores[:, None, None] * made[:, 0] / 0.5
    return float(terms.var(0).mean().div(count).sqrt())


def rms(errors: object) -> float:
    """Root mean square."""
    assert isinstance(errors, Tensor)
    return float(errors.square().mean().sqrt())


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--map", type=Path)
    chosen = parser.parse_args()
    print(machine())
    if chosen.rounds:
        overhead(chosen.samples, chosen.rounds)
    if chosen.masks:
        errors(chosen.photo, chosen.masks, chosen.map)


if __name__ == "__main__":
    main()
