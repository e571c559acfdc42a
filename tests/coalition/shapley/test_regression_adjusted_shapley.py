"""The surrogate against its definition, the adjustment against plain refits, and its coverage."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import lookup, naive_shapley, ones, random_table
from tests.zoo.networks import ZOO
from whyglass import (
    Background,
    BadInput,
    Conditional,
    ExactShapley,
    PermutationShapley,
    RegressionAdjustedShapley,
    Several,
)
from whyglass.coalition.shapley.product_kernel import Regression, kernel, product_shapley, tuned


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def knotted(x: Tensor) -> Tensor:
    """Interactions of every order."""
    return (x[:, 0] * x[:, 1] * x[:, 2] + x[:, 3] - x[:, 4] * x[:, 0]).tanh() * 2 + x.prod(1)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_products_have_the_shapley_values_of_all_orders(n: int) -> None:
    here, others, centres = draw(n), draw(3, n, seed=1), draw(2, n, seed=2)
    found = product_shapley(here, others, centres)
    for place, centre in enumerate(centres):

        def worth(players: frozenset[int], centre: Tensor = centre) -> float:
            total = 0.0
            for other in others:
                z = [here[j] if j in players else other[j] for j in range(n)]
                away = sum(float(a - b) ** 2 for a, b in zip(z, centre, strict=True))
                total += math.exp(-away / 2) / len(others)
            return total

        torch.testing.assert_close(found[:, place], naive_shapley(worth, n))


def test_the_fit_without_a_pair_is_a_fit_without_it() -> None:
    """Kernel ridge regression by its equation, solved again for every pair."""
    pairs, n = 12, 4
    points, spots = draw(2 * pairs + 3, n), draw(3, n, seed=1)
    scores, lengths, noise = knotted(draw(2 * pairs + 3, 5, seed=2)), draw(n).abs() + 1, 0.01

    def solved(keep: Tensor) -> Tensor:
        z = points[keep] / lengths
        matrix = kernel(z, z) + noise * torch.eye(len(z), dtype=z.dtype)
        return torch.linalg.solve(matrix, scores[keep] - scores.mean())

    def residuals(keep: Tensor) -> Tensor:
        guess = kernel(points / lengths, points[keep] / lengths) @ solved(keep)
        return scores - scores.mean() - guess

    def shares(keep: Tensor) -> Tensor:
        parts = product_shapley(spots[0] / lengths, spots[1:] / lengths, points[keep] / lengths)
        return parts @ solved(keep)

    found = Regression(points, scores, pairs, spots, lengths, noise)
    every = torch.arange(len(points))
    close = {"rtol": 1e-5, "atol": 1e-6}  # the centres' own matrix has 1e-8 on its diagonal
    torch.testing.assert_close(found.within, residuals(every), **close)
    torch.testing.assert_close(found.values, shares(every), **close)
    raised = found.raised(slice(2 * pairs, None))
    for pair in range(pairs):
        keep = every[(every != pair) & (every != pairs + pair)]
        off = residuals(keep)
        torch.testing.assert_close(found.left[pair], off[[pair, pairs + pair]], **close)
        torch.testing.assert_close(found.moved[pair], shares(keep) - shares(every), **close)
        torch.testing.assert_close(raised[pair], (off - found.within)[2 * pairs :], **close)


def test_tuned_lengths_are_likelier_than_the_first_and_tell_who_matters() -> None:
    points = draw(200, 3)
    scores = (2 * points[:, 0]).sin() + 0.3 * points[:, 1]
    lengths, noise = tuned(points, scores / scores.std())

    def unlikely(sizes: Tensor, share: float) -> Tensor:
        z = points / sizes
        root = torch.linalg.cholesky(kernel(z, z) + share * torch.eye(200, dtype=z.dtype))
        white = torch.linalg.solve_triangular(root, (scores / scores.std())[:, None], upper=False)
        return 100 * white.square().sum().log() + root.diagonal().log().sum()

    assert unlikely(lengths, noise) < unlikely(points.std(0) * 3**0.5, 0.01) - 10
    assert lengths[0] < lengths[1] < lengths[2]


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 7), seed=st.integers(0, 1000))
def test_always_complete_and_near_exact(n: int, seed: int) -> None:
    table = random_table(n, seed)
    found = RegressionAdjustedShapley(budget=60, seed=seed)(lookup(table), ones(n))
    torch.testing.assert_close(found.values.sum(1), table[-1:] - table[0])
    assert found.evaluations <= min(60, 2**n)
    exact = ExactShapley()(lookup(table), ones(n)).values
    assert ((found.values - exact).abs() <= 6 * found.std_error + 1e-9).all()


def test_a_budget_for_everything_is_exact() -> None:
    x, data = draw(2, 5), draw(3, 5, seed=1)
    found = RegressionAdjustedShapley(budget=100)(knotted, x, baseline=Background(data))
    exact = ExactShapley()(knotted, x, baseline=Background(data)).values
    torch.testing.assert_close(found.values, exact)
    assert found.std_error.max() == 0


def smooth(z: Tensor) -> Tensor:
    return 2 * (z.sum(1) / 2).tanh() + (z[:, 0] * z[:, 1] * z[:, 2] / 2).sin() + z[:, 3] * z[:, 4]


@pytest.mark.slow
@pytest.mark.parametrize(("players", "count", "budget"), [(8, 1, 130), (6, 4, 165)])
def test_intervals_cover(players: int, count: int, budget: int) -> None:
    x, data = draw(1, players), draw(count, players, seed=1)
    exact = ExactShapley()(smooth, x, baseline=Background(data)).values
    runs = [
        RegressionAdjustedShapley(budget=budget, seed=seed)(smooth, x, baseline=Background(data))
        for seed in range(100)
    ]
    off = torch.cat([found.values for found in runs]) - exact
    error = torch.cat([found.std_error for found in runs])
    rate = float((off.abs() <= 1.96 * error).double().mean())
    assert 0.92 <= rate <= 0.98, rate
    assert (off.mean(0).abs() <= 4 * off.std(0) / 10).all()


def test_a_smooth_model_needs_a_fraction_of_the_walks() -> None:
    x, data = draw(1, 8), draw(10, 8, seed=1)
    exact = ExactShapley()(smooth, x, baseline=Background(data)).values
    errors = []
    for kind in (RegressionAdjustedShapley, PermutationShapley):
        found = kind(budget=400)(smooth, x, baseline=Background(data))
        errors.append((found.values - exact).norm())
    assert errors[0] < errors[1] / 2


@pytest.mark.parametrize("kind", ["tokens", "conditional"])
def test_absence_without_coordinates(kind: str) -> None:
    if kind == "tokens":
        x, weights = torch.arange(1, 7)[None], draw(7)
        weights[0] = 0

        def model(z: Tensor) -> Tensor:
            return weights[z].sum(1).tanh()

        baseline: object = 0
    else:
        x, model, baseline = draw(1, 5), knotted, Conditional(draw(8, 5, seed=1), neighbours=3)
    found = RegressionAdjustedShapley(budget=100)(model, x, baseline=baseline)
    exact = ExactShapley()(model, x, baseline=baseline)
    off = (found.player_values - exact.player_values).abs()
    assert (off <= 5 * found.player_std_error + 1e-6).all()
    assert found.verdict != "fail"


def test_players_of_several_features_against_a_background() -> None:
    x, data = draw(1, 6), draw(4, 6, seed=1)
    players = torch.tensor([0, 0, 1, 2, 3, -1])

    def model(z: Tensor) -> Tensor:
        return knotted(z[:, 1:]) + z[:, 0]

    exact = ExactShapley(players=players)(model, x, baseline=Background(data))
    found = RegressionAdjustedShapley(budget=37, players=players)(
        model, x, baseline=Background(data)
    )
    off = (found.player_values - exact.player_values).abs()
    assert (off <= 5 * found.player_std_error).all()


def test_tolerance_is_met_row_by_row_or_the_budget_spent() -> None:
    network = ZOO["mlp"]
    model, x = network.make(), network.inputs(4)
    data = Background(network.inputs(4, seed=5))
    method = RegressionAdjustedShapley(budget=100, tol=0.2)
    found = method(model, x, target=1, baseline=data)
    spent = []
    for row in range(4):
        one = method(model, x[row : row + 1], target=1, baseline=data)
        torch.testing.assert_close(one.values[0], found.values[row])
        spent.append(one.evaluations)
        assert one.std_error.norm() <= 0.2 * one.values.norm() or one.evaluations > 90
    assert sum(spent) == found.evaluations
    assert len(set(spent)) > 1


def test_several_targets_are_as_one_by_one() -> None:
    table = torch.stack([random_table(5, 0), random_table(5, 1)], 1)
    method = RegressionAdjustedShapley(budget=24)
    found = method(lookup(table), ones(5), target=Several(0, 1))
    for k in range(2):
        one = method(lookup(table), ones(5), target=k)
        torch.testing.assert_close(found.values[..., k], one.values)


def test_a_model_that_does_not_change_gets_zeros() -> None:
    found = RegressionAdjustedShapley(budget=30)(lambda x: 0 * x.sum(1) + 3, ones(6))
    assert found.values.abs().max() == 0
    assert found.std_error.max() == 0


def test_a_budget_that_does_not_pay_is_refused_before_any_work() -> None:
    calls: list[int] = []
    with pytest.raises(BadInput, match=r"258 evaluations a row.*players=8"):
        RegressionAdjustedShapley(budget=257)(lambda x: calls.append(1), torch.ones(1, 64))
    assert not calls
    found = RegressionAdjustedShapley(budget=258)(lambda x: x.sum(1), torch.ones(1, 64))
    assert found.evaluations <= 258
