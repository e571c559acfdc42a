"""Gradients along any path: straight, bent, and none at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.gradient.book import rows
from tests.zoo.networks import ZOO
from whyglass import BadInput, IntegratedGradients, PathGradients, Several

Curve = Callable[[Tensor, Tensor, Tensor], Tensor]
RULES = ["adaptive", "endpoints", "left", "right", "midpoint", "trapezoid", "gauss-legendre"]


def line(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    return start + alpha * (end - start)


def bow(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """Off the line in the middle, each feature another way."""
    way = torch.linspace(-2, 2, start[0].numel(), dtype=start.dtype).reshape(start.shape[1:])
    return line(start, end, alpha) + 4 * alpha * (1 - alpha) * way


def one_by_one(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """Feature after feature: corners, and no two features move at once."""
    count = start.shape[1]
    order = torch.arange(count, dtype=start.dtype)
    return start + (end - start) * (alpha * count - order).clamp(0, 1)


def _naive(
    model: Any, curve: Curve, x: Tensor, start: Tensor, target: int, rule: str, count: int
) -> Tensor:
    """The sum of gradient times piece of the path, point by point."""
    points = {
        "left": [k / count for k in range(count)],
        "right": [(k + 1) / count for k in range(count)],
        "midpoint": [(k + 0.5) / count for k in range(count)],
    }[rule]
    total = torch.zeros_like(x)
    for row in range(len(x)):
        a, b = start[row : row + 1], x[row : row + 1]

        def at(alpha: float, a: Tensor = a, b: Tensor = b) -> Tensor:
            return curve(a, b, torch.full((1, *[1] * (x.dim() - 1)), alpha, dtype=x.dtype))

        for k in range(count):
            here = at(points[k]).requires_grad_()
            (gradient,) = torch.autograd.grad(model(here)[0, target], here)
            total[row] += (gradient * (at((k + 1) / count) - at(k / count)))[0]
    return total


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["mlp", "gap-cnn", "transformer"])
def test_a_straight_path_is_integrated_gradients(rule: Any, name: str) -> None:
    network = ZOO[name]
    model, x = network.make(), network.inputs()
    expected = IntegratedGradients(steps=20, rule=rule)(model, x)
    for method in (
        PathGradients(steps=20, rule=rule),
        PathGradients(path=line, steps=20, rule=rule),
    ):
        found = method(model, x)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(found.baseline_score, expected.baseline_score)
        assert found.evaluations == expected.evaluations


@pytest.mark.parametrize("rule", ["left", "right", "midpoint"])
@pytest.mark.parametrize("curve", [line, bow, one_by_one])
def test_naive_sum(rule: Any, curve: Curve) -> None:
    network = ZOO["mlp"]
    model, x, start = network.make(), network.inputs(2), network.inputs(2, 7)
    found = PathGradients(path=curve, steps=15, rule=rule)(model, x, target=1, baseline=start)
    expected = _naive(model, curve, x, start, 1, rule, 15)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("curve", [bow, one_by_one])
def test_adaptive_is_the_fine_sum(curve: Curve) -> None:
    network = ZOO["mlp"]
    model, x, start = network.make(), network.inputs(1), network.inputs(1, 7)
    exact = _naive(model, curve, x, start, 1, "midpoint", 4000)
    found = PathGradients(path=curve, steps=600, tol=1e-5)(model, x, target=1, baseline=start)
    torch.testing.assert_close(found.values, exact, rtol=1e-2, atol=3e-3)
    straight = IntegratedGradients(steps=600, tol=1e-5)(model, x, target=1, baseline=start)
    assert (found.values - straight.values).abs().max() > 0.05


def test_known_integrals() -> None:
    """x1 x2 from (0, 0) to (2, 3): along the axes one feature gets all of it, on the line half."""

    def product(x: Tensor) -> Tensor:
        return x[:, 0] * x[:, 1]

    def quadratic(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
        return start + (end - start) * alpha ** torch.tensor([1.0, 2.0], dtype=start.dtype)

    at = rows((2, 3))
    for curve, expected in ((line, (3, 3)), (one_by_one, (0, 6)), (quadratic, (2, 4))):
        found = PathGradients(path=curve, steps=400, tol=1e-6)(product, at)
        torch.testing.assert_close(found.values, rows(expected), rtol=0, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    height=st.floats(-3, 3),
    power=st.integers(1, 3),
    several=st.booleans(),
)
def test_complete_on_any_path(seed: int, height: float, power: int, several: bool) -> None:
    def curve(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
        way = torch.randn(start.shape[1:], generator=torch.Generator().manual_seed(seed)).to(start)
        return start + (end - start) * alpha**power + height * torch.sin(3 * torch.pi * alpha) * way

    network = ZOO["mlp"]
    target = Several(0, 3) if several else 3
    found = PathGradients(path=curve, steps=200)(
        network.make(seed), network.inputs(2, seed), target=target
    )
    change = found.score - found.baseline_score
    gap = (found.values.sum(1) - change).abs()
    size = torch.maximum(change.abs(), found.values.abs().sum(1) / 100)
    assert (gap / size).max() < 0.01
    assert found.checks[0].verdict == "pass"
    assert found.checks[0].measured == pytest.approx((gap / size).max().item(), abs=1e-6)


def test_every_input_follows_the_path() -> None:
    pair = ZOO["two-inputs"]
    model, inputs = pair.make(), pair.inputs()
    found = PathGradients(path=bow, steps=300)(model, inputs, target=1)
    total = sum(leaf.flatten(1).sum(1) for leaf in found.values)
    torch.testing.assert_close(total, found.score - found.baseline_score, rtol=0.01, atol=1e-3)
    straight = IntegratedGradients(steps=300)(model, inputs, target=1)
    assert (found.values[0] - straight.values[0]).abs().max() > 0.01


def test_at_a_layer() -> None:
    network = ZOO["tokens"]
    found = PathGradients(path=bow, steps=200)(network.make(), network.inputs(), at="embedding")
    torch.testing.assert_close(
        found.values.flatten(1).sum(1), found.score - found.baseline_score, rtol=0.01, atol=1e-3
    )


@pytest.mark.parametrize(
    ("curve", "words"),
    [
        (lambda start, end, alpha: start + (end - start) * alpha / 2, ["alpha=1", "input"]),
        (lambda start, end, alpha: end + 0 * alpha, ["alpha=0", "baseline"]),
        (lambda start, end, alpha: line(end, start, alpha), ["alpha=0", "baseline"]),
        (lambda start, end, alpha: line(start, end, alpha)[:, :2], ["alpha=0"]),
        (lambda start, end, alpha: line(start, end, alpha) * float("nan"), ["alpha=0"]),
    ],
    ids=["too short", "at the end", "backwards", "other shape", "nan"],
)
@pytest.mark.parametrize("rule", ["adaptive", "midpoint"])
def test_a_path_that_does_not_join_the_two(curve: Curve, words: list[str], rule: Any) -> None:
    network = ZOO["mlp"]
    with pytest.raises(BadInput, match="path") as refusal:
        PathGradients(path=curve, steps=4, rule=rule)(
            network.make(), network.inputs(), baseline=1.0
        )
    for word in words:
        assert word in str(refusal.value)


def test_settings_name_the_path() -> None:
    network = ZOO["mlp"]
    found = PathGradients(path=bow, steps=4)(network.make(), network.inputs())
    assert found.settings["path"] == "bow"
