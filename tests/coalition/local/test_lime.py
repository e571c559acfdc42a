"""LIME against exact weighted least squares, scikit-learn, and the coverage of its errors."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import lookup, ones, random_table, sickness
from tests.coalition.shapley.test_permutation_shapley import knotted, rows
from tests.zoo.networks import ZOO
from whyglass import LIME, Background, BadInput
from whyglass.coalition.game.game import members
from whyglass.coalition.lasso_path import first_on_lasso_path
from whyglass.coalition.local.kernel_sampling import kernel_sample, log_kernel


def naive(table: Tensor, n: int, width: float, alpha: float = 0.0) -> Tensor:
    """Ribeiro et al. (2016), equation 1, over all of {0, 1}^n: the normal equations, intercept last."""
    zs = torch.tensor(list(itertools.product([0, 1], repeat=n))).double()
    y = table[(zs.long() << torch.arange(n)).sum(1)]
    near = torch.exp(-(n - zs.sum(1)) / (2 * width**2))
    design = torch.cat([zs, torch.ones(2**n, 1).double()], 1)
    penalty = alpha * torch.eye(n + 1).double()
    penalty[n, n] = 0
    normal = design.T @ (near[:, None] * design) + penalty
    return torch.linalg.solve(normal, design.T @ (near * y))[:n]


def test_figure_4a() -> None:
    found = LIME()(sickness, torch.tensor([[1.0, 1.0, 0.0]]))
    torch.testing.assert_close(
        found.values, torch.tensor([[0.4117, 0.4117, 0.0]]), rtol=0, atol=5e-5
    )
    assert not found.std_error.any()


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 7), seed=st.integers(0, 1000), alpha=st.sampled_from([0.0, 0.5, 3.0]))
def test_all_coalitions_are_the_exact_regression(n: int, seed: int, alpha: float) -> None:
    table = random_table(n, seed)
    given_: Any = {"regulariser": "ridge", "alpha": alpha} if alpha else {}
    found = LIME(**given_)(lookup(table), ones(n)).values[0]
    torch.testing.assert_close(found, naive(table, n, 0.75 * n**0.5, alpha))


def test_width() -> None:
    table = random_table(5, 0)
    found = LIME(width=0.6)(lookup(table), ones(5)).values[0]
    torch.testing.assert_close(found, naive(table, 5, 0.6))


def test_cosine_kernel_and_one_of_your_own() -> None:
    table = random_table(5, 0)

    def cosine(zs: Tensor) -> Tensor:
        here = torch.nn.functional.cosine_similarity(zs.double(), torch.ones(5).double()[None])
        return torch.exp(-((1 - here) ** 2) / (2 * 0.25**2))

    one = LIME(kernel="cosine")(lookup(table), ones(5)).values
    other = LIME(kernel=cosine)(lookup(table), ones(5)).values
    torch.testing.assert_close(one, other)
    flat = LIME(kernel=lambda zs: torch.ones(len(zs)))(lookup(table), ones(5)).values[0]
    torch.testing.assert_close(flat, naive(table, 5, 1e6))


def by_kernel(zs: Tensor, width: float) -> Tensor:
    """Weights of coalitions drawn by size: exact where all of a size are there, even for the others."""
    n, sizes = zs.shape[1], zs.sum(1).long()
    mass = torch.tensor([math.comb(n, s) for s in range(n + 1)]).double()
    mass *= torch.exp(-(n - torch.arange(n + 1)) / (2 * width**2))
    seen = torch.bincount(sizes, minlength=n + 1)
    whole = torch.tensor([int(seen[s]) == math.comb(n, s) for s in range(n + 1)])
    even = mass[~whole].sum() / seen[~whole].sum()
    return torch.where(whole, mass / seen, even)[sizes] / mass.sum()


@pytest.mark.parametrize("width", [2.25, 0.8])
def test_the_regression_on_the_coalitions_drawn(width: float) -> None:
    """Against scikit-learn, the weighted R squared and the sandwich as well."""
    linear = pytest.importorskip("sklearn.linear_model")
    n, table = 9, random_table(9, 1)
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        seen.extend(((x > 0.5).long() << torch.arange(n)).sum(1).tolist())
        return lookup(table)(x)

    method = LIME(budget=162, seed=3, regulariser="ridge", alpha=2.0, width=width)
    found = method(model, ones(n))
    numbers = torch.tensor(sorted(set(seen)))
    assert len(seen) == len(numbers) == 162
    zs, y = members(numbers, n).double(), table[numbers]
    w = by_kernel(zs, width)
    # What the weights of 162 coalitions, drawn without regard to size, sum to.
    w *= 162 * ((1 + math.exp(-1 / (2 * width**2))) / 2) ** n
    theirs = linear.Ridge(2.0).fit(zs.numpy(), y.numpy(), sample_weight=w.numpy())
    torch.testing.assert_close(found.values[0], torch.from_numpy(theirs.coef_))
    score = theirs.score(zs.numpy(), y.numpy(), sample_weight=w.numpy())
    fit = next(check for check in found.checks if check.name == "fit")
    assert fit.measured == pytest.approx(1 - score)
    design = torch.cat([zs, torch.ones(162, 1).double()], 1)
    ridge = 2 * torch.eye(n + 1).double()
    ridge[n, n] = 0
    bread = torch.linalg.inv(design.T @ (w[:, None] * design) + ridge)
    lean = w * ((design @ bread) * design).sum(1)
    off = (y - torch.from_numpy(theirs.predict(zs.numpy()))) / (1 - lean.clamp_max(0.9))
    sizes = zs.sum(1).long()
    share = torch.bincount(sizes) / torch.tensor([math.comb(n, s) for s in range(n + 1)])
    square = (w * off)[:, None] ** 2 * (1 - share[sizes])[:, None]
    expected = (bread @ (design.T @ (square * design)) @ bread).diagonal()[:n].sqrt()
    torch.testing.assert_close(found.std_error[0], expected, rtol=1e-6, atol=0)


def test_a_background_is_taken_out_of_the_scores() -> None:
    """A linear model is exact and explained, whatever rows its coalitions met, with a lasso, too."""
    x, data = rows(2, 0), rows(40, 1)
    w = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0]).double()
    for method in (LIME(budget=400), LIME(budget=1000, regulariser="lasso", features=4)):
        found = method(lambda g: g @ w, x, baseline=Background(data))
        torch.testing.assert_close(found.values, (x - data.mean(0)) * w)
        assert found.std_error.max() < 1e-9
        fit = next(check for check in found.checks if check.name == "fit")
        assert fit.measured < 1e-9


def test_the_regression_with_what_a_background_has() -> None:
    """Plain weighted least squares with a column a player: absent, how far its row is off the mean."""
    x, data = rows(1, 0), rows(30, 1)
    found = LIME(budget=31 + 240, seed=3, width=2.0)(knotted, x, baseline=Background(data))
    plan = (5, 30, 240, log_kernel(5, "euclidean", 2.0), 0.0, 3)
    sample, _ = kernel_sample(0, *plan)
    zs, away = sample.coalitions, data[sample.background_rows]
    y = knotted(torch.where(zs, x, away))
    root = sample.weights.sqrt()[:, None]
    more = ~zs * (away - data.mean(0))
    design = torch.cat([zs.double(), more, torch.ones(len(zs), 1).double()], 1)
    expected = torch.linalg.lstsq(root * design, root * y[:, None]).solution[:5, 0]
    torch.testing.assert_close(found.values[0], expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(2, 30))
def test_all_coalitions_over_a_background_are_the_exact_regression(seed: int, count: int) -> None:
    """Whatever is fitted beside: the mean over the background, regressed."""
    x, data = rows(1, seed), rows(count, seed + 1)
    coalitions = members(torch.arange(32), 5)
    table = torch.stack([knotted(torch.where(z, x, data)).mean() for z in coalitions])
    found = LIME(budget=1 + count + 30 * count)(knotted, x, baseline=Background(data)).values[0]
    torch.testing.assert_close(found, naive(table, 5, 0.75 * 5**0.5))


def test_lasso_keeps_the_players_that_enter_first() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    n = 8
    generator = torch.Generator().manual_seed(0)
    zs = torch.randint(2, (200, n), generator=generator) > 0
    weights = torch.rand(200, generator=generator).double()
    slopes = torch.tensor([3.0, 0, -2, 0, 1, 0.5, 0, 0]).double()
    y = zs.double() @ slopes + 0.3 * torch.randn(200, generator=generator).double()
    root = weights.sqrt()[:, None].numpy()
    x = zs.double() - weights @ zs.double() / weights.sum()
    centred = y - weights @ y / weights.sum()
    _, _, path = linear.lars_path(root * x.numpy(), root[:, 0] * centred.numpy(), method="lasso")
    for features in range(1, 6):
        chosen = first_on_lasso_path(zs, weights, y[:, None], features)[0]
        step = next(s for s in range(path.shape[1]) if (path[:, s] != 0).sum() == features)
        assert chosen.nonzero()[:, 0].tolist() == (path[:, step] != 0).nonzero()[0].tolist()


def test_lasso_is_refitted_without_penalty() -> None:
    x = ones(6)
    found = LIME(regulariser="lasso", features=2)(
        lambda g: 3 * g[:, 1] - 2 * g[:, 4] + 0.1 * g[:, 0] + 1, x
    )
    assert found.values[0, [0, 2, 3, 5]].tolist() == [0.0] * 4
    torch.testing.assert_close(found.values[0, [1, 4]], torch.tensor([3.0, -2.0]).double())


def test_lasso_with_fewer_players_than_features_is_all() -> None:
    table = random_table(4, 0)
    found = LIME(regulariser="lasso")(lookup(table), ones(4)).values
    torch.testing.assert_close(found, LIME()(lookup(table), ones(4)).values)


def test_a_linear_model_is_explained_whole() -> None:
    found = LIME(budget=60)(lambda g: 3 * g[:, 1] - 2 * g[:, 4], ones(12))
    torch.testing.assert_close(found.values[0, 1], torch.tensor(3.0).double())
    assert found.checks[0].measured < 1e-9
    assert found.verdict == "pass"


def test_a_warning_where_it_is_unstable_or_does_not_fit() -> None:
    found = LIME(budget=60)(lambda g: g.prod(1) * 0 + (5 * g.sum(1)).sin(), ones(20))
    assert {check.name: check.verdict for check in found.checks} == {
        "fit": "warn",
        "sampling error": "warn",
        "degrees of freedom": "pass",
    }


@pytest.mark.parametrize("settings_", [{}, {"width": 0.2}, {"kernel": "cosine"}, {"budget": 40}])
@pytest.mark.parametrize("value", [3.0, 1e-8, 0.1, -1e12])
def test_a_score_that_never_changes_gives_zeros(settings_: Any, value: float) -> None:
    for regulariser in ("none", "ridge", "lasso"):
        found = LIME(**settings_, regulariser=regulariser)(
            lambda g: 0 * g.sum(1) + value,
            ones(12),
            baseline=Background(torch.zeros(3, 12).double()),
        )
        assert found.verdict == "pass"
        assert not found.values.any()
        assert not found.std_error.any()


def leave_one_out(model: Any, n: int) -> Tensor:
    return (model(ones(n)) - model(1 - torch.eye(n).double()))[None]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("width", [0.4, 0.25, 0.15, 0.05, 0.01, 1e-6, 1e-200])
def test_narrow_kernels(seed: int, width: float) -> None:
    """Against least squares on all 4096 coalitions; in the limit, leave one out."""
    n, generator = 12, torch.Generator().manual_seed(seed)
    into, out = (torch.randn(*s, generator=generator).double() for s in ((n, 16), (16,)))

    def model(z: Tensor) -> Tensor:
        return (z @ into * 0.4).tanh() @ out

    found = LIME(width=width, budget=500, seed=seed)(model, ones(n))
    zs = members(torch.arange(2**n), n).double()
    exact = leave_one_out(model, n)[0]
    if width >= 0.15:
        root = torch.exp(-(n - zs.sum(1)) / (4 * width**2))[:, None]
        design = torch.cat([zs, torch.ones(2**n, 1).double()], 1)
        exact = torch.linalg.lstsq(
            root * design, root * model(zs)[:, None], driver="gelsd"
        ).solution[:n, 0]
    error = (found.values[0] - exact).abs()
    assert found.verdict == "pass"
    assert error.norm() < 2e-3 * exact.norm()
    assert (error <= 4 * found.std_error[0] + 1e-10).all()


def test_coalitions_that_leave_slopes_open() -> None:
    """Players that always go together: the least slopes that fit, and a check that fails."""

    def together(zs: Tensor) -> Tensor:
        return (zs[:, 0] == zs[:, 1]).double()

    found = LIME(kernel=together)(lambda g: 3 * g[:, 0] + g[:, 1] - g[:, 2], ones(4))
    torch.testing.assert_close(found.values, torch.tensor([[2.0, 2.0, -1.0, 0.0]]).double())
    assert found.verdict == "fail"
    rank = next(check for check in found.checks if check.name == "rank")
    assert "2 of 4 players" in rank.text
    assert LIME()(lambda g: g.sum(1), ones(4)).verdict == "pass"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_intervals_cover(count: int) -> None:
    hits, errors, said = torch.zeros(8), [], []

    def model(g: Tensor) -> Tensor:
        return knotted(g[:, :5]) + (g[:, 5] * g[:, 6] - g[:, 7]).tanh()

    generator = torch.Generator().manual_seed(5)
    x, data = (torch.randn(c, 8, generator=generator).double() for c in (1, count))
    exact = LIME(budget=900)(model, x, baseline=Background(data))
    assert not exact.std_error.any()
    for seed in range(1000):
        found = LIME(budget=200, seed=seed)(model, x, baseline=Background(data))
        error = found.values - exact.values
        hits += (error.abs() <= 1.96 * found.std_error)[0]
        errors.append(error)
        said.append(found.std_error)
    rate = hits / 1000
    assert 0.93 <= rate.mean() <= 0.97
    assert ((rate >= 0.92) & (rate <= 0.98)).all(), rate
    spread = torch.cat(errors).std(0)
    assert (torch.cat(errors).mean(0).abs() <= 5 * spread / 1000**0.5).all()
    torch.testing.assert_close(torch.cat(said).mean(0), spread, rtol=0.2, atol=1e-12)


def test_tolerance_is_met_row_by_row_or_the_budget_spent() -> None:
    model, x = ZOO["mlp"].make(), ZOO["mlp"].inputs(6)
    data = Background(ZOO["mlp"].inputs(40, seed=5))
    method = LIME(budget=1000, tol=0.2)
    found = method(model, x, target=1, baseline=data)
    spent = []
    for row in range(6):
        one = method(model, x[row : row + 1], target=1, baseline=data)
        torch.testing.assert_close(one.values[0], found.values[row])
        spent.append(one.evaluations)
        assert one.std_error.norm() <= 0.2 * one.values.norm() or one.evaluations > 500
    assert sum(spent) == found.evaluations
    assert len(set(spent)) > 1


def test_text_and_images() -> None:
    tokens, photo = ZOO["tokens"], ZOO["gap-cnn"]
    words = LIME()(tokens.make(), tokens.inputs(), baseline=7)
    assert words.values.shape == (3, 6)
    patches = LIME(players=2)(photo.make(), photo.inputs())
    assert patches.values.shape == (3, 1, 8, 8)
    assert patches.player_values.shape == (3, 4)


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        ({"budget": 129}, "130 evaluations a row"),
        ({"kernel": "other"}, "euclidean"),
        ({"regulariser": "other"}, "ridge"),
        ({"width": 0.0}, "width"),
        ({"alpha": -1.0}, "alpha"),
        ({"features": 0}, "features"),
    ],
)
def test_what_is_refused_before_any_work(settings_: Any, words: str) -> None:
    calls: list[int] = []
    with pytest.raises(BadInput, match=words):
        LIME(**settings_)(lambda x: calls.append(1), torch.ones(1, 64))
    assert not calls


def test_a_kernel_that_is_none() -> None:
    with pytest.raises(BadInput, match="one weight a coalition"):
        LIME(kernel=lambda zs: zs.double())(lambda x: x.sum(1), torch.ones(1, 3))
