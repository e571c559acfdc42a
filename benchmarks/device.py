"""A processor of another kind beside the CPU: the contract tests, every method's answers, the time.

`python -m benchmarks.device --device cuda --json gpu.json` runs the contract tests with their networks
and inputs on the device, compares each method's answer there with the CPU's in float64 and in float32,
and times methods over their floor at 224 pixels and 64 rows. `--device cpu --quick` shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import torch
from torch import Tensor, nn

import whyglass
from benchmarks.models import Transformer, lite0
from benchmarks.timing import alternate, machine
from tests.contract.cases import arguments, each, leaves, pairs, small
from tests.zoo.networks import Network
from whyglass import Explanation, Method

TIMED: dict[str, Method] = {
    "saliency": whyglass.Saliency(),
    "smoothgrad, 8 samples": whyglass.SmoothGrad(samples=8),
    "integrated gradients, 16 midpoints": whyglass.IntegratedGradients(steps=16, rule="midpoint"),
    "guided backprop": whyglass.GuidedBackprop(),
    "lrp, gamma": whyglass.LRP(),
    "attn-lrp": whyglass.AttnLRP(),
    "deeplift": whyglass.DeepLIFT(),
}


def contract(device: str, quick: bool) -> dict[str, Any]:
    """The contract tests on the device: how many passed, and which did not."""
    chosen = ["tests/contract/test_same_answer.py", "-k", "dtype_and_device"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}"]
        run = subprocess.run(
            [*command, *(chosen if quick else ["tests/contract"])],
            env=os.environ | {"WHYGLASS_TEST_DEVICE": device},
            cwd=Path(__file__).parents[1],
            stdout=sys.stderr,
            check=False,
        )
        cases = list(ET.parse(report).iter("testcase"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(failed) - skipped
    return {"passed": passed, "skipped": skipped, "failed": failed, "exit code": run.returncode}


def answered(kind: type[Method], network: Network, device: str, dtype: torch.dtype) -> Explanation:
    """The method's answer with network and inputs on a device."""
    call = arguments(kind, network, dtype=dtype)
    if isinstance(call.get("baseline"), whyglass.Background):
        call["baseline"] = whyglass.Background(
            moved(network.inputs(5, seed=5, dtype=dtype), device)
        )
    model = network.make(dtype=dtype).to(device)
    return small(kind)(model, moved(network.inputs(dtype=dtype), device), target=1, **call)


def moved(inputs: Any, device: str) -> Any:
    """The same inputs on another device."""
    return each(inputs, lambda leaf: leaf.to(device))


def differences(device: str, quick: bool) -> dict[str, dict[str, Any]]:
    """By method and type: the largest relative difference of its values, and the network it is on."""
    worst: dict[str, dict[str, Any]] = {}
    for case in pairs():
        kind, network = case.values
        if quick and network.name not in {"mlp", "gap-cnn", "vit"}:
            continue
        for dtype in (torch.float64, torch.float32):
            cpu, other = (answered(kind, network, place, dtype) for place in ("cpu", device))
            figure = max(map(relative, leaves(cpu.values), leaves(other.values)))
            entry = worst.setdefault(kind.name, {})
            name = str(dtype).removeprefix("torch.")
            if name not in entry or figure > entry[name]["difference"]:
                entry[name] = {"difference": figure, "network": network.name}
        print(f"compared {kind.name} on {network.name}", file=sys.stderr)
    return worst


def relative(one: Tensor, other: Tensor) -> float:
    """Euclidean distance over the norm of the first; the distance itself where that is zero."""
    gap, size = float((one - other.cpu()).double().norm()), float(one.double().norm())
    return gap / size if size else gap


def times(device: str, quick: bool, seconds: float) -> dict[str, dict[str, Any]]:
    """By network and method: median seconds, and median ratio to as many plain passes."""
    rows, side, length = (2, 96, 16) if quick else (64, 224, 196)
    generator = torch.Generator().manual_seed(0)
    cases: dict[str, tuple[nn.Module, Tensor]] = {
        f"EfficientNet-Lite0, {rows} x {side} x {side}": (
            lite0(),
            torch.randn(rows, 3, side, side, generator=generator),
        ),
        f"transformer, {rows} x {length} tokens": (
            Transformer().eval(),
            torch.randn(rows, length, 256, generator=generator),
        ),
    }
    measured: dict[str, dict[str, Any]] = {}
    for name, (model, inputs) in cases.items():
        model, inputs = model.to(device), inputs.to(device)
        for label, method in TIMED.items():
            measured.setdefault(name, {})[label] = over_floor(method, model, inputs, seconds)
            print(f"timed {label} on {name}", file=sys.stderr)
    return measured


def over_floor(
    method: Method, model: nn.Module, inputs: Tensor, seconds: float
) -> dict[str, float]:
    """Median seconds of one method and their ratio to the floor's, in alternating rounds."""
    baseline = 0.0 if method.baseline_is == "row" else None

    def explain() -> Explanation:
        return method(model, inputs, target=1, baseline=baseline)

    answer, rows = explain(), len(inputs)

    def plain() -> None:
        for _ in range(round(answer.gradients / rows)):
            batch = inputs.detach().clone().requires_grad_()
            torch.autograd.grad(model(batch)[:, 1].sum(), batch)
        with torch.no_grad():
            for _ in range(round((answer.evaluations - answer.gradients) / rows)):
                model(inputs)

    contenders = {"floor": finished(plain, inputs), "method": finished(explain, inputs)}
    timed = alternate(contenders, "floor", seconds, least=3)[1]
    return {"seconds": timed.typical, "over the floor": median(timed.ratios)}


def finished(call: Callable[[], object], where: Tensor) -> Callable[[], object]:
    """The call, waited for: a GPU runs behind the calls made to it."""

    def run() -> object:
        result = call()
        if where.is_cuda:
            torch.cuda.synchronize(where.device)
        return result

    return run


def main() -> None:
    """Write one JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few networks, small inputs")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each timing")
    parser.add_argument("--json", type=Path, default=Path("device.json"))
    chosen = parser.parse_args()
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no CUDA device is at hand: --device cpu --quick shows that the script runs")
    warnings.simplefilter("ignore")
    cuda = chosen.device.startswith("cuda")
    result = {
        "machine": machine(),
        "device": torch.cuda.get_device_name(chosen.device) if cuda else chosen.device,
        "quick": chosen.quick,
        "times": times(chosen.device, chosen.quick, 1.0 if chosen.quick else chosen.seconds),
        "differences from the CPU": differences(chosen.device, chosen.quick),
        "contract tests": contract(chosen.device, chosen.quick),
    }
    chosen.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(f"wrote {chosen.json}")


if __name__ == "__main__":
    main()
