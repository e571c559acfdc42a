"""Where Captum, SHAP and zennit give other numbers, and how far each is from its own promise.

    python -m benchmarks.disagreements [--quick]

`--quick` leaves out EfficientNet-Lite0. Each case prints what was promised (values that add up, an
answer that does not depend on the spelling of the network or on other rows) and by how much it fails.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import numpy as np
import shap
import torch
from captum import attr as captum
from captum.attr import DeepLift, GuidedBackprop
from torch import Tensor, nn
from torch.nn import functional as F

import whyglass
from benchmarks.models import CASES
from tests.peers import peer, zennit_composite, zennit_relevance
from whyglass import LRP, AlphaBeta, DeepLIFT, Gamma

Network = Callable[[Tensor], Tensor]


class Picked(nn.Module):
    """One output of a network."""

    def __init__(self, model: nn.Module, target: int) -> None:
        super().__init__()
        self.model, self.target = model, target

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)[:, self.target : self.target + 1]


@dataclass(frozen=True)
class Deep:
    """A network, inputs, baselines and classes, a row each."""

    model: nn.Module
    x: Tensor
    base: Tensor
    target: Tensor

    @property
    def change(self) -> Tensor:
        """What DeepLIFT's values add up to, by promise."""
        with torch.no_grad():
            ends = [
                self.model(at).gather(1, self.target[:, None])[:, 0] for at in (self.x, self.base)
            ]
        return ends[0] - ends[1]

    def gap(self, values: Tensor) -> str:
        """The worst row's relative gap."""
        missed = (values.flatten(1).sum(1) - self.change).abs() / self.change.abs()
        return f"{float(missed.max()):.1e}"

    def ours(self) -> Tensor:
        found = [
            DeepLIFT()(
                self.model, self.x[i : i + 1], target=int(self.target[i]), baseline=self.base[i]
            )
            for i in range(len(self.x))
        ]
        return torch.cat([one.values for one in found])  # type: ignore[misc]

    def captum(self) -> Tensor:
        return DeepLift(self.model).attribute(self.x, self.base, target=self.target).detach()

    def shap(self) -> Tensor:
        """SHAP's DeepExplainer, a row against its own baseline."""
        rows = []
        for x, base, target in zip(self.x, self.base, self.target, strict=True):
            # It would explain all outputs, a thousand of them, one after the other.
            explainer = shap.DeepExplainer(Picked(self.model, int(target)), base[None])
            rows.append(np.asarray(explainer.shap_values(x[None], check_additivity=False))[..., 0])
        return torch.from_numpy(np.concatenate(rows))


def completeness(name: str, case: Deep) -> None:
    """One line: the gap of each."""
    cells = []
    for who in ("ours", "captum", "shap"):
        try:
            cells.append(case.gap(getattr(case, who)()))
        except Exception as error:  # an error is an answer too
            cells.append(type(error).__name__)
    print(f"{name:<52}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


class Functional(nn.Module):
    """An MLP with F.relu, a module reused, or a module each."""

    def __init__(self, style: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 16), nn.Linear(16, 12), nn.Linear(12, 4)])
        self.relus = nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.style = style

    def forward(self, x: Tensor) -> Tensor:
        for place in range(2):
            x = self.layers[place](x)
            if self.style == "functional":
                x = F.relu(x)
            else:
                x = self.relus[place if self.style == "module" else 0](x)
        return self.layers[2](x)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.relu = nn.Linear(5, 5, bias=False), nn.ReLU()
        self.head = nn.Linear(5, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.relu(self.inner(x)))


class PlainSum(nn.Module):
    """x + x, by an operator: each output is 2 x."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4, bias=False)
        nn.init.eye_(self.one.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.one(x)


class Softmaxed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.softmax = nn.Linear(5, 4), nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(self.body(x))


def drawn(make: Callable[[], nn.Module], shape: tuple[int, ...], classes: int = 4) -> Deep:
    """Random weights, inputs and baselines, in float64."""
    torch.manual_seed(0)
    model = make().double().eval()
    x, base = torch.randn(2, 4, *shape, dtype=torch.float64)
    return Deep(model, x, base, torch.arange(4) % classes)


def pooled(window: int, stride: int) -> nn.Sequential:
    size = (6 - window) // stride + 1
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(window, stride), nn.Flatten(),
        nn.Linear(6 * size * size, 4),
    )  # fmt: skip


def of_case(name: str, other: bool = False) -> Deep:
    """One of the benchmarks' networks, against zeros or another input."""
    case = CASES[name]()
    torch.manual_seed(1)
    base = torch.randn_like(case.inputs) if other else torch.zeros_like(case.inputs)
    return Deep(case.model, case.inputs, base, case.target)


def deeplift(quick: bool) -> None:
    """Completeness gaps of DeepLIFT."""
    heading = "DeepLIFT: relative completeness gap, worst row"
    print(f"{heading:<52}{'whyglass':>16}{'Captum':>16}{'SHAP':>16}")
    for style in ("module", "functional", "reused"):
        completeness(f"MLP, ReLU {style}", drawn(lambda s=style: Functional(s), (5,)))
    completeness("softmax", drawn(Softmaxed, (5,)))
    completeness("ReLU, max pooling 2, no overlap", drawn(lambda: pooled(2, 2), (2, 8, 8)))
    completeness("ReLU, max pooling 3, stride 1", drawn(lambda: pooled(3, 1), (2, 8, 8)))
    completeness("transformer, float32, baseline another sequence", of_case("transformer", True))
    completeness("transformer, float32, baseline zeros", of_case("transformer"))
    if not quick:
        completeness("EfficientNet-Lite0, a photo, float32", of_case("lite0"))


def neighbours() -> None:
    """Whether a row's answer depends on the rows beside it, and on how ReLU is spelled."""
    case = drawn(Softmaxed, (5,))
    alone = [
        Deep(case.model, *(part[i : i + 1] for part in (case.x, case.base, case.target))).captum()
        for i in range(4)
    ]
    print("\nlargest difference as a share of the largest value")
    beside = apart(case.captum(), torch.cat(alone))
    print(f"  Captum DeepLift, softmax, a row alone or among four: {beside}")
    module, functional = (
        drawn(lambda s=style: Functional(s), (5,)) for style in ("module", "functional")
    )
    both = (module, functional)
    answers = {
        "Captum DeepLift": [case.captum() for case in both],
        "whyglass deeplift": [case.ours() for case in both],
        "Captum GuidedBackprop": [guided(case) for case in both],
        "whyglass guided-backprop": [
            whyglass.GuidedBackprop()(case.model, case.x, target=case.target).values
            for case in both
        ],
    }
    for name, (one, other) in answers.items():
        print(f"  {name}, nn.ReLU or F.relu: {apart(one, other)}")  # type: ignore[arg-type]
    x = functional.x.clone().requires_grad_()
    score = functional.model(x).gather(1, functional.target[:, None]).sum()
    (plain,) = torch.autograd.grad(score, x)
    same = torch.equal(guided(functional), plain)
    print(f"  Captum GuidedBackprop on F.relu is the plain gradient: {same}")


def guided(case: Deep) -> Tensor:
    """Captum's guided backprop."""
    return GuidedBackprop(case.model).attribute(case.x, target=case.target)


def apart(one: Tensor, other: Tensor) -> str:
    """The largest difference as a share of the largest value."""
    return f"{float((one - other).abs().max() / one.abs().max()):.3f}"


def ratio(values: Tensor, score: Tensor) -> str:
    """Sum of the values over the score, a row each."""
    shares = (values.flatten(1).sum(1) / score).tolist()
    return ", ".join(f"{share:.3f}" for share in shares)


def lrp() -> None:
    """LRP: residual sums, the bias, outputs with terms of one sign, sums near zero."""
    rules = peer("zennit.rules")
    target = torch.arange(4)
    print("\nLRP-epsilon on a network without biases: sum of the values over the score, a row each")
    for name, make, shape in (("x + x", PlainSum, (4,)), ("residual MLP", Residual, (5,))):
        case = drawn(make, shape)
        with torch.no_grad():
            score = case.model(case.x).gather(1, target[:, None])[:, 0]
        mine = LRP(rule="epsilon")(case.model, case.x, target=target).values
        assert isinstance(mine, Tensor)
        zennit = zennit_relevance(case.model, zennit_composite(rules.Epsilon()), case.x, target)
        theirs = captum.LRP(case.model).attribute(case.x, target=target).detach()
        for who, found in (("whyglass", mine), ("zennit", zennit), ("Captum", theirs)):
            print(f"  {name:<14}{who:<10}{ratio(found, score)}")

    print("\nLRP-epsilon on an MLP with biases: the same ratio")
    case = drawn(lambda: Functional("module"), (5,))
    with torch.no_grad():
        score = case.model(case.x).gather(1, target[:, None])[:, 0]
    model, x = case.model, case.x
    found = {
        f"whyglass, bias={bias!r}": LRP(rule="epsilon", bias=bias)(model, x, target=target).values
        for bias in ("ignore", "share")
    }
    found["zennit"] = zennit_relevance(
        case.model, zennit_composite(rules.Epsilon()), case.x, target
    )
    found["Captum"] = captum.LRP(case.model).attribute(case.x, target=target).detach()
    for who, values in found.items():
        print(f"  {who:<26}{ratio(values, score)}")  # type: ignore[arg-type]

    print(
        "\nalpha2-beta1, one output of terms 1 and 3 only: relevance of the inputs (the score is 4)"
    )
    layer = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 3.0]]))
    one = torch.ones(1, 2, dtype=torch.float64)
    mine = LRP(rule=AlphaBeta())(layer, one, target=0).values
    theirs = zennit_relevance(layer, zennit_composite(rules.AlphaBeta()), one, torch.tensor([0]))
    print(f"  whyglass {mine.tolist()}, zennit {[[round(v, 4) for v in theirs[0].tolist()]]}")  # type: ignore[union-attr]

    print("\ngamma = 2, the bias left out, MLP with biases: the same ratio")
    gamma = zennit_composite(rules.Gamma(2.0, zero_params="bias"))
    mine = LRP(rule=Gamma(gamma=2.0, epsilon=1e-6), bias="ignore")(
        case.model, case.x, target=target
    )
    print(f"  whyglass {ratio(mine.values, score)}")  # type: ignore[arg-type]
    print(f"  zennit   {ratio(zennit_relevance(case.model, gamma, case.x, target), score)}")


def layer_norm() -> None:
    """How much of its relevance a layer norm hands on."""
    torch.manual_seed(0)
    norm, x = nn.LayerNorm(8).double(), torch.randn(4, 8, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    leaf = x.clone().requires_grad_()
    functions = peer("lxt.explicit.functional")
    y = functions.layer_norm(leaf, norm.weight, norm.bias, norm.eps)
    (theirs,) = torch.autograd.grad(y, leaf, y.detach())
    print("\nlayer norm with bias: sum of the values over the relevance that came, a row each")
    print(f"  {'LXT':<24}{ratio(theirs, y.sum(1))}")
    for bias in ("share", "ignore"):
        method = whyglass.AttnLRP(rule="zero", bias=bias)  # type: ignore[arg-type]
        mine = method(lambda x: norm(x).sum(1), x).values
        print(f"  {'whyglass, bias ' + bias:<24}{ratio(mine, y.sum(1))}")  # type: ignore[arg-type]


def not_a_number() -> None:
    """The epsilon rule where float32 has no room left for its epsilon."""
    print(
        "\nLRP-epsilon on EfficientNet-Lite0, a photo, float32, largest size of a value / of the score"
    )
    case = CASES["lite0"]()
    with torch.no_grad():
        score = float(case.model(case.inputs).gather(1, case.target[:, None]))
    composite = zennit_composite(peer("zennit.rules").Epsilon())
    answers: dict[str, Callable[[], Tensor]] = {
        "zennit": lambda: zennit_relevance(case.model, composite, case.inputs, case.target),
        "zennit, epsilon 1e-9": lambda: zennit_relevance(
            case.model,
            zennit_composite(peer("zennit.rules").Epsilon(1e-9)),
            case.inputs,
            case.target,
        ),
    }
    for bias in ("share", "ignore"):
        for rule in ("epsilon", "gamma"):
            answers[f"whyglass, rule={rule!r}, bias={bias!r}"] = lambda rule=rule, bias=bias: (
                LRP(rule=rule, bias=bias)(case.model, case.inputs, target=case.target).values
            )
    for who, answer in answers.items():
        try:
            values = answer()
            total, size = float(values.sum()), float(values.abs().max())
            print(f"  {who:<42}sum {total / score:.3g}, largest {size / score:.3g}")
        except whyglass.BadInput as error:
            print(f"  {who:<42}{str(error)[:80]}...")


def main() -> None:
    """Print all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    names = ("torch", "captum", "shap", "zennit", "lxt")
    print(
        ", ".join(f"{name} {version(name)}" for name in names) + f", {date.today().isoformat()}\n"
    )
    deeplift(quick)
    neighbours()
    lrp()
    layer_norm()
    if not quick:
        not_a_number()


if __name__ == "__main__":
    main()
