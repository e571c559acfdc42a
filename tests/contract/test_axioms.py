"""What each method promises in the catalogue, shown on networks where the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.contract.cases import arguments, assert_same, few, fields, leaves, pairs, small
from tests.zoo.networks import MLP, ZOO, Network
from whyglass import METHODS, Background, Contrast, Method, Several


def promising(axiom: str) -> Any:
    """The methods that promise an axiom."""
    found = [pytest.param(kind, id=name) for name, kind in METHODS.items() if axiom in kind.axioms]
    assert found
    return pytest.mark.parametrize("kind", found)


def fixed(kind: type[Method], **more: Any) -> Method:
    """The method with points that do not depend on the target, so that answers add up exactly."""
    return small(
        kind, **({"rule": "gauss-legendre"} if {"rule", "steps"} <= fields(kind) else {}), **more
    )


def call(method: Method, model: Any, x: Tensor, **more: Any) -> Any:
    if method.baseline_is == "background":
        rows = torch.randn(
            6, *x.shape[1:], generator=torch.Generator().manual_seed(3), dtype=x.dtype
        )
        more["baseline"] = Background(rows)
    return method(model, x, **more)


@pytest.mark.parametrize(
    ("kind", "network"), pairs(lambda kind, _net: "completeness" in kind.axioms)
)
def test_completeness(kind: type[Method], network: Network) -> None:
    """The check that travels along says the same as the sum done here, and it passes."""
    fine: dict[str, Any] = {"steps": 400, "samples": 400, "players": few}
    method = kind(**{name: count for name, count in fine.items() if name in fields(kind)})
    found = method(network.make(), network.inputs(2), **arguments(kind, network))
    total = sum(leaf.flatten(1).sum(1) for leaf in leaves(found.values))
    assert isinstance(total, Tensor)
    assert found.baseline_score is not None
    change = found.score - found.baseline_score
    check = next(check for check in found.checks if check.name == "completeness")
    assert check.verdict == "pass"
    assert len(check.rows) == 2
    assert check.measured == max(check.rows) <= check.tolerance
    gap = (total - change).abs()
    if check.tolerance > 1:
        # In units of the standard error of the sum, which can be no more than that of its terms.
        most = sum(leaf.flatten(1).sum(1) for leaf in leaves(found.std_error))
        assert (gap <= check.tolerance * most).all()
    else:
        size = sum(leaf.abs().flatten(1).sum(1) for leaf in leaves(found.values))
        torch.testing.assert_close(
            gap / torch.maximum(change.abs(), size / 100), torch.tensor(check.rows).double()
        )


@promising("dummy")
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), ignored=st.integers(0, 6))
def test_a_feature_that_the_network_ignores_gets_nothing(
    kind: type[Method], seed: int, ignored: int
) -> None:
    network = ZOO["mlp"].make(seed)
    used = [column for column in range(7) if column not in (ignored, (ignored + 3) % 7)]
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = call(small(kind), lambda given: network(given[:, used]), x)
    nothing = found.values[:, [ignored, (ignored + 3) % 7]]
    if "gradients" in kind.needs:
        assert not nothing.any()
    else:
        # A difference of scores, each rounded in its own batch.
        assert nothing.abs().max() < 1e-12
    assert found.values[:, used].abs().max() > 1e-6


@promising("linearity")
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_contrast_is_the_difference(kind: type[Method], seed: int) -> None:
    network = ZOO["mlp"]
    model, x, method = network.make(seed), network.inputs(2, seed), fixed(kind)
    one, other = (call(method, model, x, target=target).values for target in (1, 3))
    contrast = call(method, model, x, target=Contrast(1, 3)).values
    torch.testing.assert_close(contrast, one - other, rtol=1e-9, atol=1e-12)


@promising("linearity")
def test_a_weighted_sum_of_two_networks_is_the_sum_of_the_answers(kind: type[Method]) -> None:
    network, method = ZOO["mlp"], fixed(kind)
    first, second, x = network.make(1), network.make(2), network.inputs()
    both = call(method, lambda given: 2 * first(given) - 3 * second(given), x, target=0).values
    parts = [call(method, model, x, target=0).values for model in (first, second)]
    torch.testing.assert_close(both, 2 * parts[0] - 3 * parts[1], rtol=1e-9, atol=1e-12)


def _linear_twice(seed: int) -> tuple[nn.Module, nn.Module]:
    """A linear layer, and the same as a product of two."""
    torch_layers = nn.Linear(5, 6).double(), nn.Linear(6, 4).double()
    generator = torch.Generator().manual_seed(seed)
    for layer in torch_layers:
        nn.init.normal_(layer.weight, generator=generator)
        nn.init.normal_(layer.bias, generator=generator)
    merged = nn.Linear(5, 4).double()
    with torch.no_grad():
        merged.weight.copy_(torch_layers[1].weight @ torch_layers[0].weight)
        merged.bias.copy_(torch_layers[1].weight @ torch_layers[0].bias + torch_layers[1].bias)
    return nn.Sequential(*torch_layers), merged


def _doubled(seed: int) -> tuple[nn.Module, nn.Module]:
    """An MLP, and one with every hidden unit twice at half the weight, in another order."""
    plain = ZOO["mlp"].make(seed)
    assert isinstance(plain, MLP)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    wide = nn.Sequential(
        plain.first, nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4)
    ).double()
    with torch.no_grad():
        wide[2].weight.copy_(plain.second.weight.repeat(2, 1)[order])
        wide[2].bias.copy_(plain.second.bias.repeat(2)[order])
        wide[4].weight.copy_((plain.last.weight / 2).repeat(1, 2)[:, order])
        wide[4].bias.copy_(plain.last.bias)
    return plain, wide


def _paper(_seed: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The pair of Sundararajan et al., appendix B, padded to five columns."""

    def one(x: Tensor) -> Tensor:
        z = torch.relu(x[:, :2])
        return torch.relu(z[:, 0] - 1 - z[:, 1])

    def other(x: Tensor) -> Tensor:
        z = torch.relu(x[:, :2])
        return torch.relu(torch.relu(z[:, 0] - 1) - z[:, 1])

    return one, other


@promising("implementation invariance")
@pytest.mark.parametrize("make", [_linear_twice, _doubled, _paper])
def test_two_networks_that_compute_the_same_get_the_same(
    kind: type[Method], make: Callable[[int], Any]
) -> None:
    for seed in range(3):
        one, other = make(seed)
        x = 2 * torch.randn(
            4, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        torch.testing.assert_close(one(x), other(x))
        assert_same(call(fixed(kind), one, x), call(fixed(kind), other, x), 1e-8, 1e-9)


@promising("sensitivity")
def test_the_one_feature_that_changed_the_score_gets_something(kind: type[Method]) -> None:
    """F(x) = 1 - ReLU(1 - x) is flat at 2, where the gradient alone sees nothing."""
    x = torch.tensor([[2.0, 5.0]], dtype=torch.float64)
    settings_ = {"samples": 200} if "samples" in fields(kind) else {}
    reference: Any = torch.tensor([[0.0, 5.0]], dtype=torch.float64)
    baseline = Background(reference) if kind.baseline_is == "background" else reference
    found = kind(**settings_)(lambda given: 1 - torch.relu(1 - given[:, 0]), x, baseline=baseline)
    assert found.values[0, 0] == pytest.approx(1, abs=0.2)
    # A difference of scores, or a regression on them, is rounded.
    assert found.values[0, 1].abs() <= (0 if "gradients" in kind.needs else 1e-12)


@promising("linearity")
def test_several_targets_are_the_answers_one_by_one(kind: type[Method]) -> None:
    network, method = ZOO["mlp"], fixed(kind)
    model, x = network.make(), network.inputs()
    many = call(method, model, x, target=Several(2, Contrast(0, 1)))
    assert many.values.shape == (3, 5, 2)
    assert many.score.shape == (3, 2)
    for k, target in enumerate((2, Contrast(0, 1))):
        one = call(method, model, x, target=target)
        torch.testing.assert_close(many.values[..., k], one.values)
        torch.testing.assert_close(many.score[:, k], one.score)
        for whole, alone in zip(leaves(many.std_error), leaves(one.std_error), strict=True):
            torch.testing.assert_close(whole[..., k], alone)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=name)
        for name, kind in METHODS.items()
        if not {"images", "attention", "layer", "retraining"} & set(kind.needs) and name != "dasp"
    ],
)
def test_an_input_without_a_feature_axis_is_as_a_column(kind: type[Method]) -> None:
    """An age (B,) beside a table, and alone: what the same method says of it as (B, 1)."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(count, 4, generator=generator).double() for count in (3, 6)]

    def score(age: Tensor, row: Tensor) -> Tensor:
        return age.tanh() * row[:, 0] + row[:, 1] * row[:, 2]

    def explain(model: Any, *columns: Callable[[Tensor], Tensor]) -> Any:
        inputs, data = (tuple(column(table) for column in columns) for table in rows)
        given = {"baseline": Background(data)} if kind.baseline_is == "background" else {}
        return small(kind, **{"players": None} if "players" in fields(kind) else {})(
            model, inputs, **given
        )

    flat = explain(score, lambda x: x[:, 0], lambda x: x[:, 1:])
    deep = explain(lambda age, row: score(age[:, 0], row), lambda x: x[:, :1], lambda x: x[:, 1:])
    assert flat.values[0].shape == (3,)
    torch.testing.assert_close(flat.values[0], deep.values[0][:, 0])
    torch.testing.assert_close(flat.values[1], deep.values[1])
    alone = explain(lambda age: age**2, lambda x: x[:, 0]).values[0]
    torch.testing.assert_close(
        alone, explain(lambda a: a[:, 0] ** 2, lambda x: x[:, :1]).values[0][:, 0]
    )


def test_methods_promise_only_axioms_with_a_name() -> None:
    known = {"completeness", "sensitivity", "implementation invariance", "linearity", "dummy"}
    for kind in METHODS.values():
        assert set(kind.axioms) <= known
