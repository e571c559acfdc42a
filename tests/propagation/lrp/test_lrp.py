"""LRP: the book's figures, where it is not invariant, what is refused, the model left alone."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.propagation.deeplift.test_deeplift import book, exercise
from tests.zoo.networks import ZOO
from whyglass import LRP, BadInput, Epsilon, Gamma, Rule, Several, Unsupported, Zero
from whyglass.propagation.lrp.relevance import Bias

F64 = torch.float64
Network = Callable[[Tensor], Tensor]


def plain(epsilon: float) -> Epsilon:
    """As the book prints it: epsilon is added without a sign."""
    return Epsilon(epsilon=epsilon, plain=True)


def first_row(network: Network, point: tuple[float, float], target: int, rule: Rule | str,
              bias: Bias = "ignore") -> list[float]:  # fmt: skip
    x = torch.tensor([point], dtype=F64)
    found = LRP(rule=rule, bias=bias)(network, x, target=target).values
    assert isinstance(found, Tensor)
    return found[0].tolist()


@pytest.mark.parametrize(
    ("network", "point", "target", "rule", "expected"),
    [
        (book, (0, 3), 0, Zero(), (0, 1.5)),
        (book, (0, 3), 0, Gamma(gamma=0.1), (0, 1.5)),
        (book, (0, 3), 0, Gamma(gamma=100.0), (0, 1.5)),
        (book, (0, 3), 0, Gamma(gamma=1.0, signed=False), (0, 1.5)),
        (book, (3, 3), 1, plain(0.01), (0, 0)),
        (book, (3, 3), 1, Epsilon(epsilon=0.01), (0, 0)),
        (book, (3, 3), 1, Gamma(epsilon=0.01), (0, 0)),
        (exercise, (0, -5), 0, Zero(), (0, 1)),
        (exercise, (0, -5), 0, Gamma(), (0, 1)),
        (exercise, (0, -5), 0, Gamma(signed=False), (0, 1)),
        (exercise, (3, 0), 1, Epsilon(epsilon=0.01), (0, 0)),
        (exercise, (3, 0), 1, plain(0.01), (0, 0)),
    ],
)
def test_figures_of_the_book(
    network: Network, point: tuple[float, float], target: int, rule: Rule,
    expected: tuple[float, float],
) -> None:  # fmt: skip
    """NND2 chapter 9, P9.3 and E9.4."""
    np.testing.assert_allclose(first_row(network, point, target, rule), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "point", "epsilon", "printed"),
    [
        (book, (0, 3), 0.01, 1.48906),
        (book, (0, 3), 0.1, 1.39578),
        (book, (0, 3), 1.0, 0.80357),
        (exercise, (0, -5), 0.01, 0.99304),
        (exercise, (0, -5), 0.25, 0.84656),
        (exercise, (0, -5), 1.0, 0.55556),
    ],
)
def test_figures_of_the_book_with_epsilon(
    network: Network, point: tuple[float, float], epsilon: float, printed: float
) -> None:
    """One hidden unit acts: in P9.3 it is 2.5 of terms 3, the score 1.5; in E9.4 2, 5 and 1."""
    score, unit, terms = (1.5, 2.5, 3) if network is book else (1, 2, 5)
    expected = score * unit / (unit + epsilon) * terms / (terms + epsilon)
    assert round(expected, 5) == printed
    found = first_row(network, point, 0, plain(epsilon))
    np.testing.assert_allclose(found, (0, expected), rtol=0, atol=1e-12)


def test_figure_with_the_bias_sharing() -> None:
    np.testing.assert_allclose(first_row(book, (0, 3), 0, "zero", "share"), (0, 3), atol=1e-12)


@pytest.mark.parametrize(
    ("network", "point"), [(book, (3.0, 3.0)), (exercise, (3.0, 0.0))], ids=["P9.3", "E9.4"]
)
@pytest.mark.parametrize("rule", [Zero(), Gamma(), Gamma(signed=False)], ids=repr)
def test_zero_divided_by_zero_is_an_error(
    network: Network, point: tuple[float, float], rule: Rule
) -> None:
    with pytest.raises(BadInput, match=r"relevance by zero in matmul: .*bias=.share"):
        first_row(network, point, 1, rule)


def test_the_error_names_the_layer_and_leaves_the_model_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).double().eval()
    with torch.no_grad():
        model[0].bias.fill_(-50.0)
    before = copy.deepcopy(model.state_dict())
    x = torch.ones(1, 2, dtype=F64)
    with pytest.raises(BadInput, match="in linear of layer '2'"):
        LRP(rule="zero")(model, x, target=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(
        parameter.grad is None and parameter.requires_grad for parameter in model.parameters()
    )
    # And the next call works, by either way out that the error names.
    for way_out in (LRP(rule="zero", bias="share"), LRP(rule="gamma")):
        found = way_out(model, x, target=0).values
        np.testing.assert_allclose(found.numpy(), 0)  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", ["zero", "epsilon"])
def test_two_networks_of_one_function_differ_as_published(rule: Rule | str) -> None:
    """Sundararajan et al. (2017), figure 7: LRP is not implementation invariant."""

    def one(x: Tensor) -> Tensor:
        z = torch.relu(x)
        return torch.relu(z[:, 0] - z[:, 1] - 1)

    def other(x: Tensor) -> Tensor:
        z = torch.relu(x)
        return torch.relu(torch.relu(z[:, 0] - 1) - z[:, 1])

    x = torch.tensor([[3.0, 1.0]], dtype=F64)
    nets = (one, other)
    found = [LRP(rule=rule, bias="ignore")(net, x).values[0].tolist() for net in nets]  # type: ignore[index]
    np.testing.assert_allclose(found, [[1.5, -0.5], [2.0, -1.0]], atol=1e-5)


def test_every_target_at_once() -> None:
    net = ZOO["vgg"]
    model, x = net.make(), net.inputs()
    together = LRP()(model, x, target=Several(0, 2)).values
    assert isinstance(together, Tensor)
    for place, target in enumerate((0, 2)):
        alone = LRP()(model, x, target=target).values
        torch.testing.assert_close(together[..., place], alone)


@pytest.mark.parametrize("rule", ["zero", "epsilon", "gamma", "z-plus", "alpha2-beta1", "w-square"])
def test_in_single_precision(rule: str) -> None:
    net = ZOO["residual"]
    found, expected = (
        LRP(rule=rule, bias="share")(
            net.make(dtype=dtype), net.inputs(dtype=dtype), target=1
        ).values
        for dtype in (torch.float32, F64)
    )
    assert isinstance(found, Tensor)
    assert isinstance(expected, Tensor)
    assert found.dtype == torch.float32
    # Sums near zero cost LRP-0 and LRP-epsilon digits.
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_from_a_layer_and_from_several_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
    x = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = LRP(rule="zero")(model, x, target=1, at="1").values
    with torch.no_grad():
        hidden = model[:2](x)
        terms = hidden * model[2].weight[1]
        expected = terms / terms.sum(1, keepdim=True) * model(x)[:, 1:]
    torch.testing.assert_close(found, expected)

    def both(a: Tensor, b: Tensor) -> Tensor:
        return model(torch.cat([a, b], 1))

    whole = LRP()(model, x, target=1).values
    parts = LRP()(both, (x[:, :1], x[:, 1:]), target=1).values
    torch.testing.assert_close(torch.cat(list(parts), 1), whole)

    class Named(nn.Module):
        def forward(self, *, a: Tensor, b: Tensor) -> Tensor:
            return both(a, b)

    named = LRP()(Named(), {"b": x[:, 1:], "a": x[:, :1]}, target=1).values
    assert isinstance(named, dict)
    torch.testing.assert_close(torch.cat([named["a"], named["b"]], 1), whole)


def test_an_operation_without_a_rule() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.linalg.det(torch.diag_embed(x))

    x = torch.tensor([[2.0, 3.0, -1.0]], dtype=F64)
    with pytest.raises(Unsupported, match="operation 'linalg_det' has no rule"):
        LRP()(model, x)
    found = LRP(rule="zero", unsupported="gradient")(model, x)
    # The product is linear in each factor, so its first order counts once for each.
    np.testing.assert_allclose(found.values.numpy(), [[-6.0, -6.0, -6.0]])  # type: ignore[union-attr]
    assert found.notes[-1] == "passed by their first order: linalg_det"
