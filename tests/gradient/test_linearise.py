"""The first-order model: the book's figures, a naive version, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import whyglass
from tests.gradient.book import radial, rows
from whyglass import BadInput, GradientXInput, LogOdds, Probability, Several, linearise


def naive(p: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Value, gradient and constant of the radial network, by the chain rule on its printed weights."""
    w1 = np.array([[-0.2, 0], [-0.2, 0], [0, -0.2], [0, -0.2]])
    w2 = np.outer([79.648, 113.312], [1.0, -1.0, 1.0, -1.0])
    w3 = np.array([-6.6898, 69.3431])
    one = 1 / (1 + np.exp(-(w1 @ p + [2, -2, 2, -2])))
    two = 1 / (1 + np.exp(-(w2 @ one + [-120.0208, -175.2374])))
    a = 1 / (1 + np.exp(-(w3 @ two + 1.6693)))
    slope = a * (1 - a) * ((w3 * two * (1 - two)) @ w2 * one * (1 - one)) @ w1
    return float(a), slope, float(a - slope @ p)


def test_figures_of_the_book() -> None:
    """Equation 9.10 prints .5, (0, .4) and .9."""
    found = linearise(radial(), rows((0, -1), (0, 0)))
    assert found.value.tolist() == pytest.approx([0.499523, 0.735954], abs=1e-6)
    torch.testing.assert_close(found.gradient, rows((0, 0.400796), (0, 0)), rtol=0, atol=1e-6)
    assert found.constant.tolist() == pytest.approx([0.9003, 0.735954], abs=5e-5)
    torch.testing.assert_close(found.contributions, rows((0, -0.400796), (0, 0)), rtol=0, atol=1e-6)


def test_equals_the_naive_version() -> None:
    points = np.random.default_rng(0).uniform(-2, 2, (20, 2))
    found = linearise(radial(), torch.from_numpy(points))
    for row, p in enumerate(points):
        value, slope, constant = naive(p)
        assert found.value[row].item() == pytest.approx(value, abs=1e-9)
        np.testing.assert_allclose(found.gradient[row].numpy(), slope, atol=1e-9)
        assert found.constant[row].item() == pytest.approx(constant, abs=1e-9)


def test_it_is_the_tangent() -> None:
    """The error of first order falls with the square of the distance; far off it is large."""
    flat = linearise(radial(), rows((0.3, -0.8)))
    way = torch.tensor([0.6, 0.8]).double()
    sizes = torch.tensor([1e-2, 1e-3]).double()
    near = flat.point + sizes[:, None] * way
    gaps = (flat(near) - radial()(near)[:, 0]).detach().abs()
    assert (gaps[0] / gaps[1]).item() == pytest.approx(100, rel=0.1)
    assert (flat(rows((0, 2))) - radial()(rows((0, 2)))[:, 0]).abs() > 0.5


def test_a_linear_model_is_itself_everywhere() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 3)).double()
    x, other = torch.randn(2, 2, 3, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    found = linearise(net, x, target=2)
    assert len(found) == 2
    torch.testing.assert_close(found.row(1)(other), net(other)[:, 2].detach())
    torch.testing.assert_close(found.constant, net[1].bias[2].detach().expand(2))
    torch.testing.assert_close(found.contributions, GradientXInput()(net, x, target=2).values)
    total = found.constant + found.contributions.flatten(1).sum(1)
    torch.testing.assert_close(total, found.value)


def test_targets_and_outputs() -> None:
    net = nn.Linear(2, 3).double()
    x = rows((1, 2))
    named = lambda given: {"logits": net(given)}  # noqa: E731  one line says it
    for target in (None, Probability(1), LogOdds(0)):
        found = linearise(named, x, target=target, output="logits")
        same = GradientXInput()(net, x, target=target)
        torch.testing.assert_close(found.contributions, same.values)
        torch.testing.assert_close(found.value, same.score)


@pytest.mark.parametrize("inputs", [(rows((0, 1)),), {"x": rows((0, 1))}, [[0.0, 1.0]]])
def test_other_inputs_than_a_tensor_are_refused(inputs: object) -> None:
    with pytest.raises(BadInput, match="one tensor"):
        linearise(radial(), inputs)  # type: ignore[arg-type]


def test_bad_calls_are_refused() -> None:
    two = linearise(radial(), rows((0, -1), (0, 0)))
    with pytest.raises(BadInput, match=r"\.row\(i\)"):
        two(rows((0, 0)))
    with pytest.raises(BadInput, match="row 2 is out of range"):
        two.row(2)
    with pytest.raises(BadInput, match="no rows like"):
        two.row(0)(torch.zeros(1, 3).double())
    with pytest.raises(BadInput, match="Several"):
        linearise(radial(), rows((0, 0)), target=Several(0))
    with pytest.raises(BadInput, match="has no gradient"):
        linearise(lambda x: x.sum(1), torch.ones(1, 2, dtype=torch.long))


def test_half_precision_and_graphs_outside() -> None:
    x = torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True)
    found = linearise(lambda p: (p * p).sum(1), x)
    assert isinstance(found.value, Tensor)
    assert found.value.dtype == found.gradient.dtype == found.constant.dtype == torch.float32
    assert not found.point.requires_grad
    assert found(x.detach()).tolist() == [2]
    assert {"linearise", "Linearised"} <= set(whyglass.__all__)
