"""Gradient methods and Grad-CAM against Captum and against the floor.

    python -m benchmarks.gradient [--cases lite0 transformer mlp] [--methods ...] [--seconds 20]

The floor of a method is the same number of forward and of forward + input-gradient evaluations, in a
plain loop over a batch that is there already, at the batch size that a sweep finds fastest: nothing
of the method itself, neither noise nor path nor sums.
"""

from __future__ import annotations

import argparse
import math
import warnings

import torch
from captum.attr import (
    InputXGradient,
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor

import whyglass
from benchmarks.models import CASES, Case
from benchmarks.timing import CLOCKS, HEADING, Call, alternate, machine

SAMPLES, STEPS = 32, 50
NOISE = 0.15
SIZES = {
    "lite0": (1, 2, 4, 8, 16),
    "transformer": (1, 2, 4, 8, 16, 32),
    "mlp": (128, 256, 512, 1024, 2048, 4096),
}
METHODS = ("saliency", "gradient-x-input", "smoothgrad", "integrated-gradients", "grad-cam")


class Floor:
    """Plain evaluations of one case."""

    def __init__(self, case: Case, name: str, seconds: float, clock: str) -> None:
        self.case = case
        rows = len(case.inputs)
        sizes = SIZES[name]
        copies = math.ceil(max(sizes) / rows)
        self.inputs = case.inputs.repeat(copies, *[1] * (case.inputs.dim() - 1)).contiguous()
        self.target = case.target.repeat(copies)
        calls = {str(size): lambda size=size: self.gradients(size, size) for size in sizes}
        timed = alternate(calls, str(sizes[0]), seconds, clock, least=5)
        self.size = min((each.typical / int(each.name), int(each.name)) for each in timed)[1]

    def gradients(self, count: int, size: int) -> None:
        """`count` rows forwards and backwards to the input, `size` at a time."""
        for low in range(0, count, size):
            rows = min(size, count - low)
            batch = self.inputs[:rows].requires_grad_()
            score = self.case.model(batch).gather(1, self.target[:rows, None]).sum()
            torch.autograd.grad(score, batch)

    def forwards(self, count: int) -> None:
        """`count` rows forwards."""
        with torch.no_grad():
            self.case.model(self.inputs[:count])

    def method(self, name: str) -> Call:
        """The evaluations that a method needs."""
        rows = len(self.case.inputs)

        def smooth() -> None:
            self.forwards(rows)
            self.gradients(rows * SAMPLES, self.size)

        def integrate() -> None:
            self.forwards(rows)
            self.forwards(rows)
            self.gradients(rows * STEPS, self.size)

        return {
            "saliency": lambda: self.gradients(rows, rows),
            "gradient-x-input": lambda: self.gradients(rows, rows),
            "smoothgrad": smooth,
            "integrated-gradients": integrate,
            "grad-cam": self._layer,
        }[name]

    def _layer(self) -> None:
        """Forwards to the last activation without a graph, then the head and its gradient."""
        model = self.case.model
        with torch.no_grad():
            features = model.extract_features(self.case.inputs)
        features.requires_grad_()
        pooled = model._avg_pooling(features).flatten(1)
        score = model._fc(pooled).gather(1, self.case.target[:, None]).sum()
        torch.autograd.grad(score, features)


def ours(case: Case, name: str) -> dict[str, Call]:
    """whyglass as a user calls it."""
    settings = {
        "saliency": {"": {}},
        "gradient-x-input": {"": {}},
        "smoothgrad": {"": {"samples": SAMPLES, "noise": NOISE}},
        # A tolerance that cannot be met, so that the adaptive rule spends all its steps.
        "integrated-gradients": {
            "": {"steps": STEPS, "rule": "midpoint"},
            ", adaptive": {"steps": STEPS, "tol": 1e-12},
        },
        "grad-cam": {"": {}},
    }[name]
    baseline = case.baseline if name == "integrated-gradients" else None

    def call(method: whyglass.METHODS[name]) -> Call:
        return lambda: method(case.model, case.inputs, target=case.target, baseline=baseline)

    return {
        f"whyglass{label}": call(whyglass.METHODS[name](**chosen))
        for label, chosen in settings.items()
    }


def captum(case: Case, name: str, size: int) -> dict[str, Call]:
    """Captum, and where it has the option the same again in batches of the floor's size."""
    model, inputs, target = case.model, case.inputs, case.target
    if name == "saliency":
        saliency = Saliency(model)
        return {"captum": lambda: saliency.attribute(inputs, target)}
    if name == "gradient-x-input":
        product = InputXGradient(model)
        return {"captum": lambda: product.attribute(inputs, target)}
    if name == "smoothgrad":
        tunnel = NoiseTunnel(Saliency(model))
        spread = NOISE * float(inputs.max() - inputs.min())

        def smooth(at_once: int | None) -> Tensor:
            return tunnel.attribute(
                inputs,
                nt_type="smoothgrad",
                nt_samples=SAMPLES,
                stdevs=spread,
                target=target,
                nt_samples_batch_size=at_once,
                abs=False,
            )

        at_once = max(1, min(SAMPLES, size // len(inputs)))
        return {
            "captum": lambda: smooth(None),
            f"captum, {at_once} samples at a time": lambda: smooth(at_once),
        }
    if name == "integrated-gradients":
        path = IntegratedGradients(model)

        def integrate(at_once: int | None) -> Tensor:
            return path.attribute(
                inputs,
                case.baseline,
                target,
                n_steps=STEPS,
                internal_batch_size=at_once,
                method="riemann_middle",
            )

        # Captum warns, and works on, when a batch is smaller than the rows.
        at_once = max(size, len(inputs))
        return {
            "captum": lambda: integrate(None),
            f"captum, internal_batch_size={at_once}": lambda: integrate(at_once),
        }
    gradcam = LayerGradCam(model, case.pooling)

    def layer() -> Tensor:
        low = gradcam.attribute(
            inputs, target, attribute_to_layer_input=True, relu_attributions=True
        )
        return LayerAttribution.interpolate(low, tuple(inputs.shape[2:]), "bilinear")

    return {"captum": layer}


def main() -> None:
    """Print one table a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seconds", type=float, default=20, help="for each method of each case")
    parser.add_argument("--no-captum", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: needs --threads 1")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    warnings.filterwarnings("ignore", module="captum")
    print(f"{machine()}, {chosen.clock} time")
    for key in chosen.cases:
        case = CASES[key]()
        floor = Floor(case, key, chosen.seconds / 2, chosen.clock)
        print(f"\n{case.name}; the floor's batch: {floor.size}\n{HEADING}")
        for name in chosen.methods:
            if name == "grad-cam" and case.pooling is None:
                continue
            contenders = {"floor": floor.method(name), **ours(case, name)}
            if not chosen.no_captum:
                contenders |= captum(case, name, floor.size)
            print(name)
            for timed in alternate(contenders, "floor", chosen.seconds, chosen.clock):
                print("  " + timed.row(), flush=True)


if __name__ == "__main__":
    main()
