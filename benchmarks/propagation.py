"""DeepLIFT, guided backprop and deconvolution against Captum and against the floor.

    python -m benchmarks.propagation [--cases lite0 transformer mlp] [--seconds 20]

DeepLIFT's floor is one pass forwards of input and baseline and one input gradient, written plainly;
that of the gated methods one pass forwards and one input gradient. Beside the time stands the
completeness gap: what a DeepLIFT that does not add up costs is no comparison.
"""

from __future__ import annotations

import argparse
import warnings

import torch
from captum.attr import DeepLift, GuidedBackprop
from torch import Tensor

import whyglass
from benchmarks.models import CASES, Case
from benchmarks.timing import HEADING, Call, alternate, machine


def plain(case: Case, baseline: Tensor | None) -> None:
    """What any such method must at least compute."""
    if baseline is not None:
        with torch.no_grad():
            case.model(baseline)
    batch = case.inputs.detach().requires_grad_()
    score = case.model(batch).gather(1, case.target[:, None]).sum()
    torch.autograd.grad(score, batch)


def gap(case: Case, values: Tensor, baseline: Tensor) -> float:
    """Relative completeness gap, the worst row."""
    with torch.no_grad():
        ends = [
            case.model(x).gather(1, case.target[:, None])[:, 0] for x in (case.inputs, baseline)
        ]
    change = ends[0] - ends[1]
    return float(((values.flatten(1).sum(1) - change).abs() / change.abs()).max())


def measure(name: str, seconds: float) -> None:
    """Print the tables of one case."""
    case = CASES[name]()
    baseline = torch.zeros_like(case.inputs)
    model, inputs, target = case.model, case.inputs, case.target
    their_deeplift, their_guided = DeepLift(model), GuidedBackprop(model)

    def ours() -> Tensor:
        found = whyglass.DeepLIFT()(model, inputs, target=target, baseline=0.0).values
        assert isinstance(found, Tensor)
        return found

    def theirs() -> Tensor:
        return their_deeplift.attribute(inputs, target=target)

    tables: list[dict[str, Call]] = [
        {
            "floor of deeplift": lambda: plain(case, baseline),
            "whyglass deeplift": ours,
            "captum deeplift": theirs,
        },
        {
            "floor of guided backprop": lambda: plain(case, None),
            "whyglass guided-backprop": lambda: whyglass.GuidedBackprop()(
                model, inputs, target=target
            ),
            "whyglass deconvolution": lambda: whyglass.Deconvolution()(
                model, inputs, target=target
            ),
            "captum guided backprop": lambda: their_guided.attribute(inputs, target=target),
        },
    ]
    gaps = [gap(case, values, baseline) for values in (ours(), theirs())]
    print(
        f"\n{name}: DeepLIFT's completeness gap, worst row: whyglass {gaps[0]:.1e}, "
        f"Captum {gaps[1]:.1e}"
    )
    for contenders in tables:
        floor = next(iter(contenders))
        print(HEADING)
        for timed in alternate(contenders, floor, seconds / 2):
            print(timed.row())


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # Captum warns of every hook it sets
    print(machine())
    for name in chosen.cases:
        measure(name, chosen.seconds)


if __name__ == "__main__":
    main()
