"""Absence that depends on what is present: ties, and whether the data are enough."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import naive_shapley
from whyglass import Conditional, ExactShapley, Gaussian, KernelSHAP, PermutationShapley
from whyglass.coalition.game import conditional


def network(seed: int, columns: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(columns, 6, generator=generator, dtype=torch.float64)
    return hidden, torch.randn(6, generator=generator, dtype=torch.float64)


def score(z: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    return torch.tanh(z @ weights[0]) @ weights[1]


def coarse_table(seed: int, rows: int) -> Tensor:
    """A binary column, one of few values, a continuous one, one doubled and one constant."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    table[:, 0] = (table[:, 0] > 0).double()
    table[:, 1] = (2 * table[:, 1]).round() / 2
    table[:, 3] = table[:, 0]
    table[:, 4] = 1.5
    return table


def values_with_all_ties(x: Tensor, data: Tensor, k: int, weights: tuple[Tensor, Tensor]) -> Tensor:
    deviation = data.std(0, correction=0)
    units = torch.where(deviation > 0, deviation, 1.0)

    @functools.cache
    def worth(coalition: frozenset[int]) -> float:
        keep = torch.tensor([i in coalition for i in range(len(x))])
        distance = (((x - data) / units)[:, keep] ** 2).sum(1)
        near = data[distance <= distance.sort().values[min(k, len(data)) - 1] + 1e-9]
        return float(score(torch.where(keep, x, near), weights).mean())

    return naive_shapley(worth, len(x))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6), rows=st.integers(2, 30), k=st.integers(1, 12), block=st.booleans()
)
def test_all_tied_rows_count_in_any_order(seed: int, rows: int, k: int, block: bool) -> None:
    data, weights = coarse_table(seed, rows), network(seed, 5)
    x = coarse_table(seed + 1, 2)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))
    usual = conditional.BLOCK
    conditional.BLOCK = 7 if block else usual
    try:
        results = [
            ExactShapley()(lambda z: score(z, weights), x, baseline=Conditional(table, k))
            for table in (data, data[order])
        ]
    finally:
        conditional.BLOCK = usual
    expected = torch.stack([values_with_all_ties(row, data, k, weights) for row in x])
    for result in results:
        torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-12)
        assert not result.values[:, 4].any()


@pytest.mark.parametrize("seed", range(3))
def test_estimators_play_the_same_game(seed: int) -> None:
    """A budget for all coalitions gives the exact values, a smaller one values within its errors."""
    data, weights, x = coarse_table(seed, 40), network(seed, 5), coarse_table(seed + 1, 1)
    baseline = Conditional(data, 4)
    exact = ExactShapley()(lambda z: score(z, weights), x, baseline=baseline)
    whole = KernelSHAP(budget=2000)(lambda z: score(z, weights), x, baseline=baseline)
    torch.testing.assert_close(whole.values, exact.values, rtol=0, atol=1e-10)
    assert not whole.std_error.any()
    sampled = PermutationShapley(budget=200)(lambda z: score(z, weights), x, baseline=baseline)
    assert sampled.values[0, 4] == 0
    off = (sampled.values - exact.values).abs()
    assert (off <= 5 * sampled.std_error + 1e-12).all()
    if sampled.evaluations > 200:
        assert any("tied" in note for note in sampled.notes)


@pytest.mark.parametrize("seed", range(3))
def test_a_gaussian_from_few_rows_warns(seed: int) -> None:
    """The figure is the size of the error, within a factor of two, and passes where that is small."""
    generator = torch.Generator().manual_seed(seed)
    mix, weights = torch.randn(5, 5, generator=generator).double(), network(seed, 5)

    def draw(rows: int) -> Tensor:
        return torch.randn(rows, 5, generator=generator, dtype=torch.float64) @ mix

    def explained(rows: int) -> tuple[Tensor, float, str]:
        result = ExactShapley()(lambda z: score(z, weights), x, baseline=Gaussian(draw(rows)))
        check = next(check for check in result.checks if check.name == "regression")
        return result.values, check.measured, check.verdict

    x = draw(3)
    truth, _, verdict = explained(2000)
    assert verdict == "pass"
    for rows in (6, 30, 300):
        measured = [explained(rows) for _ in range(4)]
        off = sum(float((values - truth).norm() / truth.norm()) for values, *_ in measured) / 4
        figure = measured[0][1]
        assert figure > off / 2
        assert rows == 6 or figure < 4 * off
        assert (measured[0][2] == "pass") == (rows == 300)


def test_neighbours_that_are_far_warn() -> None:
    """The figure by hand; more rows bring it down."""
    x, verdicts = coarse_table(1, 2), []
    for rows in (11, 2000):
        data = torch.randn(rows, 5, generator=torch.Generator().manual_seed(3)).double()
        result = ExactShapley()(lambda z: z.sum(1).sin(), x, baseline=Conditional(data))
        check = next(check for check in result.checks if check.name == "neighbours")
        square = (((x[:, None] - data) / data.std(0, correction=0)) ** 2).sum(2)
        expected = (square.sort(1).values[:, :10].mean(1) / square.mean(1)).sqrt()
        torch.testing.assert_close(torch.tensor(check.rows).double(), expected)
        verdicts.append(check.verdict)
    assert verdicts == ["warn", "pass"]


def test_repeated_and_constant_columns_are_no_columns_to_estimate() -> None:
    data = torch.randn(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = torch.cat([data, data, torch.ones_like(data)], 1)
    figures = []
    for table in (data, wide):
        x = table[:1]
        result = ExactShapley()(lambda z: z.sum(1).sin(), x, baseline=Gaussian(table))
        figures.append(next(c.measured for c in result.checks if c.name == "regression"))
    assert figures[0] == figures[1]
