"""Figure 3 of Lundberg & Lee (2017): how estimates of one feature's value settle with evaluations.

    python reproductions/shap_figure3/run.py [--replicates 200]

Two decision trees: one that uses 10 of 10 features, one that uses 3 of 100. The value of one feature of
one input is estimated again and again, with another seed each time, by Kernel SHAP, by Shapley
sampling as in the paper (an order a sample, no pairs, no memory), by this library's permutations and by
LIME; drawn are the median and the 10th to 90th percentiles against evaluations of the model. The
sampling is written here, after Strumbelj & Kononenko (2014), algorithm 1. Needs scikit-learn, which
the extra `bench` brings. Writes figure3.png and figure3.json beside itself.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor

import whyglass

HERE = Path(__file__).parent
CASES = {
    "dense: 10 of 10 features": (10, 10, (60, 120, 250, 500, 1000)),
    "sparse: 3 of 100 features": (100, 3, (420, 800, 1600, 3200)),
}
COLOURS = {
    "Kernel SHAP": "#0072b2",
    "Shapley sampling": "#999999",
    "permutations (ours)": "#009e73",
    "LIME": "#d55e00",
}


class Tree:
    """A fitted tree, its input, and the zeros that stand for absence."""

    def __init__(self, features: int, used: int) -> None:
        generator = np.random.default_rng(0)
        data = generator.normal(size=(2000, features))
        signal = data[:, :used]
        # Products make features interact; every feature used has a part.
        target = signal.sum(1) + 2 * signal[:, 0] * signal[:, 1] + (signal > 0).all(1) * used
        self.fitted = DecisionTreeRegressor(max_leaf_nodes=64, random_state=0)
        padded = data.copy()
        padded[:, used:] = 0
        self.fitted.fit(padded, target)
        self.model = whyglass.NumpyModel(self.fitted.predict)
        self.x = torch.from_numpy(np.where(np.arange(features) < used, 1.2, 0.7))[None]
        self.splits_on = sorted({int(f) for f in self.fitted.tree_.feature if f >= 0})

    def exact(self) -> float:
        """By all coalitions of the features that the tree splits on."""
        players = np.full(self.x.shape[1], -1)
        players[self.splits_on] = np.arange(len(self.splits_on))
        method = whyglass.ExactShapley(players=tuple(players.tolist()))
        return float(method(self.model, self.x).player_values[0, 0])

    def sampled(self, budget: int, seed: int) -> float:
        """Strumbelj & Kononenko (2014), algorithm 1, for feature 0 with its share of the budget."""
        n = self.x.shape[1]
        generator = np.random.default_rng(seed)
        count = max(1, budget // (2 * n))
        order = generator.random((count, n)).argsort(1).argsort(1)
        before = order < order[:, :1]
        x = self.x[0].numpy()
        without = np.where(before, x, 0.0)
        joined = without.copy()
        joined[:, 0] = x[0]
        return float((self.fitted.predict(joined) - self.fitted.predict(without)).mean())


def first(found: whyglass.Explanation) -> tuple[float, int]:
    """The value of feature 0, and what all values cost."""
    assert isinstance(found.values, Tensor)
    return float(found.values[0, 0]), found.evaluations


def estimates(tree: Tree, budget: int, replicates: int) -> dict[str, list[tuple[float, int]]]:
    """Every contender's (value, evaluations) for each seed."""
    methods = {
        "Kernel SHAP": whyglass.KernelSHAP,
        "permutations (ours)": whyglass.PermutationShapley,
        "LIME": whyglass.LIME,
    }
    found: dict[str, list[tuple[float, int]]] = {
        name: [first(kind(budget=budget, seed=s)(tree.model, tree.x)) for s in range(replicates)]
        for name, kind in methods.items()
    }
    found["Shapley sampling"] = [(tree.sampled(budget, s), budget) for s in range(replicates)]
    return found


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=200)
    replicates = parser.parse_args().replicates
    torch.set_num_threads(1)
    drawn = Figure(figsize=(10, 4.2), layout="constrained")
    record: dict[str, object] = {"replicates": replicates}
    for axes, (title, (features, used, budgets)) in zip(
        drawn.subplots(1, 2), CASES.items(), strict=True
    ):
        tree = Tree(features, used)
        exact = tree.exact()
        print(f"{title}: splits on {len(tree.splits_on)}, exact {exact:.4f}")
        bands: dict[str, list[list[float]]] = {name: [] for name in COLOURS}
        for budget in budgets:
            for name, pairs in estimates(tree, budget, replicates).items():
                values, costs = np.array(pairs).T
                low, middle, high = np.percentile(values, [10, 50, 90])
                bands[name].append([float(np.median(costs)), low, middle, high])
                print(f"  {name:22}{budget:6}{middle:9.4f}  {low:.4f} to {high:.4f}")
        for name, rows in bands.items():
            cost, low, middle, high = np.array(rows).T
            axes.fill_between(cost, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
            axes.plot(cost, middle, color=COLOURS[name], label=name, marker="o", markersize=3)
        axes.axhline(exact, color="black", linestyle="--", linewidth=1, label="exact")
        axes.set(title=title, xlabel="evaluations of the model", xscale="log")
        axes.set_xticks(budgets, [str(budget) for budget in budgets])
        axes.minorticks_off()
        axes.set_ylabel("value of the first feature")
        record[title] = {"exact": exact, "budget, 10th, 50th, 90th": bands}
    drawn.axes[0].legend(fontsize=8)
    drawn.savefig(HERE / "figure3.png", dpi=110)
    (HERE / "figure3.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
