"""Linear, low-order and max SHAP against exact Shapley values, and what they say of other models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import ones
from tests.coalition.shapley.test_permutation_shapley import knotted, rows
from whyglass import (
    Background,
    BadInput,
    Conditional,
    ExactShapley,
    LinearSHAP,
    LowOrderSHAP,
    MaxSHAP,
)

X = torch.tensor([[5.0, 4.0, 0.0, 3.0]]).double()
R = torch.tensor([[1.0, 2.0, 2.0, 0.0]]).double()


def largest(x: Tensor) -> Tensor:
    return x.amax(1)


class TestLinear:
    """phi_i = w_i (x_i - E[x_i])."""

    def test_weights_times_the_distance_from_the_mean(self) -> None:
        w = torch.randn(6, generator=torch.Generator().manual_seed(0)).double()
        x, data = torch.randn(3, 6).double(), torch.randn(9, 6).double()
        found = LinearSHAP()(lambda g: g @ w + 7, x, baseline=Background(data))
        torch.testing.assert_close(found.values, w * (x - data.mean(0)))
        # phi_0 is b + w'E[x], not the b that the paper prints.
        torch.testing.assert_close(found.baseline_score, (7 + data.mean(0) @ w).expand(3))
        assert found.checks[0].verdict == "pass"
        assert found.evaluations == 3 * (1 + 9 + 6 * 9)

    def test_any_sum_of_functions_of_one_feature(self) -> None:
        x, data = rows(3, 0), Background(rows(4, 1))
        found = LinearSHAP()(lambda g: g.sin().sum(1), x, baseline=data)
        exact = ExactShapley()(lambda g: g.sin().sum(1), x, baseline=data)
        torch.testing.assert_close(found.values, exact.values)

    def test_interactions_are_noticed(self) -> None:
        found = LinearSHAP()(knotted, rows(2, 0))
        assert found.verdict == "fail"
        assert found.checks[0].measured > 0.1


class TestLowOrder:
    """Dividends of few players."""

    @pytest.mark.parametrize("order", [1, 2, 3])
    def test_exact_where_no_more_act_together(self, order: int) -> None:
        def model(g: Tensor) -> Tensor:
            parts = [g.sin().sum(1), g[:, 0] * g[:, 2] + g[:, 1].exp() * g[:, 4]]
            return torch.stack([*parts, (g[:, 1] * g[:, 2] + g[:, 3]).tanh()][:order]).sum(0)

        x, data = rows(2, 0), Background(rows(3, 1))
        found = LowOrderSHAP(order=order)(model, x, baseline=data)
        exact = ExactShapley()(model, x, baseline=data)
        torch.testing.assert_close(found.values, exact.values)
        assert found.checks[0].verdict == "pass"
        assert found.evaluations == 2 * (1 + 3 + 3 * {1: 5, 2: 15, 3: 25}[order])

    @pytest.mark.parametrize("order", [5, 9])
    def test_of_all_players_is_exact(self, order: int) -> None:
        found = LowOrderSHAP(order=order)(knotted, rows(2, 0))
        torch.testing.assert_close(found.values, ExactShapley()(knotted, rows(2, 0)).values)

    def test_the_naive_dividends(self) -> None:
        """A game that is a sum of products: each dividend is the product's factor."""

        def model(g: Tensor) -> Tensor:
            return 3 * g[:, 0] * g[:, 1] + 6 * g[:, 1] * g[:, 2] * g[:, 3] + g[:, 2]

        found = LowOrderSHAP(order=2)(model, ones(4))
        torch.testing.assert_close(found.values, torch.tensor([[1.5, 1.5, 1, 0]]).double())
        assert found.checks[0].verdict == "fail"
        assert found.checks[0].measured == pytest.approx(0.6)

    def test_too_many_coalitions(self) -> None:
        with pytest.raises(BadInput, match="order 9"):
            LowOrderSHAP(order=9)(lambda x: x.sum(1), torch.ones(1, 40))
        with pytest.raises(BadInput, match="order"):
            LowOrderSHAP(order=0)


class TestMax:
    """The maximum of the inputs."""

    def test_figure(self) -> None:
        found = MaxSHAP()(largest, X, baseline=R)
        expected = torch.tensor([[11 / 6, 5 / 6, 0, 1 / 3]]).double()
        torch.testing.assert_close(found.values, expected)
        torch.testing.assert_close(ExactShapley()(largest, X, baseline=R).values, expected)
        assert found.evaluations == 2 + 4

    def test_figure_4b(self) -> None:
        found = MaxSHAP()(largest, torch.tensor([[5.0, 4.0, 0.0]]))
        torch.testing.assert_close(found.values, torch.tensor([[3.0, 2.0, 0.0]]))

    @settings(max_examples=40, deadline=None)
    @given(
        n=st.integers(1, 7), count=st.integers(1, 3), seed=st.integers(0, 1000), ties=st.booleans()
    )
    def test_equals_exact(self, n: int, count: int, seed: int, ties: bool) -> None:
        generator = torch.Generator().manual_seed(seed)
        x, data = (torch.randn(c, n, generator=generator).double() for c in (2, count))
        if ties:
            x, data = x.round(), data.round()
        found = MaxSHAP()(largest, x, baseline=Background(data))
        exact = ExactShapley()(largest, x, baseline=Background(data))
        torch.testing.assert_close(found.values, exact.values)
        assert all(c.verdict == "pass" for c in found.checks if c.name != "background")

    @pytest.mark.parametrize("players", [(0, 0, 1, 1), (0, -1, 1, 2), (-1, 0, 1, 0)])
    def test_groups_and_what_is_always_present(self, players: Any) -> None:
        for x in (X, X.flip(1), -X):
            found = MaxSHAP(players=players)(largest, x, baseline=R)
            exact = ExactShapley(players=players)(largest, x, baseline=R)
            torch.testing.assert_close(found.values, exact.values)

    def test_an_image(self) -> None:
        x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
        model: Any = lambda g: g.amax((1, 2, 3))  # noqa: E731  a name makes the lines below shorter
        found = MaxSHAP(players=2)(model, x, baseline=0.4)
        exact = ExactShapley(players=2)(model, x, baseline=0.4)
        torch.testing.assert_close(found.values, exact.values)

    def test_another_model_is_noticed(self) -> None:
        found = MaxSHAP()(lambda g: g.logsumexp(1), X, baseline=R)
        check = next(check for check in found.checks if check.name == "maximum")
        assert check.verdict == "fail"

    def test_a_conditional_baseline_is_refused(self) -> None:
        with pytest.raises(BadInput, match="max-shap"):
            MaxSHAP()(largest, X, baseline=Conditional(torch.randn(5, 4).double()))
