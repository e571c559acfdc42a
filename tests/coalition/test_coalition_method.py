"""What holds for every method of coalitions: zeros, rows, missing values, memory, the background."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from whyglass import (
    LIME,
    QII,
    Background,
    BadInput,
    Conditional,
    DeepSHAP,
    ExactShapley,
    ExpectedGradients,
    FeaturePermutation,
    Gaussian,
    KernelSHAP,
    LinearSHAP,
    LowOrderSHAP,
    MaxSHAP,
    Method,
    Occlusion,
    Owen,
    PermutationShapley,
    RegressionAdjustedShapley,
    interactions,
)
from whyglass.coalition import coalition_method
from whyglass.coalition.game import game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.shapley import low_order_shap

ROW = [
    ExactShapley(),
    KernelSHAP(budget=30),
    KernelSHAP(budget=30, features=2),
    KernelSHAP(budget=30, weights="kernel"),
    PermutationShapley(budget=60),
    RegressionAdjustedShapley(budget=40),
    Owen(budget=60),
    LIME(budget=40),
    LIME(budget=40, kernel="cosine"),
    LIME(budget=40, regulariser="lasso", features=2),
    LIME(budget=40, regulariser="ridge"),
    LinearSHAP(),
    LowOrderSHAP(),
    MaxSHAP(),
]
SET = [
    *(method for method in ROW if not isinstance(method, MaxSHAP | RegressionAdjustedShapley)),
    QII(budget=200),
    QII(budget=200, influence="unary"),
    FeaturePermutation(),
]


def draw(rows: int, seed: int, columns: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def network(seed: int, columns: int = 6) -> Any:
    hidden, last = draw(columns, seed, 8), draw(8, seed + 1, 1)
    return lambda z: (torch.tanh(z @ hidden.to(z)) @ last.to(z))[:, 0]


class TestZeros:
    """Exact by construction: no score differs, or no input does."""

    @pytest.mark.parametrize("method", SET, ids=repr)
    @pytest.mark.parametrize("constant", [0.1, 1 / 3, -7e5])
    @pytest.mark.parametrize("rows", [2, 7])
    def test_a_constant_model(self, method: Method, constant: float, rows: int) -> None:
        result = method(
            lambda z: torch.full((len(z),), constant, dtype=z.dtype),
            draw(2, 0),
            baseline=Background(draw(rows, 1)),
        )
        assert not result.values.any()
        assert not result.std_error.any()
        assert torch.equal(result.baseline_score, result.score)

    @pytest.mark.parametrize("method", [*SET, ExpectedGradients(), DeepSHAP()], ids=repr)
    @pytest.mark.parametrize("constant", [0.1, -1e12])
    def test_a_constant_model_asks_for_no_other_background(
        self, method: Method, constant: float
    ) -> None:
        result = method(
            lambda z: z.sum(1) * 0 + constant, draw(2, 0), baseline=Background(draw(3, 1))
        )
        check = next(check for check in result.checks if check.name == "background")
        assert check.measured == 0

    @pytest.mark.parametrize("method", ROW, ids=repr)
    @pytest.mark.parametrize("seed", [0, 1])
    def test_features_that_equal_the_baseline(self, method: Method, seed: int) -> None:
        x, base = draw(3, seed), draw(1, seed + 9)
        x[0, 2], x[1, :3], x[2] = base[0, 2], base[0, :3], base[0]
        result = method(network(seed), x, baseline=base)
        unchanged = x == base
        assert not result.values[unchanged].any()
        assert not result.std_error[unchanged].any()
        assert any("values of zero: 1" in note for note in result.notes)
        gap = [check for check in result.checks if check.name == "completeness"]
        if not isinstance(method, LinearSHAP | LowOrderSHAP | MaxSHAP):
            assert all(check.verdict == "pass" for check in gap)

    @pytest.mark.parametrize("method", SET, ids=repr)
    @pytest.mark.parametrize("seed", [0, 1])
    def test_features_that_equal_the_whole_background(self, method: Method, seed: int) -> None:
        x, data = draw(2, seed), draw(5, seed + 9)
        data[:, 1], x[0, 1] = 0.3, 0.3
        result = method(network(seed), x, baseline=Background(data))
        assert result.values[0, 1] == 0
        assert result.std_error[0, 1] == 0

    @pytest.mark.parametrize(
        "method", [KernelSHAP(budget=30), RegressionAdjustedShapley(budget=40)]
    )
    def test_a_game_without_them(self, method: Method) -> None:
        """The others play as if the unchanged were held fixed, row by row."""
        x, base = draw(3, 0), draw(1, 9)
        x[1, :2], x[2, 5] = base[0, :2], base[0, 5]
        whole = method(network(0), x, baseline=base)
        for row, held in ((1, [0, 1]), (2, [5])):
            players = torch.full((6,), -1)
            rest = [i for i in range(6) if i not in held]
            players[rest] = torch.arange(len(rest))
            alone = type(method)(budget=method.budget, players=players)(
                network(0), x[row : row + 1], baseline=base
            )
            torch.testing.assert_close(whole.values[row], alone.values[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(whole.std_error[row], alone.std_error[0], rtol=0, atol=1e-12)


class TestMissing:
    """NaN in inputs and baselines, where the model takes it."""

    @pytest.mark.parametrize("method", ROW[:-1], ids=repr)
    def test_inputs_and_baseline(self, method: Method) -> None:
        model, filled = network(0), lambda z: network(0)(z.nan_to_num(0.7))
        x, base = draw(2, 0), draw(1, 1)
        x[0, 1], x[1, 4], base[0, 2] = math.nan, math.nan, math.nan
        result = method(filled, x, baseline=base)
        expected = method(model, x.nan_to_num(0.7), baseline=base.nan_to_num(0.7))
        torch.testing.assert_close(result.values, expected.values, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("method", [ExactShapley(), KernelSHAP(), PermutationShapley(), LIME()])
    def test_a_number_and_a_background(self, method: Method) -> None:
        def model(z: Tensor) -> Tensor:
            return z.nan_to_num(-1.0).sum(1)

        result = method(model, torch.tensor([[1.0, math.nan]]), baseline=math.nan)
        assert result.values[0].tolist() == pytest.approx([2.0, 0.0])
        result = method(model, torch.tensor([[1.0, math.nan]]))
        assert result.values[0].tolist() == pytest.approx([1.0, -1.0])
        data = torch.tensor([[math.nan, 0.0], [0.0, math.nan], [2.0, 2.0]])
        result = method(model, torch.tensor([[1.0, math.nan]]), baseline=Background(data))
        assert result.values[0].tolist() == pytest.approx([2 / 3, -4 / 3], abs=1e-5)

    @pytest.mark.parametrize("baseline", [Conditional(draw(9, 0)), Gaussian(draw(9, 0))], ids=repr)
    def test_where_inputs_are_compared_with_data(self, baseline: Any) -> None:
        x = draw(2, 1)
        x[1, 3] = math.nan
        with pytest.raises(BadInput, match=r"NaN.*Background"):
            ExactShapley()(lambda z: z.nan_to_num(0.0).sum(1), x, baseline=baseline)

    def test_a_score_that_is_not_finite_names_the_coalition(self) -> None:
        def model(z: Tensor) -> Tensor:
            return torch.where((z[:, 1] == 0) & (z[:, 0] == 1), torch.nan, z.sum(1))

        words = r"row 1 .* players \[1, 2\] absent and \[0\] present.*baseline"
        with pytest.raises(BadInput, match=words):
            ExactShapley()(model, torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]))


class TestMemory:
    @pytest.mark.parametrize(
        "method", [ExactShapley(), LowOrderSHAP(), LinearSHAP(), MaxSHAP(), FeaturePermutation()]
    )
    def test_no_more_than_a_block_at_once(
        self, method: Method, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As many coalitions, background rows and columns as there may be, in blocks."""
        x, data = draw(3, 0), Background(draw(4, 1))
        expected = method(network(0), x, baseline=data)
        monkeypatch.setattr(game, "BLOCK", 24)
        monkeypatch.setattr(game, "MEMBERSHIPS", 100)
        monkeypatch.setattr(low_order_shap, "MEMBERSHIPS", 12)
        monkeypatch.setattr(coalition_method, "MOST_HELD", 64)
        sizes: list[int] = []
        usual = Masker.evaluate

        def counted(
            self: Masker, scorer: Any, coalitions: Tensor, background_rows: Tensor, rows: Tensor
        ) -> Tensor:
            sizes.append(coalitions.numel() * len(rows))
            return usual(self, scorer, coalitions, background_rows, rows)

        monkeypatch.setattr(Masker, "evaluate", counted)
        result = method(network(0), x, baseline=data)
        torch.testing.assert_close(result.values, expected.values, rtol=0, atol=1e-12)
        assert result.evaluations == expected.evaluations
        assert max(sizes) <= 24 * 6


class TestBackground:
    @pytest.mark.parametrize(
        "method", [ExactShapley(), LinearSHAP(), DeepSHAP(), ExpectedGradients(samples=600)]
    )
    def test_the_figure_is_how_far_backgrounds_differ(self, method: Method) -> None:
        """Of a sum of functions of one feature each the figure has no approximation in it."""
        weights = draw(1, 5)[0]

        def model(z: Tensor) -> Tensor:
            return z.relu() @ weights

        x, values, figures = draw(1, 3), [], []
        for seed in range(25):
            result = method(model, x, baseline=Background(draw(12, 100 + seed)))
            values.append(result.values[0])
            figures.append(next(c.measured for c in result.checks if c.name == "background"))
        stacked = torch.stack(values)
        off = float((stacked - stacked.mean(0)).square().sum(1).mean().sqrt())
        relative = off / float(stacked.mean(0).norm())
        mean = (sum(f * f for f in figures) / len(figures)) ** 0.5
        assert 0.6 < mean / relative < 1.7

    @pytest.mark.parametrize("method", [*SET[:-1], DeepSHAP(), ExpectedGradients()], ids=repr)
    def test_two_rows_warn_and_many_pass(self, method: Method) -> None:
        verdicts = []
        for rows in (2, 150):
            method = replace(method, budget=2000) if hasattr(method, "budget") else method
            result = method(network(3), 2 * draw(1, 3), baseline=Background(draw(rows, 7)))
            verdicts += [c.verdict for c in result.checks if c.name == "background"]
        assert verdicts == ["warn", "pass"]

    def test_one_row_is_said(self) -> None:
        result = ExactShapley()(network(0), draw(1, 0), baseline=Background(draw(1, 1)))
        assert any("one background row" in note for note in result.notes)


def test_windows_and_pairs_that_equal_the_baseline() -> None:
    x, base = draw(2, 0), draw(1, 9)
    x[0, 2:4] = base[0, 2:4]
    occluded = Occlusion(window=2, stride=2)(network(0), x, baseline=base)
    assert not occluded.values[0, 2:4].any()
    assert occluded.values[1].all()
    for budget in (200, 130):
        pairs = interactions(network(0), x, baseline=base, budget=budget)
        assert not pairs.values[0, 2:4].any()
        assert not pairs.std_error[0, :, 2:4].any()
        assert pairs.values[1, 0, 1] != 0
