"""DASP on the Parkinson data: error and rank correlation of fast Shapley values against exact ones.

    python -m reproductions.dasp_parkinson.run parkinsons_updrs.csv [--inputs 30] [--epochs 100]

Ancona, Oztireli & Gross (2019), section 5.1: an 18-128-64-1 ReLU network trained here predicts the
motor score from 18 columns scaled to [-1, 1]; the baseline is zero. Exact values take all 2^18
coalitions. Printed are medians over the inputs, and the processor time of each method on all of them.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import whyglass
from whyglass.core.scorer import Scorer
from whyglass.propagation.moments.random_coalitions import Players, antithetic_values

COLUMNS = [1, 2, *range(6, 22)]
TARGET, TEST = 5, 880


def data(path: Path) -> tuple[Tensor, Tensor]:
    """Rows in a fixed random order, columns scaled to [-1, 1]; the target as it is."""
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=1)).float()
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(0))]
    x = table[:, COLUMNS]
    low, high = x.amin(0), x.amax(0)
    return 2 * (x - low) / (high - low) - 1, table[:, TARGET : TARGET + 1]


def train(x: Tensor, y: Tensor, epochs: int) -> nn.Sequential:
    """With dropout, Adam and batches of 64, as published; the best epoch on the test rows."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(18, 128), nn.ReLU(), nn.Dropout(0.2)),
        *(nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.2)),
        nn.Linear(64, 1),
    )
    optimiser, best, kept = torch.optim.Adam(model.parameters()), math.inf, None
    for _ in range(epochs):
        model.train()
        for batch in (torch.randperm(len(x) - TEST) + TEST).split(64):
            loss = nn.functional.mse_loss(model(x[batch]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        model.eval()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(model(x[:TEST]), y[:TEST]))
        if error < best:
            best, kept = error, {k: v.clone() for k, v in model.state_dict().items()}
    assert kept is not None
    model.load_state_dict(kept)
    print(
        f"test error (root mean square) {best**0.5:.2f}, the target's deviation {float(y.std()):.2f}"
    )
    return model.eval().requires_grad_(False)


def exact(model: nn.Module, x: Tensor) -> Tensor:
    """Shapley values by all coalitions, a row at a time."""
    n = x.shape[1]
    present = (torch.arange(2**n)[:, None] >> torch.arange(n - 1, -1, -1)) & 1
    size = present.sum(1)
    weight = torch.tensor([1 / (n * math.comb(n - 1, k)) for k in range(n)]).double()
    values = torch.zeros(x.shape, dtype=torch.float64)
    for row in range(len(x)):
        parts = [model(part * x[row]) for part in present.float().split(2**13)]
        scores = torch.cat(parts)[:, 0].double()
        for i in range(n):
            shaped, sizes = (t.reshape(2**i, 2, -1) for t in (scores, size))
            values[row, i] = ((shaped[:, 1] - shaped[:, 0]) * weight[sizes[:, 0]]).sum()
    return values


def sampled(model: nn.Module, x: Tensor, pairs: int) -> Tensor:
    """Antithetic permutations."""
    scorer = Scorer(model, x, gradient=False)
    here = scorer.at_inputs(gradient=False).scores
    starts = (torch.zeros_like(x),)
    before = scorer.scores(lambda piece: (starts[0][piece],), torch.arange(len(x)))
    generator = torch.Generator().manual_seed(0)
    return antithetic_values(scorer, Players((x,), starts), (before, here), pairs, generator).mean(
        0
    )


def ranks(values: Tensor) -> Tensor:
    """Ranks, centred and scaled, so that products add up to Spearman's correlation."""
    order = values.argsort(1).argsort(1).double()
    centred = order - order.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--inputs", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=100)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    x, y = data(chosen.table)
    model = train(x, y, chosen.epochs)
    rows = x[: chosen.inputs]
    start = time.process_time()
    truth = exact(model, rows)
    print(f"exact values: {time.process_time() - start:.0f} s, root mean square {rms(truth):.2f}")

    def explained(method: whyglass.Method) -> Callable[[], Tensor]:
        def run() -> Tensor:
            values = method(model, rows).values
            assert isinstance(values, Tensor)
            return values

        return run

    contenders: dict[str, Callable[[], Tensor]] = {
        "integrated gradients": explained(whyglass.IntegratedGradients()),
        "DeepLIFT Rescale": explained(whyglass.DeepLIFT()),
        "occlusion": explained(whyglass.Occlusion()),
    }
    for covariance in ("none", "full"):
        for sizes in (1, 4, 18):
            method = whyglass.DASP(covariance=covariance, sizes=sizes, compare=False)
            contenders[f"DASP, covariance {covariance}, K = {sizes}"] = explained(method)
    for pairs in (1, 4, 18, 72, 288, 1152):
        contenders[f"antithetic permutations, {2 * pairs}"] = lambda p=pairs: sampled(
            model, rows, p
        )
    print(f"{'':<34}{'RMSE':>8}{'rank corr.':>12}{'CPU ms / row':>14}")
    for name, run in contenders.items():
        run()
        start = time.process_time()
        values = run()
        taken = (time.process_time() - start) / len(rows) * 1e3
        error = (values - truth).square().mean(1).sqrt().median()
        correlation = (ranks(values) * ranks(truth)).sum(1).median()
        print(f"{name:<34}{float(error):>8.3f}{float(correlation):>12.3f}{taken:>14.2f}")


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


if __name__ == "__main__":
    main()
