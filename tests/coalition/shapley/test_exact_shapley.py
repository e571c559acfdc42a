"""Exact Shapley values against all orders, the papers' figures and the axioms on random games."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coalition.games import (
    lookup,
    naive_shapley,
    ones,
    profit,
    random_table,
    sickness,
    worth_of,
)
from whyglass import Background, ExactShapley, IntegratedGradients, Several

SEEDS = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), seed=SEEDS)
def test_equals_all_orders(n: int, seed: int) -> None:
    table = random_table(n, seed)
    found = ExactShapley()(lookup(table), ones(n))
    torch.testing.assert_close(found.values[0], naive_shapley(worth_of(table), n))
    torch.testing.assert_close(found.values.sum(1), table[-1:] - table[0])
    assert found.evaluations == 2**n
    assert not found.std_error.any()


def test_figure_4a() -> None:
    found = ExactShapley()(sickness, torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(found.values, torch.tensor([[1.0, 1.0, 0.0]]))


def test_figure_4b() -> None:
    found = ExactShapley()(profit, torch.tensor([[5.0, 4.0, 0.0]]))
    torch.testing.assert_close(found.values, torch.tensor([[3.0, 2.0, 0.0]]))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_players_that_do_the_same_get_the_same(seed: int, n: int) -> None:
    """The first two players of a game made symmetric in them."""
    table = random_table(n, seed).reshape(-1, 2, 2)
    table = (table + table.transpose(1, 2)).reshape(-1)
    found = ExactShapley()(lookup(table), ones(n)).values[0]
    torch.testing.assert_close(found[0], found[1])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 6))
def test_a_player_that_adds_a_constant_gets_it(seed: int, n: int) -> None:
    """A dummy: the others play as if it were not there."""
    rest = random_table(n - 1, seed)
    table = torch.cat([rest, rest + 0.75])
    found = ExactShapley()(lookup(table), ones(n)).values[0]
    torch.testing.assert_close(found[-1], torch.tensor(0.75).double())
    torch.testing.assert_close(found[:-1], ExactShapley()(lookup(rest), ones(n - 1)).values[0])


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 6), scale=st.floats(-5, 5))
def test_linear_in_the_game(seed: int, n: int, scale: float) -> None:
    one, other = random_table(n, seed), random_table(n, seed + 1)
    both, *parts = (
        ExactShapley()(lookup(table), ones(n)).values for table in (one + scale * other, one, other)
    )
    torch.testing.assert_close(both, parts[0] + scale * parts[1], rtol=1e-9, atol=1e-9)


def test_min_is_continuous() -> None:
    """targets.md, section 2: where integrated gradients jump, Shapley values do not."""
    x = torch.tensor([[2.0, 2.001], [2.0, 1.999]], dtype=torch.float64)
    found = ExactShapley()(lambda g: g.amin(1), x).values
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [0.9995, 0.9995]]).double())


@pytest.mark.parametrize(
    ("x", "base", "target", "expected"),
    [
        ((0, -5), (3, 0), 0, (-1.5, 3.5)),
        ((0, -5), (6, 0), 0, (-3.5, 4.5)),
        ((0, -5), (9, 0), 0, (-6.5, 4.5)),
        ((3, 0), (0, 6), 1, (0.5, 0.5)),
        ((3, 0), (0, 9), 1, (1.5, 2.5)),
    ],
)
def test_the_chapter(
    x: tuple[int, ...], base: tuple[int, ...], target: int, expected: tuple[float, ...]
) -> None:
    """NND2 chapter 9, network E9.2."""
    first = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.0, -1.0]]).double()
    last = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]]).double()

    def model(given: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(given @ first.T + torch.tensor([-5.0, -5.0, -3.0]))
        return hidden @ last.T + torch.tensor([-1.0, 1.0])

    here, there = (torch.tensor([point]).double() for point in (x, base))
    found = ExactShapley()(model, here, target=target, baseline=there).values
    torch.testing.assert_close(found, torch.tensor([expected]).double())


def test_a_background_is_the_mean_over_its_rows() -> None:
    table = random_table(4, 0)
    data = torch.tensor([[0.0, 0, 0, 0], [1.0, 0, 0, 1], [0.0, 1, 1, 0]]).double()
    x = ones(4)
    whole = ExactShapley()(lookup(table), x, baseline=Background(data))
    parts = [ExactShapley()(lookup(table), x, baseline=row[None]) for row in data]
    torch.testing.assert_close(whole.values, sum(p.values for p in parts) / 3)
    assert whole.evaluations == 1 + 3 * 15


def test_an_additive_model_agrees_with_integrated_gradients() -> None:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    models = ExactShapley(), IntegratedGradients(steps=200)
    one, other = (method(lambda g: g.sin().sum(1), x).values for method in models)
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_many_targets_cost_what_one_costs() -> None:
    table = torch.randn(16, 3, generator=torch.Generator().manual_seed(0)).double()
    both = ExactShapley()(lookup(table), ones(4), target=Several(0, 2))
    assert both.evaluations == 16
    for k, target in enumerate((0, 2)):
        one = ExactShapley()(lookup(table), ones(4), target=target)
        torch.testing.assert_close(both.values[..., k], one.values)
        torch.testing.assert_close(both.player_values[..., k], one.player_values)
