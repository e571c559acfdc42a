"""Shapley estimators and LIME against SHAP, Captum and lime: what a given accuracy costs.

    python -m benchmarks.coalition [--cases trained] [--rows 8] [--goal 1.5] [--overhead]

Truth is every coalition. For each contender the budget rises until the median over rows of the relative
error (Euclidean norms) is at the goal; printed are evaluations of the model a row, counted by the model
itself, and processor seconds a row, all in one process. `--overhead` times one call of each of ours
against the floor, the same evaluations of the same masked rows in a plain loop, and lime and Captum's
LIME in the same rounds. lime is timed if it is installed; the error of its slopes is no question here.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import shap
import torch
from captum.attr import KernelShap, Lime, ShapleyValueSampling
from torch import Tensor, nn

import whyglass
from benchmarks.timing import HEADING, Call, alternate, machine

COLUMNS = 12
CASES = {"trained": (True, 100), "untrained": (False, 100), "one-row": (True, 1)}
MOST = 150_000


@dataclass(frozen=True)
class Case:
    """A network of 12 columns, rows to explain, and the rows that stand for absence."""

    model: nn.Module
    x: Tensor
    background: Tensor
    exact: Tensor


def network(trained: bool) -> nn.Module:
    """12-64-64-1; trained it follows products of two and three columns, a step and a sine."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        if trained:
            x = torch.randn(4000, COLUMNS)
            y = x[:, 0] * x[:, 1] + (2 * x[:, 2]).sin() + (x[:, 3] > 0) * x[:, 4]
            y = y + x[:, 5] ** 2 / 2 - x[:, 6] * x[:, 7] * x[:, 8] + 0.3 * x[:, 9]
            optimiser = torch.optim.Adam(made.parameters(), 3e-3)
            for batch in (b for _ in range(60) for b in torch.randperm(4000).split(200)):
                loss = ((made(x[batch])[:, 0] - y[batch]) ** 2).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return made.eval().requires_grad_(False)


def case(name: str, rows: int) -> Case:
    """A case of the table, with its truth."""
    trained, count = CASES[name]
    generator = torch.Generator().manual_seed(1)
    model = network(trained)
    x, data = (torch.randn(size, COLUMNS, generator=generator) for size in (rows, count))
    exact = whyglass.ExactShapley()(model, x, baseline=whyglass.Background(data)).values
    assert isinstance(exact, Tensor)
    return Case(model, x, data, exact)


class Counted(nn.Module):
    """The network, counting rows."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.inner(x)

    def array(self, x: Any) -> Any:
        """The same for numpy."""
        return self(torch.as_tensor(np.asarray(x), dtype=torch.float32))[:, 0].numpy()


Ladder = Iterator[tuple[int, Callable[[], Any]]]


def ours(kind: Any, one: Case, model: Counted, **settings: Any) -> Ladder:
    """Budgets that double, by root two."""
    budget = 2 * COLUMNS + 3 * len(one.background) + 30
    background = whyglass.Background(one.background)
    while budget < MOST:
        method = kind(budget=int(budget), **settings)
        try:
            method(lambda x: x.sum(1), one.x[:1], baseline=background)
        except whyglass.BadInput:  # does not pay for a first estimate
            budget *= 2**0.5
            continue
        yield int(budget), lambda m=method: m(model, one.x, baseline=background).values
        budget *= 2**0.5


def peers(name: str, one: Case, model: Counted) -> Ladder:
    """SHAP's and Captum's by how much they sample."""
    x, data = one.x.numpy(), one.background.numpy()
    for power in range(24):
        count = max(1, round(2 ** (power / 2)))

        def permutation(k: int = count) -> Any:
            masker = shap.maskers.Independent(data, len(data))
            explainer = shap.PermutationExplainer(model.array, masker, seed=0)
            return explainer(x, max_evals=k * (2 * COLUMNS + 1), silent=True).values

        def sampling(k: int = count) -> Any:
            np.random.seed(0)  # noqa: NPY002  SHAP draws from it
            explainer = shap.SamplingExplainer(model.array, data)
            return np.squeeze(explainer.shap_values(x, nsamples=500 * k, silent=True))

        def kernel(k: int = count) -> Any:
            np.random.seed(0)  # noqa: NPY002  SHAP draws from it
            explainer = shap.KernelExplainer(model.array, data)
            samples = 30 + 10 * k
            return np.squeeze(explainer.shap_values(x, nsamples=samples, l1_reg=False, silent=True))

        def captum(kind: Any, k: int, **more: Any) -> Any:
            torch.manual_seed(0)
            total = torch.zeros_like(one.x)
            for base in one.background:
                total += kind(lambda g: model(g)[:, 0]).attribute(
                    one.x, base[None], n_samples=k, **more
                )
            return total / len(one.background)

        contenders: dict[str, Callable[[], Any]] = {
            "SHAP permutation": permutation,
            "SHAP sampling": sampling,
            "SHAP kernel": kernel,
            "Captum sampling": lambda k=count: captum(ShapleyValueSampling, k),
            "Captum kernel": lambda k=count: captum(KernelShap, 15 + 5 * k),
        }
        yield count, contenders[name]


def reach(ladder: Ladder, one: Case, model: Counted, goal: float) -> str:
    """Climb until the median error is at the goal, or what was reached."""
    text = "nothing affordable"
    for _, call in ladder:
        model.rows, start = 0, time.process_time()
        found = torch.as_tensor(np.asarray(call()), dtype=torch.float64)
        spent = (time.process_time() - start) / len(one.x)
        error = (found - one.exact).norm(dim=1) / one.exact.norm(dim=1)
        middle, cost = 100 * float(error.median()), model.rows / len(one.x)
        text = f"{middle:8.2f}%{cost:12.0f}{1e3 * spent:12.1f}"
        if middle <= goal:
            return text
        if cost > MOST / 1.5 or spent > 4:
            break
    return text + "   (goal not reached)"


def accuracy(name: str, rows: int, goal: float) -> None:
    """The table of one case."""
    one = case(name, rows)
    model = Counted(one.model)
    print(
        f"\n{name}: {COLUMNS} columns, {len(one.background)} background rows, {rows} rows explained"
    )
    print(f"{'':<26}{'error':>9}{'evaluations':>12}{'CPU ms':>12}   a row, at {goal}%")
    ladders: dict[str, Ladder] = {
        "permutation-shapley": ours(whyglass.PermutationShapley, one, model),
        "kernel-shap, leverage": ours(whyglass.KernelSHAP, one, model),
        "kernel-shap, kernel": ours(whyglass.KernelSHAP, one, model, weights="kernel"),
    }
    theirs = [
        "SHAP permutation",
        "SHAP sampling",
        "SHAP kernel",
        "Captum sampling",
        "Captum kernel",
    ]
    ladders |= {peer: peers(peer, one, model) for peer in theirs}
    for contender, ladder in ladders.items():
        print(f"{contender:<26}{reach(ladder, one, model, goal)}", flush=True)


def overhead(rows: int, seconds: float) -> None:
    """Ours over the floor; LIME against its peers."""
    one = case("trained", rows)
    background = whyglass.Background(one.background)
    tables = {
        "permutation-shapley": (whyglass.PermutationShapley(budget=4501), background),
        "kernel-shap": (whyglass.KernelSHAP(budget=1000), 0.0),
        "lime": (whyglass.LIME(budget=1000), 0.0),
    }
    for name, (method, baseline) in tables.items():
        evaluations = method(one.model, one.x, baseline=baseline).evaluations
        keep = torch.rand(evaluations, COLUMNS) > 0.5
        row, base = (
            torch.randint(rows, (evaluations,)),
            torch.randint(len(one.background), (evaluations,)),
        )
        calls: dict[str, Call] = {
            "floor": lambda e=evaluations, k=keep, r=row, b=base: plain(one, e, k, r, b),
            f"whyglass {name}": lambda m=method, b=baseline: m(one.model, one.x, baseline=b),
        }
        if name == "lime":
            calls |= lime_peers(one)
        print(f"\n{evaluations} evaluations\n{HEADING}")
        for timed in alternate(calls, "floor", seconds, "cpu", least=3):
            print(timed.row(), flush=True)


def plain(one: Case, evaluations: int, keep: Tensor, row: Tensor, base: Tensor) -> None:
    """Mask and evaluate, in pieces of the size that is fastest here."""
    for start in range(0, evaluations, 4096):
        piece = slice(start, start + 4096)
        one.model(torch.where(keep[piece], one.x[row[piece]], one.background[base[piece]]))


def lime_peers(one: Case) -> dict[str, Call]:
    """As many samples a row as ours."""
    model, count = Counted(one.model), 1000

    def captum() -> None:
        for row in one.x:
            Lime(lambda g: model(g)[:, 0]).attribute(
                row[None], n_samples=count, perturbations_per_eval=count
            )

    calls: dict[str, Call] = {"Captum Lime": captum}
    if find_spec("lime"):
        from lime.lime_tabular import LimeTabularExplainer

        explainer = LimeTabularExplainer(one.background.numpy(), mode="regression")

        def lime() -> None:
            for row in one.x.numpy():
                explainer.explain_instance(
                    row, model.array, num_features=COLUMNS, num_samples=count
                )

        calls["lime"] = lime
    return calls


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--goal", type=float, default=1.5)
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    logging.getLogger("shap").setLevel(logging.ERROR)
    print(machine())
    for name in chosen.cases:
        accuracy(name, chosen.rows, chosen.goal)
    if chosen.overhead:
        overhead(chosen.rows, chosen.seconds)


if __name__ == "__main__":
    main()
