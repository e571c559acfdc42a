"""Expected gradients against the full sum over background and path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.zoo.networks import ZOO
from whyglass import Background, ExpectedGradients, IntegratedGradients


def _exact(model: Any, x: Tensor, data: Tensor, target: int, points: int = 4000) -> Tensor:
    """The mean over every background row of the integral by midpoints, by autograd alone."""
    alpha = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    total = torch.zeros_like(x)
    for row in range(len(x)):
        for base in data:
            way = x[row] - base
            path = (base + alpha.reshape(-1, *[1] * way.dim()) * way).requires_grad_()
            (gradient,) = torch.autograd.grad(model(path)[:, target].sum(), path)
            total[row] += gradient.mean(0) * way / len(data)
    return total


def _data(name: str, rows: int) -> Tensor:
    made = ZOO[name].inputs(rows, seed=5)
    assert isinstance(made, Tensor)
    return made


@pytest.mark.parametrize("name", ["mlp", "transformer", "lstm"])
def test_brute_force(name: str) -> None:
    network, data = ZOO[name], _data(name, 4)
    model, x = network.make(), network.inputs(2)
    exact = _exact(model, x, data, 1)
    found = ExpectedGradients(samples=4000)(model, x, target=1, baseline=Background(data))
    error = (found.values - exact).abs()
    # Five standard errors, over at most a hundred values.
    assert (error <= 5 * found.std_error + 1e-9).all()
    assert error.norm() < 0.1 * exact.norm()


def test_the_naive_draws() -> None:
    """One background row and one alpha a sample, shared by the rows of the batch."""
    network, data = ZOO["mlp"], _data("mlp", 4)
    model, x = network.make(), network.inputs()
    found = ExpectedGradients(samples=12, seed=3)(model, x, target=2, baseline=data)
    generator = torch.Generator().manual_seed(3)
    samples = []
    for _ in range(12):
        base = data[int(torch.randint(4, (), generator=generator))]
        alpha = float(torch.rand((), generator=generator))
        point = (base + alpha * (x - base)).requires_grad_()
        (gradient,) = torch.autograd.grad(model(point)[:, 2].sum(), point)
        samples.append(gradient * (x - base))
    stacked = torch.stack(samples)
    torch.testing.assert_close(found.values, stacked.mean(0))
    torch.testing.assert_close(found.std_error, stacked.std(0) / 12**0.5)


@pytest.mark.slow
def test_intervals_cover() -> None:
    """F = sum x^2 / 2 has the share (x^2 - x'^2) / 2 exactly."""
    data = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = torch.tensor([[1.0, -0.5, 2.0]], dtype=torch.float64)
    exact = (x**2 - data**2).mean(0, keepdim=True) / 2
    hits, errors, said = torch.zeros(3), [], []
    sums = 0
    for seed in range(400):
        found = ExpectedGradients(samples=100, seed=seed)(
            lambda given: (given**2).sum(1) / 2, x, baseline=data
        )
        error = found.values - exact
        hits += (error.abs() <= 1.96 * found.std_error)[0]
        errors.append(error)
        said.append(found.std_error)
        sums += found.checks[0].verdict == "pass"
    rate = hits / 400
    assert ((rate >= 0.92) & (rate <= 0.98)).all(), rate
    spread = torch.cat(errors).std(0)
    assert (torch.cat(errors).mean(0).abs() < 4 * spread / 20).all()
    torch.testing.assert_close(torch.cat(said).mean(0), spread, rtol=0.15, atol=0)
    # Four standard errors of the sum: a failure in some ten thousand.
    assert sums >= 398


def test_a_background_of_one_row_is_integrated_gradients() -> None:
    network = ZOO["silu"]
    model, x = network.make(), network.inputs(2)
    one = _data("silu", 1)
    expected = IntegratedGradients(steps=400, tol=1e-4)(model, x, baseline=one)
    found = ExpectedGradients(samples=800)(model, x, baseline=one)
    assert (found.values - expected.values).norm() < 0.1 * expected.values.norm()
    torch.testing.assert_close(found.baseline_score, expected.baseline_score)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), many=st.integers(1, 5))
def test_complete_within_its_error(seed: int, many: int) -> None:
    network, data = ZOO["mlp"], ZOO["mlp"].inputs(many, seed + 1)
    model, x = network.make(seed), network.inputs(2, seed)
    found = ExpectedGradients(samples=300, seed=seed)(model, x, target=1, baseline=data)
    torch.testing.assert_close(found.baseline_score, model(data)[:, 1].mean().detach().expand(2))
    check = found.checks[0]
    assert check.name == "completeness"
    assert check.measured < 5
    gap = (found.values.sum(1) - (found.score - found.baseline_score)).abs()
    # The error of the sum is no more than the sum of the errors.
    assert (gap <= 5 * found.std_error.sum(1) + 1e-9).all()


def test_tolerance_is_met_row_by_row_or_the_budget_spent() -> None:
    network, data = ZOO["mlp"], _data("mlp", 4)
    model, x = network.make(), network.inputs(6)
    found = ExpectedGradients(samples=600, tol=0.15)(model, x, baseline=data)
    spent = []
    for row in range(6):
        one = ExpectedGradients(samples=600, tol=0.15)(model, x[row : row + 1], baseline=data)
        torch.testing.assert_close(one.values[0], found.values[row])
        error = one.std_error.norm() / one.values.norm()
        spent.append(one.gradients)
        assert error <= 0.15 or one.gradients == 600
    assert sum(spent) == found.gradients
    assert len(set(spent)) > 1


def test_a_constant_score_is_answered_with_zeros() -> None:
    data = _data("mlp", 4)
    found = ExpectedGradients(samples=10)(
        lambda x: (0 * x).sum(1) + 2, _data("mlp", 2), baseline=data
    )
    assert not found.values.any()
    assert found.verdict == "pass"
