"""DeepLIFT, LRP, guided backprop and deconvolution against Captum, SHAP, zennit and the floor.

    python -m benchmarks.propagation [--cases lite0 transformer mlp] [--seconds 20]

DeepLIFT's floor is one pass forwards of input and baseline and one input gradient, written plainly;
that of the others one pass forwards and one input gradient. Beside the time stands the completeness
gap: what a DeepLIFT that does not add up costs is no comparison. Who cannot run a case is left out and
named.
"""

from __future__ import annotations

import argparse
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum import attr as captum
from torch import Tensor, nn

import whyglass
from benchmarks.models import CASES, Case
from benchmarks.timing import CLOCKS, HEADING, Call, alternate, machine
from tests.peers import peer, zennit_composite, zennit_relevance
from whyglass.core.method import Method


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


def explainer(case: Case, baseline: Tensor) -> Call:
    """SHAP's DeepExplainer on one output, or each in turn where rows differ in their class."""
    deep = importlib.import_module("shap").DeepExplainer

    class Picked(nn.Module):
        def __init__(self, target: int) -> None:
            super().__init__()
            self.model, self.target = case.model, target

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)[:, self.target : self.target + 1]

    made = {
        target: deep(Picked(target), baseline[:1]) for target in sorted(set(case.target.tolist()))
    }

    def explain() -> None:
        for target, one in made.items():
            one.shap_values(case.inputs[case.target == target], check_additivity=False)

    return explain


def of_deeplift(case: Case, baseline: Tensor) -> dict[str, Call]:
    """Ours by each rule, and theirs."""
    theirs = captum.DeepLift(case.model)
    found: dict[str, Call] = {
        f"whyglass deeplift, {rule}": ours(
            whyglass.DeepLIFT(rule=rule),  # type: ignore[arg-type]
            case, baseline=0.0,
        )
        for rule in ("rescale", "reveal-cancel", "reveal-cancel-dense")
    }  # fmt: skip
    found["captum deeplift"] = lambda: theirs.attribute(case.inputs, target=case.target)
    found["shap deep explainer"] = explainer(case, baseline)
    return found


def ours(method: Method, case: Case, **given: Any) -> Callable[[], Tensor]:
    """One of our methods."""

    def explain() -> Tensor:
        found = method(case.model, case.inputs, target=case.target, **given).values
        assert isinstance(found, Tensor)
        return found

    return explain


def of_lrp(case: Case) -> dict[str, Call]:
    """Ours by preset, AttnLRP and CP-LRP, and zennit's and Captum's."""
    found: dict[str, Call] = {
        f"whyglass lrp, {rule}": ours(whyglass.LRP(rule=rule, bias="share"), case)
        for rule in ("epsilon", "gamma", "epsilon-plus", "epsilon-gamma-box")
    }
    found["whyglass attn-lrp"] = ours(whyglass.AttnLRP(), case)
    found["whyglass cp-lrp"] = ours(whyglass.CPLRP(), case)
    rules, composites = peer("zennit.rules"), peer("zennit.composites")
    low, high = case.inputs.amin(), case.inputs.amax()
    theirs = {
        # Its composites pass relevance through "activations", among which it counts torch's attention.
        "epsilon, linear layers alone": composites.LayerMapComposite(
            [(peer("zennit.types").Linear, rules.Epsilon())]
        ),
        "epsilon": zennit_composite(rules.Epsilon()),
        "gamma": zennit_composite(rules.Gamma()),
        "epsilon-plus": composites.EpsilonPlus(),
        "epsilon-gamma-box": composites.EpsilonGammaBox(low, high),
    }
    for name, composite in theirs.items():
        found[f"zennit, {name}"] = lambda composite=composite: zennit_relevance(
            case.model, composite, case.inputs, case.target
        )
    relevance = captum.LRP(case.model)
    found["captum lrp"] = lambda: relevance.attribute(case.inputs, target=case.target)
    return found


def of_gates(case: Case) -> dict[str, Call]:
    """Ours and Captum's."""
    theirs = captum.GuidedBackprop(case.model)
    return {
        "whyglass guided-backprop": ours(whyglass.GuidedBackprop(), case),
        "whyglass deconvolution": ours(whyglass.Deconvolution(), case),
        "captum guided backprop": lambda: theirs.attribute(case.inputs, target=case.target),
    }


def running(contenders: dict[str, Call]) -> dict[str, Call]:
    """Those that run; the others are named with their error."""
    found: dict[str, Call] = {}
    for name, call in contenders.items():
        try:
            call()
        except Exception as error:
            print(f"{name} does not run: {type(error).__name__}: {str(error)[:70]}")
        else:
            found[name] = call
    return found


def measure(name: str, seconds: float, clock: str) -> None:
    """Print the tables of one case."""
    case = CASES[name]()
    baseline = torch.zeros_like(case.inputs)
    print(f"\n{case.name}")
    tables = [
        ("floor of deeplift", baseline, of_deeplift(case, baseline)),
        ("floor of lrp", None, of_lrp(case)),
        ("floor of guided backprop", None, of_gates(case)),
    ]
    for floor, start, contenders in tables:
        able = running(contenders)
        if start is not None:
            for who in ("whyglass deeplift, rescale", "captum deeplift"):
                values = able[who]()
                assert isinstance(values, Tensor)
                print(f"completeness gap of {who}, worst row: {gap(case, values, start):.1e}")
        print(HEADING)
        able = {floor: lambda start=start: plain(case, start)} | able
        for timed in alternate(able, floor, seconds / len(tables), clock):
            print(timed.row(), flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: needs --threads 1")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.simplefilter("ignore")  # Captum warns of every hook it sets
    print(f"{machine()}, {chosen.clock} time")
    for name in chosen.cases:
        measure(name, chosen.seconds, chosen.clock)


if __name__ == "__main__":
    main()
