"""SmoothGrad, its square and VarGrad, against brute force and against integrals known exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.zoo.networks import ZOO
from whyglass import SmoothGrad, SmoothGradSquared, VarGrad

Arrays = tuple[np.ndarray, np.ndarray]


def _samples(model: Any, x: Tensor, target: int, count: int, noise: float, seed: int) -> np.ndarray:
    """(count, B, ...) gradients, one noisy row at a time; a sample's noise is shared by the rows."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        drawn = torch.randn((1, *x.shape[1:]), generator=generator).to(x.dtype)
        gradients = []
        for row in x:
            sigma = noise * (row.max() - row.min())
            # One rounding, which matters in half precision.
            noisy = torch.addcmul(row[None], sigma, drawn).requires_grad_()
            gradients.append(torch.autograd.grad(model(noisy)[0, target], noisy)[0][0])
        found.append(torch.stack(gradients))
    return torch.stack(found).double().numpy()


def _mean(samples: np.ndarray) -> Arrays:
    n = len(samples)
    return samples.mean(0), samples.std(0, ddof=1) / math.sqrt(n)


def _square(samples: np.ndarray) -> Arrays:
    return _mean(samples**2)


def _variance(samples: np.ndarray) -> Arrays:
    """With the jackknife's standard error: every variance without one of the samples."""
    n = len(samples)
    without = np.stack([np.delete(samples, i, 0).var(0, ddof=1) for i in range(n)])
    return samples.var(0, ddof=1), np.sqrt((n - 1) * without.var(0))


KINDS = [(SmoothGrad, _mean), (SmoothGradSquared, _square), (VarGrad, _variance)]


@pytest.mark.parametrize(("kind", "naive"), KINDS)
@pytest.mark.parametrize("name", ["mlp", "gap-cnn", "vgg", "transformer"])
def test_brute_force(kind: Any, naive: Any, name: str) -> None:
    network = ZOO[name]
    model, x = network.make(), network.inputs()
    found = kind(samples=9, noise=0.3, seed=4)(model, x, target=1)
    values, errors = naive(_samples(model, x, 1, 9, 0.3, 4))
    np.testing.assert_allclose(found.values.numpy(), values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std_error.numpy(), errors, rtol=1e-6, atol=1e-9)
    assert found.settings == {"samples": 9, "noise": 0.3, "seed": 4, "tol": None}


@pytest.mark.parametrize(("kind", "naive"), KINDS)
def test_half_precision_is_accumulated_in_full(kind: Any, naive: Any) -> None:
    """Gradients of half precision, moments of float64, answers of float32."""
    network = ZOO["mlp"]
    model, x = network.make(dtype=torch.bfloat16), network.inputs(dtype=torch.bfloat16)
    found = kind(samples=40, noise=0.3)(model, x, target=1, batch_size=1)
    values, errors = naive(_samples(lambda given: model(given).float(), x, 1, 40, 0.3, 0))
    assert found.values.dtype == found.std_error.dtype == torch.float32
    np.testing.assert_allclose(found.values.numpy(), values, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.std_error.numpy(), errors, rtol=1e-4, atol=1e-7)


def test_each_input_has_noise_of_its_own_range() -> None:
    a = torch.tensor([[0.0, 10.0]], dtype=torch.float64)
    b = torch.tensor([[0.0, 0.1, 0.0]], dtype=torch.float64)
    found = VarGrad(samples=4000, noise=0.2)(lambda a, b: (a**2).sum(1) + (b**2).sum(1), (a, b))
    # The gradient 2 (x + sigma eps) has variance 4 sigma^2.
    assert found.values[0].flatten().tolist() == pytest.approx([4 * 2.0**2] * 2, rel=0.1)
    assert found.values[1].flatten().tolist() == pytest.approx([4 * 0.02**2] * 3, rel=0.1)


def test_noise_at_a_layer_has_the_range_of_the_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Identity()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[10.0, 0.0], [0.0, 30.0]]))
    x = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    found = VarGrad(samples=4000, noise=0.1)(model, x, at="0", target=lambda y: (y**2).sum(1))
    sigma = 0.1 * (30 - 10)
    assert found.values.flatten().tolist() == pytest.approx([4 * sigma**2] * 2, rel=0.1)


SINE = torch.tensor([[0.3, 1.0, 2.2]], dtype=torch.float64)
SIGMA = 0.4 * 1.9


def _exact(power: int) -> Tensor:
    """E[cos(x + sigma eps)^power] for power 1 and 2."""
    if power == 1:
        return SINE.cos() * math.exp(-(SIGMA**2) / 2)
    return (1 + (2 * SINE).cos() * math.exp(-2 * SIGMA**2)) / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "exact", "samples", "lowest"),
    [
        (SmoothGrad, _exact(1), 64, 0.93),
        (SmoothGradSquared, _exact(2), 128, 0.92),
        # The standard error of a variance is itself noisy: its intervals are a little short.
        (VarGrad, _exact(2) - _exact(1) ** 2, 256, 0.92),
    ],
)
def test_intervals_cover(kind: Any, exact: Tensor, samples: int, lowest: float) -> None:
    """95% intervals of 400 seeds hold the exact value about 95% of the time."""
    hits = torch.zeros(3)
    errors, reported = [], []
    for seed in range(400):
        found = kind(samples=samples, noise=0.4, seed=seed)(lambda x: x.sin().sum(1), SINE)
        error = found.values - exact
        hits += (error.abs() <= 1.96 * found.std_error)[0]
        errors.append(error)
        reported.append(found.std_error)
    rate = hits / 400
    assert (rate >= lowest).all(), rate
    assert (rate <= 0.98).all(), rate
    # Unbiased, and as far off as reported.
    spread = torch.cat(errors).std(0)
    assert (torch.cat(errors).mean(0).abs() < 4 * spread / 20).all()
    torch.testing.assert_close(torch.cat(reported).mean(0), spread, rtol=0.15, atol=0)


@pytest.mark.parametrize(("kind", "naive"), KINDS)
@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_a_small_spread_on_a_large_gradient(kind: Any, naive: Any, offset: float) -> None:
    """Moments about zero would cancel: the fourth one loses every digit at 1e4."""
    x = torch.tensor([[0.0, 1.0]], dtype=torch.float64)

    def model(given: Tensor) -> Tensor:
        return (offset * given + given**2 / 2).sum(1, keepdim=True)

    found = kind(samples=50, noise=1.0)(model, x)
    values, errors = naive(_samples(model, x, 0, 50, 1.0, 0))
    np.testing.assert_allclose(found.values.numpy(), values, rtol=1e-6)
    np.testing.assert_allclose(found.std_error.numpy(), errors, rtol=1e-3)


@pytest.mark.parametrize("kind", [SmoothGrad, SmoothGradSquared, VarGrad])
def test_tolerance_is_met_row_by_row_or_the_budget_spent(kind: Any) -> None:
    network = ZOO["mlp"]
    model, x = network.make(), network.inputs(6)
    found = kind(samples=400, tol=0.2)(model, x)
    single = [kind(samples=400, tol=0.2)(model, x[i : i + 1]) for i in range(6)]
    spent = [explanation.gradients for explanation in single]
    assert sum(spent) == found.gradients
    assert len(set(spent)) > 1
    for row, explanation in enumerate(single):
        torch.testing.assert_close(found.values[row], explanation.values[0])
        error = found.std_error[row].norm() / found.values[row].norm()
        assert error <= 0.2 or spent[row] == 400
        check = next(c for c in found.checks if c.name == "sampling error")
        assert check.rows[row] == pytest.approx(error.item())


def test_a_linear_score_needs_two_samples_and_has_no_error() -> None:
    found = SmoothGrad(samples=100, tol=0.01)(lambda x: 3 * x[:, 0] - x[:, 1], torch.eye(2))
    assert torch.equal(found.values, torch.tensor([[3.0, -1.0]]).expand(2, -1))
    assert not found.std_error.any()
    assert found.gradients <= 2 * 8
    assert not VarGrad()(lambda x: 3 * x[:, 0] - x[:, 1], torch.eye(2)).values.any()
