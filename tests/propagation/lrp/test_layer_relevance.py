"""Relevance inside the network: the book's matrices, every operation's share, a layer as the score."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.zoo.networks import ZOO
from whyglass import (
    LRP,
    BadInput,
    Epsilon,
    GradientXInput,
    IntegratedGradients,
    Layer,
    Several,
    Zero,
    contributions,
    relevance_by_layer,
)

F64 = torch.float64


def book() -> nn.Sequential:
    """NND2 chapter 9, P9.1."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double().eval()
    numbers = (
        [[1.0, -1], [-1, 1]], [-0.5, -0.5], [[1.0, 1], [-1, -1]], [-1.0, 1],
    )  # fmt: skip
    with torch.no_grad():
        for parameter, given in zip(net.parameters(), numbers, strict=True):
            parameter.copy_(torch.tensor(given))
    return net


def test_matrices_of_the_book() -> None:
    """P9.3: p = (0, 3), class 1; c(a^1) = (0, 1.5), c(p) = (0, 1.5)."""
    found = contributions(book(), torch.tensor([[0.0, 3.0]], dtype=F64), target=0)
    lower, upper = found.matrices
    # Eq. 9.27: the second hidden unit is 3 (p2 alone), the output 2.5 (the second unit alone).
    np.testing.assert_allclose(lower[0], [[0, 0], [1, 1]], atol=1e-12)
    np.testing.assert_allclose(upper[0], [[0, 0], [1, 1]], atol=1e-12)
    for got, expected in zip(found.relevance, ([0, 1.5], [0, 1.5], [1.5, 0]), strict=True):
        np.testing.assert_allclose(got[0], expected, atol=1e-12)
    assert found.layers == ("0", "2")


def test_matrices_are_the_naive_ones_and_pass_contributions_on() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 3))
    net = net.double().eval()
    x = torch.randn(6, 4, dtype=F64)
    found = contributions(net, x, target=2)
    inputs = x.numpy()
    for layer, matrix in zip((0, 2, 4), found.matrices, strict=True):
        linear = net[layer]
        assert isinstance(linear, nn.Linear)
        weight, bias = linear.weight.detach().numpy(), linear.bias.detach().numpy()
        terms = inputs[:, :, None] * weight.T  # Eq. 9.27
        sums = terms.sum(1, keepdims=True)
        np.testing.assert_allclose(matrix, terms / sums, rtol=1e-9)
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-9)  # Eq. 9.22
        after = inputs @ weight.T + bias
        inputs = np.tanh(after)
    with torch.no_grad():
        scores = net(x)[:, 2]
    for relevance in found.relevance:  # Eq. 9.26
        torch.testing.assert_close(relevance.sum(1), scores)
    values = LRP(rule=Zero())(net, x, target=2).values
    torch.testing.assert_close(found.relevance[0], values)


def test_matrices_with_convolution_and_pooling() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(12, 2),
    ).double().eval()  # fmt: skip
    x = torch.randn(2, 1, 6, 6, dtype=F64)
    found = contributions(net, x, target=1, rule="gamma")
    assert [tuple(m.shape) for m in found.matrices] == [(2, 36, 48), (2, 48, 12), (2, 12, 2)]
    assert found.layers == ("0", "avg_pool2d", "5")
    values = LRP(rule="gamma")(net, x, target=1).values
    assert isinstance(values, Tensor)
    torch.testing.assert_close(found.relevance[0], values.flatten(1))


def test_what_is_not_sequential_is_refused() -> None:
    for name in ("residual", "vit", "lstm"):
        with pytest.raises(BadInput, match="sequential"):
            contributions(ZOO[name].make(), ZOO[name].inputs(1), target=0)
    wide = nn.Sequential(nn.Linear(9000, 9000), nn.Linear(9000, 2)).eval()
    with pytest.raises(BadInput, match="fewer rows"):
        contributions(wide, torch.ones(2, 9000), target=0)
    with pytest.raises(BadInput, match="Several"):
        contributions(book(), torch.ones(1, 2, dtype=F64), target=Several(0, 1))


def test_what_epsilon_absorbs_is_told_layer_by_layer() -> None:
    x = torch.tensor([[0.0, 3.0]], dtype=F64)
    found = relevance_by_layer(book(), x, method=LRP(rule=Epsilon(epsilon=0.1)), target=0)
    assert [(part.op, part.layer) for part in found] == [("linear", "2"), ("linear", "0")]
    # 1.5 arrives; 2.5 / 2.6 of it passes the upper layer, 3 / 3.1 of that the lower.
    passed = [1.5, 1.5 * 2.5 / 2.6, 1.5 * 2.5 / 2.6 * 3 / 3.1]
    for part, before, after in zip(found, passed, passed[1:], strict=False):
        assert float(part.output.sum()) == pytest.approx(before)
        assert float(part.operands[0].sum()) == pytest.approx(after)
        assert part.absorbed == pytest.approx((before - after) / 1.5)


def test_relevance_at_every_operation_of_a_residual_network() -> None:
    network = ZOO["residual"]
    model, x = network.make(), network.inputs(2)
    found = relevance_by_layer(model, x, target=1)
    assert [part.layer for part in found if part.layer][-1] == "stem"
    assert {part.op for part in found} == {"linear", "conv2d", "add", "adaptive_avg_pool2d"}
    values = LRP()(model, x, target=1).values
    torch.testing.assert_close(found[-1].operands[0], values)
    assert sum(part.absorbed for part in found) == pytest.approx(0, abs=1e-3)


def test_a_layer_can_be_the_score() -> None:
    """From any layer to any layer."""
    network = ZOO["mlp"]
    model, x = network.make(), network.inputs()
    head = nn.Sequential(model.get_submodule("first"), nn.ReLU(), model.get_submodule("second"))
    for method in (LRP(), GradientXInput(), IntegratedGradients(steps=20, rule="midpoint")):
        found = method(model, x, target=3, output=Layer("second"))
        expected = method(head, x, target=3)
        torch.testing.assert_close(found.values, expected.values)
        torch.testing.assert_close(found.score, expected.score)
    between = LRP()(model, x, target=3, at="first", output=Layer(model.get_submodule("second")))
    assert isinstance(between.values, Tensor)
    assert between.values.shape == (3, 16)
    with pytest.raises(BadInput, match="no layer 'secnd'"):
        LRP()(model, x, output=Layer("secnd"))
    reused = ZOO["mlp-reused"].make()
    with pytest.raises(BadInput, match="runs 2 times"):
        LRP()(reused, x, output=Layer("relu.one"))
