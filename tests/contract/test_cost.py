"""Evaluations are counted, every one of them, and never exceed the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.contract.cases import (
    METHOD_CASES,
    NETWORK_CASES,
    arguments,
    fields,
    home,
    leaves,
    pairs,
    plain,
    small,
)
from tests.zoo.networks import ZOO, Network
from whyglass import DASP, Explanation, Method, Several


class Counted(nn.Module):
    """Counts the rows that go through a network, forwards and backwards."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.forwards = self.backwards = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        rows = len(args[0] if args else next(iter(kwargs.values())))
        self.forwards += rows
        result = self.inner(*args, **kwargs)
        output = next(
            leaf
            for leaf in (
                vars(result) if hasattr(result, "logits") else dict(_items(result))
            ).values()
            if isinstance(leaf, torch.Tensor)
        )
        if output.requires_grad:
            output.register_hook(lambda _gradient: self._back(rows))
        return result

    def _back(self, rows: int) -> None:
        self.backwards += rows


def _items(result: Any) -> Any:
    if isinstance(result, dict):
        return result.items()
    return enumerate(result if isinstance(result, tuple) else (result,))


def _inside(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"at": f"inner.{given['at']}"} if given["at"] else given


@pytest.mark.parametrize(("kind", "network"), pairs())
@pytest.mark.parametrize("batch_size", ["auto", 2])
def test_every_evaluation_is_counted(
    kind: type[Method], network: Network, batch_size: int | str
) -> None:
    model, inputs = Counted(network.make()), network.inputs(3)
    if kind is DASP and batch_size == 2:
        batch_size = 62  # two at a time, the thousands of passes over pixels take half a minute
    given = _inside(arguments(kind, network, batch_size=batch_size))
    found = small(kind)(model, inputs, **given)
    assert found.evaluations == model.forwards + _beside(kind, found, 1)
    assert found.gradients == model.backwards
    _within_budget(small(kind), found, 3, 1)


@pytest.mark.parametrize("kind", NETWORK_CASES)
def test_several_targets_share_the_forward_passes(kind: type[Method]) -> None:
    network = home(kind)
    model, inputs = Counted(network.make()), network.inputs(2)
    found = small(kind)(model, inputs, **arguments(kind, network, target=Several(0, 1, 2)))
    assert found.evaluations == model.forwards + _beside(kind, found, 3)
    assert found.gradients == model.backwards
    _within_budget(small(kind), found, 2, 3)


def _beside(kind: type[Method], found: Explanation, targets: int) -> int:
    """Rows that propagation computes at the baseline beside the model's own calls."""
    doubled = kind.family == "propagation" and kind.baseline_is != "unused"
    return found.gradients // targets if doubled else 0


def _stops(kind: type[Method]) -> bool:
    """Whether a tolerance decides when the method stops, not only when it warns."""
    return "tol" in fields(kind) and not {"steps", "samples", "budget"}.isdisjoint(fields(kind))


@pytest.mark.parametrize("kind", [c for c in METHOD_CASES if _stops(c.values[0])])
def test_only_the_rows_that_need_more_get_more(kind: type[Method]) -> None:
    """With a tolerance that one row meets at once, the batch costs less than the whole budget."""
    name = next(name for name in ("steps", "samples", "budget") if name in fields(kind))
    budget: dict[str, Any] = {name: 256}
    model = Counted(plain(kind).make())
    x = plain(kind).inputs(4)
    given = arguments(kind, plain(kind))
    loose = kind(**budget, tol=0.5)(model, x, **given)
    assert loose.evaluations == model.forwards
    paid = "gradients" if "gradients" in kind.needs else "evaluations"
    assert getattr(loose, paid) < 4 * 256
    alone = [kind(**budget, tol=0.5)(model, x[i : i + 1], **given) for i in range(4)]
    assert sum(getattr(one, paid) for one in alone) == getattr(loose, paid)


def _within_budget(method: Method, found: Explanation, rows: int, targets: int) -> None:
    """Gradients at most the budget; evaluations at most one for each channel or feature beside it."""
    passes = {
        "2 gradients": 2,
        "3 gradients": 3,
        "1 gradient + 1 evaluation a background row": 5,
    }.get(method.cost, 1)
    budget = next(
        (getattr(method, n) for n in ("steps", "samples", "budget") if hasattr(method, n)), passes
    )
    assert found.gradients <= budget * rows * targets
    assert ("gradients" in method.needs) == (found.gradients > 0)
    features = sum(leaf[0].numel() for leaf in leaves(found.values))
    players = 0 if found.player_values is None else found.player_values.shape[1]
    parts = {
        "one evaluation a channel": 20,
        "one evaluation a window": features,
        "2^n evaluations": 2**players,
        "one evaluation a player": players,
        "one evaluation a player and background row": 5 * (players + 1),
        "one evaluation a coalition up to the order": players * (players + 1) // 2,
        "4 evaluations a feature and size": 2 * features,
    }
    background = 5 if method.baseline_is == "background" else 0
    # At the inputs, at the baseline, and for a layer what the layer makes of the baseline.
    doubled = 2 if method.family == "propagation" and method.baseline_is != "unused" else 1
    spent = (doubled * budget + 2 + parts.get(method.cost, 0) + background) * rows + 2 * background
    assert found.evaluations <= spent
    assert found.seconds > 0


@pytest.mark.parametrize(
    "rule", ["endpoints", "left", "right", "midpoint", "trapezoid", "gauss-legendre"]
)
@pytest.mark.parametrize(
    "kind", [c for c in METHOD_CASES if {"rule", "steps"} <= fields(c.values[0])]
)
def test_a_fixed_rule_spends_exactly_its_steps(kind: type[Method], rule: str) -> None:
    model = Counted(ZOO["mlp"].make())
    found = kind(steps=7, rule=rule)(model, ZOO["mlp"].inputs(3))
    assert found.gradients == model.backwards == 21
    assert found.evaluations == model.forwards == 21 + 3 + 3
