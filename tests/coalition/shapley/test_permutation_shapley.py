"""Sampled permutations against exact values, a naive version, and the coverage of their errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import lookup, ones, random_table
from tests.zoo.networks import ZOO
from whyglass import Background, BadInput, Conditional, ExactShapley, Gaussian, PermutationShapley


def naive(
    model: Any, x: Tensor, data: Tensor, count: int, both: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Mitchell et al. (2022), antithetic, one walk and one evaluation at a time, for one row.

    The gains of each order (count, n), of which `both` are walked both ways, and its background row.
    """
    n = x.shape[1]
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator).tolist() for _ in range(count)]
    turns = itertools.chain.from_iterable(
        torch.randperm(len(data), generator=generator).tolist() for _ in range(count)
    )
    gains = torch.zeros(count, n, dtype=torch.float64)
    used = []
    for number, (order, base) in enumerate(zip(orders, turns, strict=False)):
        used.append(base)
        ways = (order, order[::-1]) if number < both else (order,)
        for way in ways:
            point = data[base].clone()
            before = model(point[None])
            for player in way:
                point[player] = x[0, player]
                after = model(point[None])
                gains[number, player] += (after - before)[0] / len(ways)
                before = after
    return gains, torch.tensor(used)


def bent(x: Tensor) -> Tensor:
    return (x[:, 0] * x[:, 1]).tanh() + x[:, 2] ** 2 * x[:, 4] - x[:, 0] * x[:, 3] + x[:, 4].sin()


def knotted(x: Tensor) -> Tensor:
    """Interactions of every order: walking both ways makes those of two players exact."""
    return (x[:, 0] * x[:, 1] * x[:, 2] + x[:, 3] - x[:, 4] * x[:, 0]).tanh() * 2 + x.prod(1)


def rows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 5, generator=generator, dtype=torch.float64)


def with_prior(variances: Tensor, count: int) -> Tensor:
    """Two more orders that vary as all players do on average, as Agresti & Coull (1998) add two."""
    return variances + 2 / count * variances.mean()


def test_the_naive_walks_from_one_row() -> None:
    x, base = rows(1, 0), rows(1, 1)
    gains, _ = naive(knotted, x, base, 9, 9, 3)
    found = PermutationShapley(budget=2 + 9 * 8 + 7, seed=3)(knotted, x, baseline=base)
    torch.testing.assert_close(found.values[0], gains.mean(0))
    torch.testing.assert_close(found.std_error[0], with_prior(gains.var(0), 9).sqrt() / 3)


@pytest.mark.parametrize("count", [8, 12, 14])
def test_the_naive_walks_from_a_background(count: int) -> None:
    """Each row of it counts the same, with two orders, three, and three or four."""
    x, data = rows(1, 0), rows(4, 1)
    gains, used = naive(knotted, x, data, count, count, 3)
    found = PermutationShapley(budget=5 + count * 8 + 5, seed=3)(
        knotted, x, baseline=Background(data)
    )
    parts = [gains[used == row] for row in range(4)]
    torch.testing.assert_close(found.values[0], torch.stack([p.mean(0) for p in parts]).mean(0))
    off = torch.stack([(p - p.mean(0)).square().sum(0) for p in parts]).sum(0) / (count - 4)
    share = sum(1 / len(p) for p in parts)
    error = (with_prior(off, count) * share).sqrt() / 4
    torch.testing.assert_close(found.std_error[0], error)


def test_a_budget_between_one_walk_and_two_with_each_background_row() -> None:
    """Some orders go one way only; complete without any correction."""
    x, data = rows(1, 0), rows(9, 1)
    gains, used = naive(knotted, x, data, 9, 4, 3)
    found = PermutationShapley(budget=10 + 13 * 4, seed=3)(knotted, x, baseline=Background(data))
    assert sorted(used.tolist()) == list(range(9))
    torch.testing.assert_close(found.values[0], gains.mean(0))
    torch.testing.assert_close(found.std_error[0], with_prior(gains.var(0), 9).sqrt() / 3)
    torch.testing.assert_close(found.values.sum(1), knotted(x) - knotted(data).mean())


@pytest.mark.parametrize("walks", [5, 35])
def test_fewer_walks_than_background_rows(walks: int) -> None:
    """Complete all the same, a dummy gets nothing, and the errors count the whole spread."""
    x, data = rows(1, 0), rows(39, 1)

    def model(given: Tensor) -> Tensor:
        return knotted(given[:, [0, 1, 2, 2, 4]])

    gains, used = naive(model, x, data, walks, 0, 3)
    found = PermutationShapley(budget=40 + walks * 4, seed=3)(model, x, baseline=Background(data))
    mean, spread, reach = gains.mean(0), gains.var(0), torch.ones(5).double() / walks
    if walks == 35:
        for i in range(5):
            slope, height = np.polyfit(data[used][:, i].numpy(), gains[:, i].numpy(), 1)
            line = height + slope * data[:, i]
            seen = data[used][:, i]
            reach[i] += (data[:, i].mean() - seen.mean()) ** 2 / (len(seen) - 1) / seen.var()
            mean[i], spread[i] = line.mean(), (gains[:, i] - line[used]).square().sum() / 33
    off = model(x) - model(data).mean() - mean.sum()
    torch.testing.assert_close(found.values[0], mean + off * spread / spread.sum())
    error = (with_prior(spread, walks) * reach).sqrt()
    torch.testing.assert_close(found.std_error[0], error)
    assert found.values[0, 3].abs() < 1e-12
    torch.testing.assert_close(found.values.sum(1), model(x) - model(data).mean())


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 7), seed=st.integers(0, 1000))
def test_always_complete_and_near_exact(n: int, seed: int) -> None:
    table = random_table(n, seed)
    found = PermutationShapley(budget=1500, seed=seed)(lookup(table), ones(n))
    torch.testing.assert_close(found.values.sum(1), table[-1:] - table[0])
    assert found.evaluations <= min(1500, 2**n)
    exact = ExactShapley()(lookup(table), ones(n)).values
    assert ((found.values - exact).abs() <= 6 * found.std_error + 1e-12).all()


def test_two_players_are_exact_in_one_pair() -> None:
    table = random_table(2, 0)
    found = PermutationShapley(budget=100)(lookup(table), ones(2))
    torch.testing.assert_close(found.values, ExactShapley()(lookup(table), ones(2)).values)
    assert found.std_error.max() < 1e-12
    assert found.evaluations == 4


@pytest.mark.slow
@pytest.mark.parametrize(("count", "orders"), [(1, 120), (5, 122), (20, 190)])
def test_intervals_cover(count: int, orders: int) -> None:
    """From one row, and from each of a few and of many, not all equally often."""
    x, data = rows(1, 0), rows(count, 1)
    exact = ExactShapley()(knotted, x, baseline=Background(data)).values
    budget = 1 + count + orders * 8
    hits, errors, said = torch.zeros(5), [], []
    for seed in range(1000):
        found = PermutationShapley(budget=budget, seed=seed)(knotted, x, baseline=Background(data))
        error = found.values - exact
        hits += (error.abs() <= 1.96 * found.std_error + 1e-12)[0]
        errors.append(error)
        said.append(found.std_error)
    rate = hits / 1000
    assert (rate >= 0.93).all(), rate
    spread = torch.cat(errors).std(0)
    assert (torch.cat(errors).mean(0).abs() <= 4 * spread / 1000**0.5 + 1e-12).all()
    # Of players that vary less than others the errors are too large, by the two orders added.
    expected = with_prior(spread**2, orders).sqrt()
    torch.testing.assert_close(torch.cat(said).mean(0), expected, rtol=0.1, atol=1e-12)
    assert (rate[spread**2 > (spread**2).mean()] <= 0.97).all(), rate


def test_a_linear_model_is_exact_from_a_few_rows_of_a_background() -> None:
    x, data = rows(2, 0), rows(60, 1)
    w = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).double()
    found = PermutationShapley(budget=61 + 31 * 4)(lambda g: g @ w, x, baseline=Background(data))
    torch.testing.assert_close(found.values, (x - data.mean(0)) * w)
    assert found.std_error.max() < 1e-9


@pytest.mark.parametrize(("count", "walks"), [(20, 40), (60, 80), (200, 90)])
def test_too_wide_rather_than_too_narrow_before_any_row_comes_twice(count: int, walks: int) -> None:
    x, data = rows(1, 0), rows(count, 1)
    exact = ExactShapley()(knotted, x, baseline=Background(data)).values
    hits = torch.zeros(5)
    for seed in range(200):
        found = PermutationShapley(budget=1 + count + walks * 4, seed=seed)(
            knotted, x, baseline=Background(data)
        )
        hits += ((found.values - exact).abs() <= 1.96 * found.std_error)[0]
    assert (hits / 200 >= 0.93).all()


@pytest.mark.parametrize("kind", [Conditional, Gaussian])
def test_conditional_absence(kind: Any) -> None:
    x, data = rows(2, 0), rows(8, 1)
    exact = ExactShapley()(bent, x, baseline=kind(data)).values
    found = PermutationShapley(budget=9 + 8 * 8 * 40)(bent, x, baseline=kind(data))
    assert ((found.values - exact).abs() <= 5 * found.std_error + 1e-9).all()
    assert (found.values - exact).norm() < 0.1 * exact.norm()


def test_tolerance_is_met_row_by_row_or_the_budget_spent() -> None:
    network = ZOO["mlp"]
    model, x = network.make(), network.inputs(6)
    data = Background(network.inputs(4, seed=5))
    found = PermutationShapley(budget=3000, tol=0.1)(model, x, target=1, baseline=data)
    spent = []
    for row in range(6):
        one = PermutationShapley(budget=3000, tol=0.1)(
            model, x[row : row + 1], target=1, baseline=data
        )
        torch.testing.assert_close(one.values[0], found.values[row])
        assert one.std_error.norm() <= 0.1 * one.values.norm()
        spent.append(one.evaluations)
    assert sum(spent) == found.evaluations
    assert len(set(spent)) > 1


def test_a_budget_for_everything_is_better_spent_on_everything() -> None:
    table = random_table(4, 0)
    for budget, notes in ((14, 0), (16, 1)):
        found = PermutationShapley(budget=budget)(lookup(table), ones(4))
        assert len(found.notes) == notes
    assert "exact-shapley" in found.notes[0]


def test_a_budget_that_does_not_pay_is_refused_before_any_work() -> None:
    calls: list[int] = []
    with pytest.raises(BadInput, match=r"254 evaluations a row.*players=8"):
        PermutationShapley(budget=253)(lambda x: calls.append(1), torch.ones(1, 64))
    assert not calls
    found = PermutationShapley(budget=254)(lambda x: x.sum(1), torch.ones(1, 64))
    assert found.evaluations <= 254


def test_sixty_four_players() -> None:
    """v = (sum over a random half)^2 has the Shapley values w_i * sum w."""
    w = torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    found = PermutationShapley(budget=4000)(lambda x: (x @ w) ** 2, ones(64))
    torch.testing.assert_close(found.values[0], w * w.sum(), rtol=1e-9, atol=1e-9)
