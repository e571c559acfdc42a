"""Kernel SHAP against the regression as the paper writes it, exact values, and coverage."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import lookup, ones, profit, random_table, sickness
from tests.coalition.shapley.test_permutation_shapley import knotted, rows
from tests.zoo.networks import ZOO
from whyglass import Background, BadInput, ExactShapley, KernelSHAP, Several
from whyglass.coalition.background_covariates import as_key, covariates
from whyglass.coalition.shapley.pair_regression import PairRegression, from_rows, triples
from whyglass.coalition.shapley.paired_sampling import Sample, allocate, draw, sampled, strata


def kernel(n: int, size: int) -> float:
    """Lundberg & Lee (2017), theorem 2."""
    return (n - 1) / (math.comb(n, size) * size * (n - size))


def naive(table: Tensor, n: int) -> Tensor:
    """Equation 2 with that kernel over all coalitions, the ends held by enormous weights."""
    coalitions = torch.tensor(list(itertools.product([0, 1], repeat=n))).double()
    numbers = (coalitions.long() << torch.arange(n)).sum(1)
    sizes = coalitions.sum(1).long().tolist()
    weights = torch.tensor([1e7 if s in (0, n) else kernel(n, s) for s in sizes]).double()
    design = torch.cat([torch.ones(2**n, 1).double(), coalitions], 1)
    root = weights.sqrt()[:, None]
    return torch.linalg.lstsq(root * design, root * table[numbers][:, None]).solution[1:, 0]


def test_kernel_of_four_players() -> None:
    assert [kernel(4, size) for size in (1, 2, 3)] == [0.25, 0.125, 0.25]
    masses = {one.size: one.mass for one in strata(4, 1)}
    # Over all its coalitions a size weighs 1, 0.75, 1; pairs join the first and the last.
    assert masses == pytest.approx({1: 2 / 2.75, 2: 0.75 / 2.75})


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 8), seed=st.integers(0, 1000), weights=st.sampled_from(["leverage", "kernel"])
)
def test_all_coalitions_are_exact(n: int, seed: int, weights: Any) -> None:
    table = random_table(n, seed)
    found = KernelSHAP(budget=2**n + n, weights=weights)(lookup(table), ones(n))
    exact = ExactShapley()(lookup(table), ones(n)).values
    torch.testing.assert_close(found.values, exact)
    torch.testing.assert_close(found.values[0], naive(table, n), rtol=1e-3, atol=1e-3)
    assert not found.std_error.any()
    assert found.evaluations == 2**n


def test_all_coalitions_and_background_rows_are_exact() -> None:
    x, data = rows(2, 0), rows(3, 1)
    found = KernelSHAP(budget=1 + 3 + 30 * 3)(knotted, x, baseline=Background(data))
    exact = ExactShapley()(knotted, x, baseline=Background(data))
    torch.testing.assert_close(found.values, exact.values)
    assert not found.std_error.any()


def test_figure_4() -> None:
    a = KernelSHAP()(sickness, torch.tensor([[1.0, 1.0, 0.0]])).values
    b = KernelSHAP()(profit, torch.tensor([[5.0, 4.0, 0.0]])).values
    torch.testing.assert_close(a, torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(b, torch.tensor([[3.0, 2.0, 0.0]]))


@pytest.mark.parametrize("weights", ["leverage", "kernel"])
def test_the_regression_on_the_coalitions_drawn(weights: Any) -> None:
    """Weighted least squares under the constraint, by the textbook's matrix of both conditions."""
    n = 7
    table = random_table(n, 3)
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        seen.extend(((x > 0.5).long() << torch.arange(n)).sum(1).tolist())
        return lookup(table)(x)

    found = KernelSHAP(budget=62, weights=weights, seed=4)(model, ones(n))
    drawn = torch.tensor(seen[2:])
    z = ((drawn[:, None] >> torch.arange(n)) & 1).double()
    sizes = z.sum(1).long()
    per_size = {s: int((sizes == s).sum()) for s in range(1, n)}
    w = torch.tensor([1 / (s * (n - s)) / per_size[s] for s in sizes.tolist()]).double()
    normal = torch.zeros(n + 1, n + 1).double()
    normal[:n, :n] = z.T @ (w[:, None] * z)
    normal[n, :n] = normal[:n, n] = 1
    right = torch.cat([z.T @ (w * (table[drawn] - table[0])), (table[-1] - table[0])[None]])
    torch.testing.assert_close(found.values[0], torch.linalg.solve(normal, right)[:n])
    assert len(set(seen)) == len(seen)


def test_products_of_three_players_leave_the_values_those_of_the_game() -> None:
    """With all pairs at hand, by textbook least squares under the constraint, and without."""
    n, table = 7, random_table(7, 3)
    drawn, _ = sampled(0, n, 1, 2**n, (1.0,) * 3, 0)
    numbers = (drawn.members.long() << torch.arange(n)).sum(1)
    uneven = (table[-1] - table[0]) * (2 * drawn.members.double().mean(1) - 1)
    responses = ((table[numbers] - table[2**n - 1 - numbers] - uneven) / 2)[None, :, None]
    exact = ExactShapley()(lookup(table), ones(n)).values[0] - (table[-1] - table[0]) / n
    for more in (None, triples(drawn)):
        off, error, _ = PairRegression(drawn, more).solve(responses)
        torch.testing.assert_close(off[0, :, 0], exact)
        assert error.abs().max() < 1e-12


def test_products_of_three_players_make_such_games_exact() -> None:
    """A game of interactions of up to three players, from two thirds of the pairs."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(10, 10, 10, generator=generator).double()

    def model(x: Tensor) -> Tensor:
        return torch.einsum("ijk,bi,bj,bk->b", w, x, x, x)

    found = KernelSHAP(budget=600)(model, ones(10))
    exact = ExactShapley()(model, ones(10)).values
    torch.testing.assert_close(found.values, exact, rtol=1e-6, atol=1e-6)
    assert found.std_error.max() < 1e-6


def test_a_linear_model_is_exact_over_any_background() -> None:
    """What a row of it has in place of a player moves the score by that much, and is known."""
    x, data = rows(2, 0), rows(40, 1)
    w = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).double()
    for method in (KernelSHAP(budget=200), KernelSHAP(budget=200, features=4)):
        found = method(lambda g: g @ w, x, baseline=Background(data))
        torch.testing.assert_close(found.values, (x - data.mean(0)) * w)
        assert found.std_error.max() < 1e-9


def test_steps_at_quantiles_of_the_background_are_exact_too() -> None:
    x, data = rows(2, 0), torch.randint(0, 4, (60, 5), generator=torch.Generator().manual_seed(1))

    def model(given: Tensor) -> Tensor:
        return (given[:, 0] > 1.5) * 2.0 + given[:, 1] ** 3 - given[:, 2].exp()

    data = data.double()
    found = KernelSHAP(budget=700)(model, x, baseline=Background(data))
    exact = ExactShapley()(model, x, baseline=Background(data))
    torch.testing.assert_close(found.values, exact.values)
    assert found.std_error.max() < 1e-9


@pytest.mark.parametrize("kind", [0, 1])
def test_columns_of_the_background_leave_the_values_those_of_the_game(kind: int) -> None:
    """Drawn all, they are orthogonal to memberships; of some, it is plain weighted least squares."""
    x, data = rows(1, 0), rows(6, 1)
    whole, _ = sampled(0, 5, 6, 10**6, (1.0, 1.0), 0)
    away = covariates(as_key(data), 5, 100)[kind]
    columns = from_rows(whole, away)
    z = whole.members.double()
    z = z - z.mean(1, keepdim=True)
    assert (z.T @ (whole.share * columns.columns)).abs().max() < 1e-12
    exact = ExactShapley()(knotted, x, baseline=Background(data)).values
    some, _ = sampled(0, 5, 6, 60, (1.0, 1.0), 0)
    for drawn in (whole, some):
        points = [
            knotted(torch.where(m, x, data[drawn.background_rows]))
            for m in (drawn.members, ~drawn.members)
        ]
        change = knotted(x) - knotted(data)[drawn.background_rows]
        uneven = (2 * drawn.members.double().mean(1) - 1) * change
        response = ((points[0] - points[1] - uneven) / 2)[:, None]
        more = from_rows(drawn, away)
        found = PairRegression(drawn, more).solve(response[None]).values
        z = drawn.members.double()
        z = z - z.mean(1, keepdim=True)
        root = drawn.share.sqrt().numpy()
        design = np.concatenate([z.numpy(), more.columns.numpy()], 1)
        expected = np.linalg.lstsq(root * design, root * response.numpy(), rcond=None)[0][:5]
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)
        if drawn is whole:
            change = (knotted(x) - knotted(data).mean()) / 5
            torch.testing.assert_close(found[0, :, 0] + change, exact[0])


def test_fewer_pairs_than_unknowns_give_the_least_values_that_fit() -> None:
    n, layers = 6, strata(6, 1)
    members, background_rows = draw(layers[1], n, 1, 3, 0)
    responses = torch.randn(1, 3, 1, dtype=torch.float64)
    few = Sample(members, background_rows, layers[1:2], [3])
    found = PairRegression(few).solve(responses).values
    z = members.double()
    z = (z - z.mean(1, keepdim=True)).numpy()
    expected = np.linalg.lstsq(z, responses[0].numpy(), rcond=None)[0]
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)


def test_strata_hold_all_pairs() -> None:
    for n in range(2, 10):
        assert sum(layer.total for layer in strata(n, 3)) == 3 * (2 ** (n - 1) - 1)
        for layer in strata(n, 3):
            members, background_rows = draw(layer, n, 3, layer.total, 0)
            assert (members.sum(1) == layer.size).all()
            pairs = {
                (min(tuple(m), tuple(1 - e for e in m)), b)
                for m, b in zip(members.long().tolist(), background_rows.tolist(), strict=True)
            }
            assert len(pairs) == layer.total


def test_many_players_are_drawn_without_a_list() -> None:
    layer = strata(30, 1)[14]
    members, _ = draw(layer, 30, 1, 300, 0)
    assert members[:, 0].all()
    assert (members.sum(1) == 15).all()
    assert len({tuple(m) for m in members.tolist()}) == 300
    assert torch.equal(draw(layer, 30, 1, 100, 0)[0], members[:100])


@given(n=st.integers(2, 12), pairs=st.integers(20, 4000), more=st.integers(0, 400))
def test_a_larger_sample_continues_a_smaller_one(n: int, pairs: int, more: int) -> None:
    layers = strata(n, 2)
    for weights in ([1.0] * len(layers), [layer.mass for layer in layers]):
        some, others = (allocate(layers, count, weights) for count in (pairs, pairs + more))
        assert sum(some) <= pairs
        assert all(a <= b <= layer.total for a, b, layer in zip(some, others, layers, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "count", "budget"),
    [
        ("leverage", 1, 258),
        ("kernel", 3, 258),
        ("leverage", 1, 480),
        ("leverage", 40, 150),
        ("leverage", 40, 800),
    ],
)
def test_intervals_cover(weights: Any, count: int, budget: int) -> None:
    """Ten columns; a quarter of the pairs, enough for products of three, and for the background."""

    def model(x: Tensor) -> Tensor:
        return knotted(x[:, :5]) + (x[:, 5:8].prod(1) + x[:, 8] * x[:, 9] * x[:, 0]).tanh()

    generator = torch.Generator().manual_seed(1)
    x, data = (torch.randn(c, 10, generator=generator).double() for c in (1, count))
    exact = ExactShapley()(model, x, baseline=Background(data)).values
    hits, errors, said = torch.zeros(10), [], []
    for seed in range(1000):
        found = KernelSHAP(budget=budget, seed=seed, weights=weights)(
            model, x, baseline=Background(data)
        )
        error = found.values - exact
        hits += (error.abs() <= 1.96 * found.std_error)[0]
        errors.append(error)
        said.append(found.std_error)
    rate = hits / 1000
    assert 0.93 <= rate.mean() <= 0.97
    # One rate alone has a standard error of 0.007.
    assert ((rate >= 0.91) & (rate <= 0.985)).all(), rate
    spread = torch.cat(errors).std(0)
    # A regression on a sample is consistent and not unbiased: what it is off is part of the spread.
    assert (torch.cat(errors).mean(0).abs() <= 0.5 * spread).all()
    torch.testing.assert_close(torch.cat(said).mean(0), spread, rtol=0.2, atol=1e-12)


def test_tolerance_is_met_row_by_row_or_the_budget_spent() -> None:
    model, x = ZOO["mlp"].make(), ZOO["mlp"].inputs(6)
    data = Background(ZOO["mlp"].inputs(20, seed=5))
    method = KernelSHAP(budget=600, tol=0.3)
    found = method(model, x, target=1, baseline=data)
    spent = []
    for row in range(6):
        one = method(model, x[row : row + 1], target=1, baseline=data)
        torch.testing.assert_close(one.values[0], found.values[row])
        torch.testing.assert_close(one.std_error[0], found.std_error[row])
        spent.append(one.evaluations)
        assert one.std_error.norm() <= 0.3 * one.values.norm() or one.evaluations > 500
    assert sum(spent) == found.evaluations
    assert len(set(spent)) > 1


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"budget": 129}, "130 evaluations a row"),
        ({"budget": 0}, "budget"),
        ({"weights": "other"}, "leverage"),
        ({"features": 0}, "features"),
        ({"tol": 0}, "tol"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_what_is_refused_before_any_work(settings_: Any, words: str) -> None:
    calls: list[int] = []
    with pytest.raises(BadInput, match=words):
        KernelSHAP(**settings_)(lambda x: calls.append(1), torch.ones(1, 64))
    assert not calls


def first_on_the_path(design: Tensor, weights: Tensor, y: Tensor, count: int) -> list[int]:
    """Lasso by proximal gradient steps, its penalty falling until enough players have a slope."""
    x = design - weights @ design / weights.sum()
    y = y - weights @ y / weights.sum()
    gram, pull = x.T @ (weights[:, None] * x), x.T @ (weights * y)
    step = 1 / torch.linalg.eigvalsh(gram)[-1]
    slopes, penalty = torch.zeros_like(pull), pull.abs().max()
    while int((slopes != 0).sum()) < count:
        penalty = 0.99 * penalty
        for _ in range(2000):
            moved = slopes - step * (gram @ slopes - pull)
            slopes = moved.sign() * (moved.abs() - step * penalty).clamp_min(0)
    return slopes.nonzero()[:, 0].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "features"), [(0, 1), (0, 3), (1, 2), (2, 4), (3, 5)])
def test_few_players_by_a_lasso_then_least_squares_on_them(seed: int, features: int) -> None:
    """With all coalitions at hand: chosen by another solver, fitted by the textbook's conditions."""
    n, table = 6, random_table(6, seed)
    found = KernelSHAP(budget=100, features=features)(lookup(table), ones(n))
    numbers = torch.arange(1, 2**n - 1)
    z = ((numbers[:, None] >> torch.arange(n)) & 1).double()
    w = torch.tensor([kernel(n, int(size)) for size in z.sum(1)]).double()
    chosen = first_on_the_path(z, w, table[numbers], features)
    assert len(chosen) == features
    assert found.values[0].nonzero()[:, 0].tolist() == chosen
    normal = torch.zeros(features + 1, features + 1).double()
    normal[:features, :features] = z[:, chosen].T @ (w[:, None] * z[:, chosen])
    normal[features, :features] = normal[:features, features] = 1
    change = table[-1] - table[0]
    right = torch.cat([z[:, chosen].T @ (w * (table[numbers] - table[0])), change[None]])
    expected = torch.linalg.solve(normal, right)[:features]
    torch.testing.assert_close(found.values[0, chosen], expected)
    torch.testing.assert_close(found.values.sum(), change)
    assert not found.std_error.any()


def test_few_players_row_by_row_and_exact_where_the_others_do_nothing() -> None:
    """Each row and target its own players, against background rows, from a part of the pairs."""
    generator = torch.Generator().manual_seed(2)
    w = torch.randn(2, 12, generator=generator).double() + 2

    def model(x: Tensor) -> Tensor:
        strong = torch.where(x[:, :1] > 0, x[:, :3] @ w[:, :3].T, x[:, 3:6] @ w[:, 3:6].T)
        return strong + 5

    x = torch.randn(4, 12, generator=generator).double()
    x[:, 0] = torch.tensor([1.0, -1.0, 2.0, -2.0])
    data = torch.randn(3, 12, generator=generator).double()
    data[:, 0] = 0.5 * data[:, 0].abs()
    method, target = KernelSHAP(budget=300, features=4), Several(0, 1)
    found = method(model, x, baseline=Background(data), target=target)
    # Two rows keep to one side of the step, where three features act and nothing is left for a fourth.
    assert (found.values != 0).sum(1)[:, 0].tolist() == [3, 4, 3, 4]
    exact = (x - data.mean(0))[::2, :3, None] * w.T[:3]
    torch.testing.assert_close(found.values[::2, :3], exact)
    torch.testing.assert_close(found.values.sum(1), found.score - found.baseline_score)
    assert found.verdict != "fail"
    assert (found.std_error[found.values == 0] == 0).all()
    for row in range(4):
        alone = method(model, x[row : row + 1], baseline=Background(data), target=target)
        torch.testing.assert_close(alone.values[0], found.values[row])
        torch.testing.assert_close(alone.std_error[0], found.std_error[row])
    linear = KernelSHAP(budget=200, features=3)(lambda g: g[:, :3] @ w[0, :3], x, baseline=0.0)
    torch.testing.assert_close(linear.values[:, :3], x[:, :3] * w[0, :3])
    whole = KernelSHAP(budget=200)(lambda g: g[:, :3] @ w[0, :3], x, baseline=0.0)
    for enough in (12, 99):
        same = KernelSHAP(budget=200, features=enough)(
            lambda g: g[:, :3] @ w[0, :3], x, baseline=0.0
        )
        assert torch.equal(same.values, whole.values)


def test_few_players_of_a_score_that_does_not_vary() -> None:
    found = KernelSHAP(budget=40, features=2)(lambda x: 0 * x.sum(1) + 3, ones(8))
    assert not found.values.any()


def test_where_no_player_is_to_be_preferred_all_are_kept() -> None:
    """All or nothing: a coalition and its complement are worth the same."""

    def model(x: Tensor) -> Tensor:
        return (x.sum(1) > 7.5).double()

    found = KernelSHAP(budget=40, features=2)(model, ones(8)).values
    torch.testing.assert_close(found, KernelSHAP(budget=40)(model, ones(8)).values)
    torch.testing.assert_close(found.sum(), torch.tensor(1.0).double())
