"""Integrated gradients: the book's figures, the rules, and the adaptive one against a fine sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.gradient.book import exercise, flat_at_two, problem, radial, rows
from tests.zoo.networks import ZOO
from whyglass import IntegratedGradients, Several

EXACT = IntegratedGradients(steps=400, tol=1e-9)
Pair = tuple[float, float]


def endpoints(steps: int) -> IntegratedGradients:
    return IntegratedGradients(steps=steps, rule="endpoints")


def close(found: Any, *expected: Pair) -> None:
    torch.testing.assert_close(found.values, rows(*expected), rtol=0, atol=1e-6)


class TestSolvedProblem2:
    """P9.2, p = (0, 3) of class 1 and p = (3, 3) of class 2."""

    def test_three_points(self) -> None:
        close(endpoints(3)(problem(), rows((0, 3)), target=0), (0, 2))
        close(endpoints(3)(problem(), rows((3, 3)), target=1, baseline=rows((0, 3))), (2, 0))
        close(endpoints(3)(problem(), rows((3, 3)), target=1), (0, 0))

    @pytest.mark.parametrize(
        ("steps", "value"), [(3, 2.0), (11, 27 / 11), (101, 252 / 101), (1001, 2502 / 1001)]
    )
    def test_more_points(self, steps: int, value: float) -> None:
        close(endpoints(steps)(problem(), rows((0, 3)), target=0), (0, value))
        close(
            endpoints(steps)(problem(), rows((3, 3)), target=1, baseline=rows((0, 3))), (value, 0)
        )

    def test_printed_digits(self) -> None:
        for steps, printed in ((11, 2.4545), (101, 2.49505), (1001, 2.4995)):
            found = endpoints(steps)(problem(), rows((0, 3)), target=0)
            assert found.values[0, 1].item() == pytest.approx(printed, abs=5e-5)

    def test_exact(self) -> None:
        close(EXACT(problem(), rows((0, 3)), target=0), (0, 2.5))
        close(EXACT(problem(), rows((3, 3)), target=1, baseline=rows((0, 3))), (2.5, 0))


# (input, class, baseline, exact, three points)
EXERCISE: list[tuple[Pair, int, Pair, Pair, Pair]] = [
    ((0, -5), 0, (0, 0), (0, 2), (0, 5 / 3)),
    ((0, -5), 0, (3, 0), (0, 2), (0, 5 / 3)),
    ((0, -5), 0, (0, 5), (0, 2), (0, 10 / 3)),
    ((0, -5), 0, (6, 0), (-6, 7), (-4, 5)),
    ((0, -5), 0, (9, 0), (-9, 7), (-6, 5)),
    ((0, -5), 0, (3, -5), (-3, 0), (-2, 0)),
    ((3, 0), 1, (9, 0), (4, 0), (4, 0)),
    ((3, 0), 1, (0, -5), (0, 2), (0, 5 / 3)),
    ((3, 0), 1, (0, 6), (1 / 3, 2 / 3), (1, 2)),
    ((3, 0), 1, (0, 9), (1, 3), (1, 3)),
]


@pytest.mark.parametrize(("point", "target", "baseline", "exact", "three"), EXERCISE)
def test_exercise_2(point: Pair, target: int, baseline: Pair, exact: Pair, three: Pair) -> None:
    start = rows(baseline)
    found = EXACT(exercise(), rows(point), target=target, baseline=start)
    close(found, exact)
    assert found.verdict == "pass"
    close(endpoints(3)(exercise(), rows(point), target=target, baseline=start), three)


class TestFlatAtTwo:
    """F(x) = 1 - ReLU(1 - x) from 0 to 2, where the gradient is 0."""

    @pytest.mark.parametrize(
        ("steps", "printed"),
        [(2, 1), (3, 0.6667), (5, 0.8), (11, 0.9091), (21, 0.9524), (51, 0.9804), (101, 0.9901)],
    )
    def test_endpoints(self, steps: int, printed: float) -> None:
        # Half of the points, the middle one and those after it left out: the kink has gradient 0.
        exact = 2 * (steps // 2) / steps
        found = endpoints(steps)(flat_at_two, rows((2,)))
        assert found.values.item() == pytest.approx(exact, abs=1e-6)
        assert found.values.item() == pytest.approx(printed, abs=5e-5)

    @pytest.mark.parametrize(("rule", "value"), [("midpoint", 1), ("right", 0.96), ("left", 1)])
    def test_fifty_points(self, rule: Any, value: float) -> None:
        found = IntegratedGradients(steps=50, rule=rule)(flat_at_two, rows((2,)))
        assert found.values.item() == pytest.approx(value, abs=1e-6)

    @pytest.mark.parametrize("method", [EXACT, IntegratedGradients()])
    def test_adaptive(self, method: IntegratedGradients) -> None:
        assert method(flat_at_two, rows((2,))).values.item() == pytest.approx(1, abs=1e-6)

    def test_completeness_tells_the_biased_rule_off(self) -> None:
        found = endpoints(11)(flat_at_two, rows((2,)))
        assert found.checks[0].measured == pytest.approx(1 / 11, abs=1e-9)
        assert found.verdict == "fail"


def test_radial_network() -> None:
    """By symmetry each integral is known: (0, c) and (c, c) with c from the change of score."""
    at, start = rows((0, 0), (0, 0)), rows((0, -2), (1, 1))
    change = (radial()(at) - radial()(start))[:, 0].tolist()
    for method in (
        EXACT,
        IntegratedGradients(),
        IntegratedGradients(steps=40, rule="gauss-legendre"),
    ):
        close(method(radial(), at, baseline=start), (0, change[0]), (change[1] / 2, change[1] / 2))
    assert change == pytest.approx([0.466944, 0.385418], abs=5e-7)
    # The figures that are quoted, (0, .46690) and (.19270, .19270), are those of 10001 endpoints.
    quoted = endpoints(10001)(radial(), at, baseline=start)
    torch.testing.assert_close(
        quoted.values, rows((0, 0.46690), (0.19270, 0.19270)), rtol=0, atol=5e-6
    )


class TestAxiomsPaper:
    def test_invariance_pair(self) -> None:
        def one(x: Tensor) -> Tensor:
            z = torch.relu(x)
            return torch.relu(z[:, 0] - 1 - z[:, 1])

        def other(x: Tensor) -> Tensor:
            z = torch.relu(x)
            return torch.relu(torch.relu(z[:, 0] - 1) - z[:, 1])

        for model in (one, other):
            close(EXACT(model, rows((3, 1))), (1.5, -0.5))

    @pytest.mark.parametrize(
        ("second", "exact", "printed"),
        [(2.001, (2.0, 0.0), (1.9995, 0.0005)), (1.999, (0.0, 1.999), (0.0005, 1.9985))],
    )
    def test_continuity(self, second: float, exact: Pair, printed: Pair) -> None:
        """A small step of the input moves all of min(x1, x2) from one feature to the other.

        The figures printed are those of 2000 left points: the first lies at the origin, a tie,
        where PyTorch splits the gradient of the minimum evenly.
        """

        def smaller(x: Tensor) -> Tensor:
            return torch.minimum(x[:, 0], x[:, 1])

        at = rows((2, second))
        close(EXACT(smaller, at), exact)
        left = IntegratedGradients(steps=2000, rule="left")(smaller, at)
        torch.testing.assert_close(left.values, rows(printed), rtol=0, atol=5e-7)


class TestRules:
    """Each rule against its sum written out with numpy, on a smooth score of known gradient."""

    @staticmethod
    def _model(x: Tensor) -> Tensor:
        return torch.exp(x[:, 0]) * torch.sin(3 * x[:, 1])

    @staticmethod
    def _along(alpha: np.ndarray) -> np.ndarray:
        """(T, 2) gradients times the way, from (0.1, 0.2) to (0.7, 1.5)."""
        start, end = np.array([0.1, 0.2]), np.array([0.7, 1.5])
        x = start + alpha[:, None] * (end - start)
        gradient = np.stack(
            [np.exp(x[:, 0]) * np.sin(3 * x[:, 1]), 3 * np.exp(x[:, 0]) * np.cos(3 * x[:, 1])], 1
        )
        return gradient * (end - start)

    def _naive(self, rule: str, count: int) -> np.ndarray:
        every = range(count)
        if rule == "trapezoid":
            g = self._along(np.array([k / (count - 1) for k in every]))
            return sum((g[k] + g[k + 1]) / 2 / (count - 1) for k in range(count - 1))
        if rule == "gauss-legendre":
            points, weights = np.polynomial.legendre.leggauss(count)
            g = self._along((points + 1) / 2)
            return sum(g[k] * weights[k] / 2 for k in every)
        place = {
            "endpoints": lambda k: k / (count - 1),
            "left": lambda k: k / count,
            "right": lambda k: (k + 1) / count,
            "midpoint": lambda k: (k + 0.5) / count,
        }[rule]
        return self._along(np.array([place(k) for k in every])).sum(0) / count

    @pytest.mark.parametrize(
        "rule", ["endpoints", "left", "right", "midpoint", "trapezoid", "gauss-legendre"]
    )
    @pytest.mark.parametrize("count", [2, 3, 7, 20])
    def test_fixed(self, rule: Any, count: int) -> None:
        found = IntegratedGradients(steps=count, rule=rule)(
            self._model, rows((0.7, 1.5)), baseline=rows((0.1, 0.2))
        )
        np.testing.assert_allclose(found.values[0].numpy(), self._naive(rule, count), rtol=1e-12)
        assert found.std_error is None

    @pytest.mark.parametrize("rule", ["left", "right", "midpoint", "gauss-legendre"])
    def test_one_point(self, rule: Any) -> None:
        found = IntegratedGradients(steps=1, rule=rule)(
            self._model, rows((0.7, 1.5)), baseline=rows((0.1, 0.2))
        )
        np.testing.assert_allclose(found.values[0].numpy(), self._naive(rule, 1), rtol=1e-12)

    def test_gauss_legendre_is_exact_for_polynomials(self) -> None:
        """Degree 2 T - 1 of the gradient, so degree 2 T of the score."""
        for count in (1, 2, 3, 5):
            found = IntegratedGradients(steps=count, rule="gauss-legendre")(
                lambda x, n=count: x[:, 0] ** (2 * n), rows((1.3,)), baseline=rows((-0.4,))
            )
            assert found.checks[0].measured < 1e-12

    def test_the_adaptive_rule_is_the_fine_sum(self) -> None:
        found = EXACT(self._model, rows((0.7, 1.5)), baseline=rows((0.1, 0.2)))
        fine = self._naive("gauss-legendre", 60)
        np.testing.assert_allclose(found.values[0].numpy(), fine, rtol=1e-4)


def _fine(model: Callable[..., Any], x: Tensor, start: Tensor, target: int) -> Tensor:
    """The integral by 20000 midpoints, by autograd alone."""
    found = []
    for row, base in zip(x, start, strict=True):
        alpha = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
        points = (base + alpha[:, None] * (row - base)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(points)[:, target].sum(), points)
        found.append(gradient.mean(0) * (row - base))
    return torch.stack(found)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), target=st.integers(0, 3), scale=st.sampled_from([1.0, 4.0]))
def test_adaptive_against_a_fine_sum(seed: int, target: int, scale: float) -> None:
    """Any net, any row: close, and never far off what the explanation says of its error.

    Two kinks can hide between neighbouring points, some once in a thousand rows.
    """
    network = ZOO["mlp"]
    model, x, start = (
        network.make(seed),
        scale * network.inputs(2, seed),
        network.inputs(2, seed + 1),
    )
    exact = _fine(model, x, start, target)
    found = IntegratedGradients(steps=64, tol=1e-3)(model, x, target=target, baseline=start)
    error = (found.values - exact).norm(dim=1)
    said = found.std_error.norm(dim=1)
    assert (error <= 10 * said + 1e-6 * exact.norm(dim=1)).all()
    assert (error <= 0.05 * exact.norm(dim=1) + 1e-3).all()
    more = IntegratedGradients(steps=1500, tol=1e-6)(model, x, target=target, baseline=start)
    # The fine sum itself is off by its step where the path crosses a kink.
    torch.testing.assert_close(more.values, exact, rtol=1e-3, atol=2e-3)


@pytest.mark.slow
def test_the_error_is_what_is_said_of_it() -> None:
    """Over a hundred rows of fifty nets: half as large in the middle, seldom larger."""
    network, ratios = ZOO["mlp"], []
    for seed in range(50):
        model, x, start = network.make(seed), network.inputs(2, seed), network.inputs(2, seed + 1)
        target = seed % 4
        exact = _fine(model, x, start, target)
        found = IntegratedGradients(steps=64, tol=1e-3)(model, x, target=target, baseline=start)
        error = (found.values - exact).norm(dim=1)
        ratios.append(error / found.std_error.norm(dim=1))
    ratio = torch.cat(ratios)
    assert 0.25 < ratio.median() < 1
    assert ratio.quantile(0.95) < 1.5


class Rough(nn.Module):
    """Many ReLUs whose kinks lie close together on the path: a gradient like a random walk."""

    def __init__(self, seed: int, width: int = 3000, features: int = 40) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(
            torch.randn(width, features, generator=generator, dtype=torch.float64)
        )
        self.bias = nn.Parameter(torch.randn(width, generator=generator, dtype=torch.float64) * 3)
        self.out = nn.Parameter(torch.randn(width, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.weight.T + self.bias) @ self.out

    def integral(self, x: Tensor) -> Tensor:
        """From zero, exactly: each unit is active on one side of its kink."""
        slope = x @ self.weight.T
        kink = -self.bias / slope
        share = torch.where(slope > 0, 1 - kink.clamp(0, 1), kink.clamp(0, 1))
        inside = (kink > 0) & (kink < 1)
        share = torch.where(inside, share, (slope / 2 + self.bias > 0).double())
        return (share * self.out) @ self.weight * x


def test_standard_errors_are_honest_on_a_rough_path() -> None:
    inside, errors, said = [], [], []
    for seed in range(12):
        model = Rough(seed)
        x = torch.randn(1, 40, generator=torch.Generator().manual_seed(seed)).double()
        exact = model.integral(x).detach()
        found = IntegratedGradients(steps=48, tol=1e-9)(model, x)
        assert found.gradients == 48
        error = found.values - exact
        inside.append(error.abs() <= 1.96 * found.std_error)
        errors.append(error)
        said.append(found.std_error)
    rate = torch.cat(inside).double().mean().item()
    assert 0.9 <= rate <= 0.995
    rms = torch.cat(errors).square().mean().sqrt()
    assert torch.cat(said).square().mean().sqrt() == pytest.approx(rms, rel=0.25)


def test_the_exact_integral_of_the_rough_network() -> None:
    """The reference of the test above, against the fine sum."""
    model = Rough(0, 50, 4)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double()
    fine = _fine(lambda p: model(p)[:, None], x, torch.zeros_like(x), 0)
    torch.testing.assert_close(model.integral(x).detach(), fine, rtol=1e-3, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(2, 40),
    many=st.integers(1, 4),
    tol=st.sampled_from([0.3, 0.01, 1e-9]),
    targets=st.integers(1, 3),
    batch=st.sampled_from([1, 3, "auto"]),
)
def test_budget_is_never_exceeded(
    steps: int, many: int, tol: float, targets: int, batch: int | str
) -> None:
    network = ZOO["mlp"]
    found = IntegratedGradients(steps=steps, tol=tol)(
        network.make(), network.inputs(many), target=Several(*range(targets)), batch_size=batch
    )
    assert found.evaluations <= steps * many
    assert found.gradients == found.evaluations * targets
    # The steps include the one at the input, and those of the baseline.
    if tol == 1e-9 and steps > 9:
        assert found.evaluations >= 9 * many


def test_rows_converge_on_their_own() -> None:
    """A row where the score is linear costs nine gradients beside one that takes all of them."""

    def model(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, x.sum(1), torch.sin(40 * x[:, 1]) * x[:, 2] + x[:, 1] ** 3)

    easy, hard = (1.0, 2.0, 3.0), (-1.0, 2.0, 3.0)
    start = rows((0.5, 0, 0), (-1, 0.1, 0.3))
    method = IntegratedGradients(steps=128, tol=1e-4)
    both = method(model, rows(easy, hard), baseline=start)
    alone = [method(model, rows(p), baseline=start[i : i + 1]) for i, p in enumerate((easy, hard))]
    assert alone[0].gradients == 9
    assert alone[1].gradients == 128
    assert both.gradients == 9 + 128
    for row, one in enumerate(alone):
        torch.testing.assert_close(both.values[row], one.values[0])
        torch.testing.assert_close(both.std_error[row], one.std_error[0])
    torch.testing.assert_close(both.values[0], rows((0.5, 2, 3))[0])


def test_a_smaller_tolerance_costs_more_and_is_met() -> None:
    network = ZOO["silu"]
    spent = []
    for tol in (0.1, 0.01, 0.001):
        found = IntegratedGradients(steps=2000, tol=tol)(network.make(), network.inputs())
        assert {check.name: check for check in found.checks}["completeness"].measured <= tol
        said = found.std_error.flatten(1).norm(dim=1) / found.values.flatten(1).norm(dim=1)
        assert (said <= tol * 1.2).all()
        spent.append(found.gradients)
    assert spent[0] <= spent[1] < spent[2] < 6000


def test_scores_at_both_ends() -> None:
    network = ZOO["mlp"]
    model, x, start = network.make(), network.inputs(), network.inputs(3, 9)
    for rule in ("adaptive", "midpoint"):
        found = IntegratedGradients(steps=16, rule=rule)(model, x, target=2, baseline=start)
        torch.testing.assert_close(found.score, model(x)[:, 2].detach())
        torch.testing.assert_close(found.baseline_score, model(start)[:, 2].detach())


def test_adaptive_adds_up_to_the_change_of_score() -> None:
    """In the end the weights lean so that the sum is exact to rounding."""
    network = ZOO["gap-cnn"]
    found = IntegratedGradients(steps=32)(network.make(), network.inputs())
    change = found.score - found.baseline_score
    torch.testing.assert_close(found.values.flatten(1).sum(1), change, rtol=1e-10, atol=1e-12)


def test_a_jump_of_the_score_is_not_hidden() -> None:
    """A step has no gradient: what the values miss is a failed check."""
    found = IntegratedGradients()(lambda x: (x[:, 0] > 0.5).double() + 0.1 * x[:, 0], rows((1,)))
    assert found.verdict == "fail"
    assert found.checks[0].measured == pytest.approx(1 / 1.1, rel=0.01)


def test_a_peak_on_the_path_is_found() -> None:
    """Narrow enough to fall between the first nine points, but not past their scores."""

    def model(x: Tensor) -> Tensor:
        return torch.sigmoid(400 * (x[:, 0] - 0.31)) + x[:, 1]

    found = IntegratedGradients(steps=200)(model, rows((1, 1)))
    close(found, (1, 1))
    assert found.verdict == "pass"


@pytest.mark.parametrize("eps", [1e-12, 1e-18, 1e-24])
def test_a_steep_norm_at_the_baseline_leaves_finite_values(eps: float) -> None:
    """Float32 holds the gradient at the baseline, 1 / eps, and not its square."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(4, 8, bias=False),
        nn.LayerNorm(8, eps),
        nn.Linear(8, 8, bias=False),
        nn.LayerNorm(8, eps),
        nn.Linear(8, 2),
    ).eval()
    explanation = IntegratedGradients()(net, torch.randn(3, 4), target=1)
    assert isinstance(explanation.values, Tensor)
    assert explanation.values.isfinite().all()
    assert all(np.isfinite(check.measured) for check in explanation.checks)
