"""Peak memory of integrated gradients with 50 steps on EfficientNet-Lite0, one process a figure.

    python -m benchmarks.memory

"One batch" is a plain forward pass and input gradient of as many copies of the photo as the largest
batch that whyglass put through the model; "plain loop" is as many of those as make up the steps.
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

STEPS = 50
ROOT = Path(__file__).parents[1]


def one_batch(model: nn.Module, photo: Tensor, target: int, black: float, rows: int) -> None:
    """What any method needs at this batch size."""
    batch = photo.repeat(rows, 1, 1, 1).requires_grad_()
    torch.autograd.grad(model(batch)[:, target].sum(), batch)


def plain_loop(model: nn.Module, photo: Tensor, target: int, black: float, rows: int) -> None:
    """One batch after the other."""
    for left in range(STEPS, 0, -rows):
        one_batch(model, photo, target, black, min(rows, left))


def whyglass(model: nn.Module, photo: Tensor, target: int, black: float, rows: int) -> None:
    """The midpoint rule; `rows` is left to the library."""
    from whyglass import IntegratedGradients

    method = IntegratedGradients(steps=STEPS, rule="midpoint")
    method(model, photo, target=target, baseline=black)


def adaptive(model: nn.Module, photo: Tensor, target: int, black: float, rows: int) -> None:
    """The default rule, which keeps the gradients of its nodes; all its steps are spent."""
    from whyglass import IntegratedGradients

    method = IntegratedGradients(steps=STEPS, tol=1e-12)
    method(model, photo, target=target, baseline=black)


def captum(model: nn.Module, photo: Tensor, target: int, black: float, rows: int) -> None:
    """Captum as called by default: every step in one batch."""
    from captum.attr import IntegratedGradients

    IntegratedGradients(model).attribute(photo, black, target, n_steps=STEPS)


def captum_in_batches(
    model: nn.Module, photo: Tensor, target: int, black: float, rows: int
) -> None:
    """Captum with `internal_batch_size`."""
    from captum.attr import IntegratedGradients

    path = IntegratedGradients(model)
    path.attribute(photo, black, target, n_steps=STEPS, internal_batch_size=rows)


CONTENDERS = {
    "whyglass": whyglass,
    "one batch": one_batch,
    "plain loop": plain_loop,
    "whyglass, adaptive": adaptive,
    "captum, internal_batch_size": captum_in_batches,
    "captum": captum,
}


def measure(name: str, rows: int) -> None:
    """In a process of its own: print peaks in MiB before and after, and the largest batch seen."""
    for library in ("whyglass", "captum.attr"):  # in every process, so that all start equal
        importlib.import_module(library)
    from benchmarks.models import BLACK, photo_case

    case = photo_case()
    seen: list[int] = []
    case.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    before = _peak()
    CONTENDERS[name](case.model, case.inputs, int(case.target), BLACK, rows)
    print(json.dumps({"before": before, "after": _peak(), "rows": max(seen)}))


def _peak() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    """Print a table; whyglass comes first and settles the size of the one batch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.only:
        measure(chosen.only, chosen.rows)
        return
    from benchmarks.timing import machine

    print(f"{machine()}\n{'':<30}{'batch':>6}{'MiB used':>10}{'peak MiB':>10}")
    rows = 0
    for name in CONTENDERS:
        command = [sys.executable, "-m", "benchmarks.memory", "--only", name, "--rows", str(rows)]
        runs = [
            json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
            for _ in range(chosen.repeats)
        ]
        rows = rows or runs[0]["rows"]
        used = sorted(run["after"] - run["before"] for run in runs)[len(runs) // 2]
        peak = sorted(run["after"] for run in runs)[len(runs) // 2]
        print(f"{name:<30}{runs[0]['rows']:>6}{used:>10.0f}{peak:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
