"""Saliency and gradient x input: the book's figures, and differences of scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contract.cases import leaves
from tests.gradient.book import exercise, problem, radial, rows
from tests.zoo.networks import ZOO
from whyglass import Contrast, GradientXInput, LogOdds, Probability, Saliency, Several


def test_solved_problem_1() -> None:
    """The chapter calls gradient x input "saliency"."""
    at = rows((0, 3), (3, 3))
    target = [0, 1]
    found = GradientXInput()(problem(), at, target=target)
    torch.testing.assert_close(found.score, torch.tensor([1.5, 1.0]).double())
    torch.testing.assert_close(found.values, rows((0, 3), (0, 0)))
    assert found.checks[0].verdict == "warn"
    sensitivity = Saliency()(problem(), at, target=target)
    torch.testing.assert_close(sensitivity.values, rows((1, 1), (0, 0)))
    chosen = Saliency()(problem(), at, target=Probability())
    assert chosen.score.tolist() == pytest.approx([0.9526, 0.8808], abs=5e-5)
    assert chosen.classes.tolist() == target


def test_exercise_2() -> None:
    """At (0, -5) the first hidden unit is exactly on its kink, where ReLU'(0) = 0."""
    at = rows((0, -5), (3, 0))
    found = GradientXInput()(exercise(), at, target=[0, 1])
    torch.testing.assert_close(found.values, rows((0, 5), (0, 0)))
    torch.testing.assert_close(
        Saliency()(exercise(), at, target=[0, 1]).values, rows((0, 1), (0, 0))
    )
    probability = Saliency()(exercise(), at, target=Probability())
    assert probability.classes.tolist() == [0, 1]
    assert probability.score.tolist() == pytest.approx([0.8808, 0.8808], abs=5e-5)


def test_radial_network() -> None:
    at = rows((0, -1), (0, 0))
    net, probability = Saliency()(radial(last=False), at), Saliency()(radial(), at)
    assert net.score.tolist() == pytest.approx([-0.00191, 1.025042], abs=5e-6)
    assert probability.score.tolist() == pytest.approx([0.499523, 0.735954], abs=5e-7)
    torch.testing.assert_close(probability.values, rows((0, 0.400796), (0, 0)), rtol=0, atol=5e-7)
    # The linearisation a(p) ~ constant + gradient p.
    product = GradientXInput()(radial(), at[:1])
    assert (product.score - product.values.sum()).item() == pytest.approx(0.9003, abs=5e-5)


SMOOTH = ["silu", "transformer", "lstm", "vit", "two-inputs", "dict-input"]


def _nudged(inputs: object, which: int, step: Tensor) -> object:
    if isinstance(inputs, Tensor):
        return inputs + step
    if isinstance(inputs, dict):
        return {
            name: leaf + step if i == which else leaf
            for i, (name, leaf) in enumerate(inputs.items())
        }
    assert isinstance(inputs, tuple)
    return tuple(leaf + step if i == which else leaf for i, leaf in enumerate(inputs))


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("target", [1, Probability(0), LogOdds(0), Contrast(0, 2)], ids=repr)
def test_finite_differences(name: str, target: object) -> None:
    """Central differences along random directions: error of the order of the step squared."""
    network = ZOO[name]
    model, inputs = network.make(), network.inputs(2)
    found = GradientXInput()(model, inputs, target=target)
    slopes = [v / leaf for v, leaf in zip(leaves(found.values), leaves(inputs), strict=True)]
    generator = torch.Generator().manual_seed(0)
    for which, (slope, leaf) in enumerate(zip(slopes, leaves(inputs), strict=True)):
        for _ in range(3):
            way = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
            ends = [
                Saliency()(model, _nudged(inputs, which, sign * 1e-5 * way), target=target).score
                for sign in (1, -1)
            ]
            expected = (ends[0] - ends[1]) / 2e-5
            torch.testing.assert_close(
                (slope * way).flatten(1).sum(1), expected, rtol=1e-6, atol=1e-7
            )


def test_finite_differences_at_a_layer() -> None:
    """The embedding of one token moved by a little."""
    network = ZOO["tokens"]
    model, ids = network.make(), network.inputs(2)
    assert isinstance(ids, Tensor)
    found = GradientXInput()(model, ids, at="embedding", target=2)
    embedded = model.get_submodule("embedding")(ids).detach()
    slope = found.values / embedded
    way = torch.randn(embedded.shape, generator=torch.Generator().manual_seed(0)).double()
    body = model.get_submodule("body")
    ends = [body(embedded + sign * 1e-5 * way)[:, 2].detach() for sign in (1, -1)]
    torch.testing.assert_close(
        (slope * way).flatten(1).sum(1), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("name", ["mlp", "gap-cnn", "vgg", "relu6", "lstm", "transformer"])
def test_naive(name: str) -> None:
    """One row and one class at a time, by autograd alone."""
    network = ZOO[name]
    model, inputs = network.make(), network.inputs()
    assert isinstance(inputs, Tensor)
    targets = Several(0, 2)
    saliency, product = (m(model, inputs, target=targets) for m in (Saliency(), GradientXInput()))
    for row in range(3):
        for k, c in enumerate((0, 2)):
            x = inputs[row : row + 1].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(model(x)[0, c], x)
            torch.testing.assert_close(saliency.values[row, ..., k], gradient[0].abs())
            torch.testing.assert_close(product.values[row, ..., k], (gradient * x)[0].detach())


def test_gradient_x_input_of_a_linear_score_without_bias_is_complete() -> None:
    weight = torch.randn(5, generator=torch.Generator().manual_seed(0)).double()
    inputs = ZOO["mlp"].inputs()
    found = GradientXInput()(lambda x: x @ weight, inputs)
    torch.testing.assert_close(found.values, inputs * weight)
    torch.testing.assert_close(found.values.sum(1), found.score)
