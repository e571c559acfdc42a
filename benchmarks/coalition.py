"""Shapley estimators and LIME against SHAP, Captum and lime: what a given accuracy costs.

    python -m benchmarks.coalition [--cases trained] [--rows 8] [--goal 1.5] [--overhead]
                                   [--data shared/data] [--cache DIR] [--trace]

The cases are those of `benchmarks.coalition_cases`. For each contender the budget rises until the
median over rows of the relative error (Euclidean norms) is at the goal; printed are evaluations of the
model a row, counted by the model itself, and processor time a row, all in one process. Where an
evaluation takes milliseconds there is one budget for all. SHAP's partition explainer is left out: its
values are Owen's. `--overhead` times a call of each of ours against the floor, the same evaluations of
the same masked rows in a plain loop, and lime and Captum's LIME beside it; the error of slopes is no
question here.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import shap
import torch
from captum.attr import KernelShap, Lime, ShapleyValueSampling
from lime.lime_tabular import LimeTabularExplainer
from torch import Tensor, nn

import whyglass
from benchmarks.coalition_cases import (
    Case,
    adult,
    questions,
    superpixels,
    synthetic,
    thirty,
)
from benchmarks.timing import HEADING, Call, alternate, machine

CASES: dict[str, Callable[[Path, Path, int], list[Case]]] = {
    "trained": lambda _data, _cache, rows: [synthetic(True, 100, rows)],
    "untrained": lambda _data, _cache, rows: [synthetic(False, 100, rows)],
    "one-row": lambda _data, _cache, rows: [synthetic(True, 1, rows)],
    "adult": lambda data, _cache, rows: [adult(data, rows)],
    "thirty": lambda _data, cache, rows: [thirty(cache, rows)],
    "superpixels": lambda _data, cache, _rows: [superpixels(cache)],
    "questions": lambda data, cache, _rows: [*questions(data, cache, 1)],
}
PATIENCE = 6.0  # seconds a row, where the model itself is fast
RUNG = 2**0.25


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


Contender = Callable[[Case, Counted, int], Any]


def ours(kind: Any, **settings: Any) -> Contender:
    """One of our methods, by budget."""

    def call(one: Case, model: Counted, budget: int) -> Any:
        background = whyglass.Background(one.background)
        return kind(budget=budget, **settings)(model, one.x, baseline=background).values

    return call


def shap_permutation(one: Case, model: Counted, budget: int) -> Any:
    """SHAP's own permutations, both ways; at least one a row."""
    turn = 2 * one.x.shape[1] + 1
    times = max(1, round(budget / turn / len(one.background)))
    masker = shap.maskers.Independent(one.background.numpy(), len(one.background))
    explainer = shap.PermutationExplainer(model.array, masker, seed=0)
    return explainer(one.x.numpy(), max_evals=times * turn, silent=True).values


def shap_sampling(one: Case, model: Counted, budget: int) -> Any:
    """Štrumbelj & Kononenko's."""
    np.random.seed(0)  # noqa: NPY002  SHAP draws from it
    explainer = shap.SamplingExplainer(model.array, one.background.numpy())
    return explainer.shap_values(one.x.numpy(), nsamples=budget, silent=True)


def shap_kernel(one: Case, model: Counted, budget: int) -> Any:
    """Without a lasso."""
    np.random.seed(0)  # noqa: NPY002  SHAP draws from it
    explainer = shap.KernelExplainer(model.array, one.background.numpy())
    samples = max(2 * one.x.shape[1], budget // len(one.background))
    return explainer.shap_values(one.x.numpy(), nsamples=samples, l1_reg=False, silent=True)


def captum(kind: Any, each: Callable[[Case, int], int]) -> Contender:
    """One baseline row after the other, as Captum has no background."""

    def call(one: Case, model: Counted, budget: int) -> Any:
        torch.manual_seed(0)
        count, total = max(1, each(one, budget)), torch.zeros_like(one.x)
        for base in one.background:
            total += kind(lambda g: model(g)[:, 0]).attribute(one.x, base[None], n_samples=count)
        return total / len(one.background)

    return call


CONTENDERS: dict[str, Contender] = {
    "regression-adjusted-shapley": ours(whyglass.RegressionAdjustedShapley),
    "permutation-shapley": ours(whyglass.PermutationShapley),
    "kernel-shap, leverage": ours(whyglass.KernelSHAP),
    "kernel-shap, kernel": ours(whyglass.KernelSHAP, weights="kernel"),
    "SHAP permutation": shap_permutation,
    "SHAP sampling": shap_sampling,
    "SHAP kernel": shap_kernel,
    "Captum sampling": captum(
        ShapleyValueSampling, lambda one, budget: budget // one.x.shape[1] // len(one.background)
    ),
    "Captum kernel": captum(KernelShap, lambda one, budget: budget // len(one.background)),
}


def reach(contender: Contender, cases: list[Case], goal: float, trace: bool) -> str:
    """Climb by a fifth until the median error is at the goal, or say what was reached."""
    first = cases[0]
    budget = float(first.least or 2 * first.x.shape[1] + 3 * len(first.background) + 30)
    rows, text, last = sum(len(one.x) for one in cases), "nothing affordable", 0
    while budget <= first.most:
        errors, evaluations, start = [], 0, time.process_time()
        try:
            for one in cases:
                model = Counted(one.model)
                found = np.asarray(contender(one, model, int(budget)), dtype=np.float64)
                off = torch.from_numpy(found).reshape(one.exact.shape) - one.exact
                errors.append(off.norm(dim=1) / one.exact.norm(dim=1))
                evaluations += model.rows
        except whyglass.BadInput:  # does not pay for a first estimate
            budget *= RUNG
            continue
        spent = (time.process_time() - start) / rows
        if evaluations != last:
            last, middle = evaluations, 100 * float(torch.cat(errors).median())
            text = f"{middle:8.2f}%{evaluations / rows:12.0f}{1e3 * spent:12.1f}"
            if trace:
                print(f"    {text}", flush=True)
            if middle <= goal:
                return text
            if evaluations / rows > first.most / 1.2 or (first.most > 10_000 and spent > PATIENCE):
                break
        budget *= RUNG
    return text + "   (goal not reached)"


def accuracy(name: str, cases: list[Case], goal: float, trace: bool) -> None:
    """The table of one case."""
    rows, (count, columns) = sum(len(one.x) for one in cases), cases[0].background.shape
    print(f"\n{name}: {columns} players, {count} background rows, {rows} rows explained")
    if cases[0].doubt:
        print(f"the reference's own error: {100 * max(one.doubt for one in cases):.2f}%")
    print(f"{'':<28}{'error':>9}{'evaluations':>12}{'CPU ms':>12}   a row, at {goal}%")
    for contender, call in CONTENDERS.items():
        print(f"{contender:<28}{reach(call, cases, goal, trace)}", flush=True)


def overhead(rows: int, seconds: float) -> None:
    """Ours over the floor; LIME against its peers."""
    one = synthetic(True, 100, rows)
    background = whyglass.Background(one.background)
    tables = {
        "permutation-shapley": (whyglass.PermutationShapley(budget=4501), background),
        "kernel-shap": (whyglass.KernelSHAP(budget=1000), 0.0),
        "lime": (whyglass.LIME(budget=1000), 0.0),
    }
    for name, (method, baseline) in tables.items():
        evaluations = method(one.model, one.x, baseline=baseline).evaluations
        keep = torch.rand(evaluations, one.x.shape[1]) > 0.5
        row, base = (
            torch.randint(rows, (evaluations,)),
            torch.randint(len(one.background), (evaluations,)),
        )
        calls: dict[str, Call] = {
            "floor": lambda e=evaluations, k=keep, r=row, b=base: plain(one, e, k, r, b),
            f"whyglass {name}": lambda m=method, b=baseline: m(one.model, one.x, baseline=b),
        }
        rounds = [calls]
        if name == "lime":
            # Apart: a second of theirs would leave our milliseconds few rounds and cold caches.
            rounds.append({"floor": calls["floor"], **lime_peers(one)})
        print(f"\n{evaluations} evaluations\n{HEADING}")
        for contenders in rounds:
            for timed in alternate(contenders, "floor", seconds, "cpu", least=3):
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

    explainer = LimeTabularExplainer(one.background.numpy(), mode="regression")

    def lime() -> None:
        for row in one.x.numpy():
            explainer.explain_instance(
                row, model.array, num_features=one.x.shape[1], num_samples=count
            )

    return {"Captum Lime": captum, "lime": lime}


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--goal", type=float, default=1.5)
    parser.add_argument("--data", type=Path, default=Path("data"), help="has tabular/ and text/")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="keeps the references")
    parser.add_argument("--trace", action="store_true", help="print every rung of the ladder")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers' own
    logging.getLogger("shap").setLevel(logging.ERROR)
    print(machine())
    chosen.cache.mkdir(parents=True, exist_ok=True)
    for name in chosen.cases:
        cases = CASES[name](chosen.data, chosen.cache, chosen.rows)
        accuracy(name, cases, chosen.goal, chosen.trace)
    if chosen.overhead:
        overhead(chosen.rows, chosen.seconds)


if __name__ == "__main__":
    main()
