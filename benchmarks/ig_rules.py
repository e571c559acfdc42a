"""How exact integrated gradients are on photographs, rule by rule, at equal numbers of gradients.

    python -m benchmarks.ig_rules FOLDER_OF_PHOTOS --cache FOLDER [--photos 20] [--reference 4096]

EfficientNet-Lite0, black baseline, the predicted class. For each rule, medians over the photos of

- gap: |sum of the map - change of the score| / |change of the score|;
- error: |map - reference| / |reference|, Euclidean norms, the reference being a midpoint sum of 4096
  steps added up in float64.

For the adaptive rule also the gap before its weights were adjusted and the error that it estimates
of itself. The references take minutes a photo: `--cache` keeps them for the next run, and an
interrupt (Ctrl-C) tells what was measured so far.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from captum.attr import IntegratedGradients as CaptumGradients
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.models import BLACK, lite0, photos
from benchmarks.timing import machine
from whyglass import IntegratedGradients
from whyglass.core.scorer import Scorer
from whyglass.gradient.adaptive import refine
from whyglass.gradient.path_integral import Path as Curve
from whyglass.gradient.path_integral import straight
from whyglass.gradient.quadrature import FIXED

BATCH = 4


@dataclass(frozen=True)
class Reference:
    """The integral as well as it is known: map (1, C, H, W) in float64, scores at both ends.

    `uncertainty` is half the distance between the sums over every other step, beside the map.
    """

    target: int
    values: Tensor
    change: float
    uncertainty: float


@dataclass(frozen=True)
class Measured:
    """Of one map; the last two of the adaptive rule only."""

    gap: float
    error: float
    gradients: int
    raw_gap: float | None = None
    estimate: float | None = None


def reference(model: nn.Module, photo: Tensor, steps: int) -> Reference:
    """A midpoint sum, written plainly."""
    start = torch.full_like(photo, BLACK)
    with torch.no_grad():
        ends = model(torch.cat([photo, start])).double()
    target = int(ends[0].argmax())
    halves = torch.zeros((2, *photo.shape), dtype=torch.float64)
    alphas = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    for index in torch.arange(steps).split(BATCH):
        alpha = alphas[index].float().reshape(-1, 1, 1, 1)
        points = torch.lerp(start, photo, alpha).requires_grad_()
        (gradients,) = torch.autograd.grad(model(points)[:, target].sum(), points)
        for step, gradient in zip(index.tolist(), gradients.double(), strict=True):
            halves[step % 2] += gradient
    way = (photo - start).double()
    even, odd = halves * way / (steps / 2)
    values = (even + odd) / 2
    return Reference(
        target,
        values,
        float(ends[0, target] - ends[1, target]),
        float((even - odd).norm() / 2 / values.norm()),
    )


def cached(
    folder: Path | None, name: str, model: nn.Module, photo: Tensor, steps: int
) -> Reference:
    """The reference, from the folder if it is there."""
    file = None if folder is None else folder / f"{name}-{steps}.npz"
    if file is not None and file.exists():
        with np.load(file) as kept:
            values = torch.from_numpy(kept["values"])
            rest = (float(kept["change"]), float(kept["uncertainty"]))
            return Reference(int(kept["target"]), values, *rest)
    made = reference(model, photo, steps)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            file,
            values=made.values.numpy(),
            target=made.target,
            change=made.change,
            uncertainty=made.uncertainty,
        )
    return made


def compare(values: Tensor, truth: Reference, gradients: int) -> Measured:
    """Gap and error of a map."""
    values = values.double()
    gap = abs(float(values.sum()) - truth.change) / abs(truth.change)
    error = float((values - truth.values).norm() / truth.values.norm())
    return Measured(gap, error, gradients)


def adaptive(
    model: nn.Module, photo: Tensor, truth: Reference, budget: int, tol: float
) -> Measured:
    """The engine itself, which tells its gap before the adjustment."""
    scorer = Scorer(model, photo, target=truth.target)
    here = scorer.at_inputs(gradient=True)
    path = Curve((torch.full_like(photo, BLACK),), scorer.points, straight)
    found = refine(scorer, path, here, budget, tol)
    plain = compare(found.values[0], truth, scorer.cost.gradients)
    return Measured(
        plain.gap,
        plain.error,
        plain.gradients,
        float(found.gap.abs()) / abs(truth.change),
        float(found.std_error[0].norm() / truth.values.norm()),
    )


def every_rule(
    model: nn.Module, photo: Tensor, truth: Reference, steps: list[int]
) -> dict[tuple[str, str], Measured]:
    """All rules on one photo, by name and number of gradients."""
    found: dict[tuple[str, str], Measured] = {}
    for count in steps:
        # A tolerance that cannot be met, so that every gradient is spent.
        found["adaptive", str(count)] = adaptive(model, photo, truth, count, 1e-12)
        for rule in FIXED:
            method = IntegratedGradients(steps=count, rule=rule)
            map_ = method(model, photo, target=truth.target, baseline=BLACK)
            found[rule, str(count)] = compare(map_.values, truth, map_.gradients)
        theirs = CaptumGradients(model).attribute(
            photo, BLACK, truth.target, n_steps=count, internal_batch_size=BATCH
        )
        found["captum gausslegendre", str(count)] = compare(theirs, truth, count)
    most = max(steps)
    found["adaptive, tol=0.01", f"<= {most}"] = adaptive(model, photo, truth, most, 0.01)
    return found


def table(found: list[dict[tuple[str, str], Measured]]) -> str:
    """Medians over the photos, and the largest gap."""
    columns: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for photo in found:
        for key, measured in photo.items():
            columns[key].append(measured)
    headings = ("gradients", "used", "gap", "largest", "error", "estimate", "raw gap")
    widths = (10, 7, 10, 10, 9, 10, 10)
    heads = (f"{head:>{width}}" for head, width in zip(headings, widths, strict=True))
    lines = [f"{'rule':<22}" + "".join(heads)]
    for (rule, count), measured in columns.items():
        line = (
            f"{rule:<22}{count:>10}{median(m.gradients for m in measured):>7.0f}"
            f"{median(m.gap for m in measured):>10.2%}{max(m.gap for m in measured):>10.2%}"
            f"{median(m.error for m in measured):>9.2%}"
        )
        estimates = [m.estimate for m in measured if m.estimate is not None]
        raw = [m.raw_gap for m in measured if m.raw_gap is not None]
        if estimates:
            line += f"{median(estimates):>10.2%}{median(raw):>10.2%}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photographs")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--reference", type=int, default=4096, help="steps of the reference")
    parser.add_argument("--cache", type=Path, help="folder that keeps the references")
    chosen = parser.parse_args()
    model = lite0()
    found, uncertain = [], []
    # An interrupt ends the measuring, not the program: what was measured is told.
    with suppress(KeyboardInterrupt):
        for name, photo in tqdm(photos(chosen.folder, chosen.photos), disable=None):
            truth = cached(chosen.cache, name, model, photo, chosen.reference)
            found.append(every_rule(model, photo, truth, chosen.steps))
            uncertain.append(truth.uncertainty)
    print(machine())
    print(
        f"{len(found)} photos, reference of {chosen.reference} steps, itself uncertain by "
        f"{median(uncertain):.2%} (largest {max(uncertain):.2%})"
    )
    print(table(found))
    ratios = [
        m.estimate / m.error
        for photo in found
        for m in photo.values()
        if m.estimate is not None and m.error
    ]
    print(f"adaptive, estimated over true error: {min(ratios):.2f} to {max(ratios):.2f}")


if __name__ == "__main__":
    main()
