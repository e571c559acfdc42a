"""Which method runs on which network of the zoo, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.networks import ZOO, Inputs, Network
from whyglass import CAM, DASP, METHODS, Background, Explanation, Method

METHOD_CASES = [pytest.param(kind, id=name) for name, kind in METHODS.items()]
# Those that explain a network: one that retrains needs an estimator.
ON_NETWORKS = {name: kind for name, kind in METHODS.items() if "retraining" not in kind.needs}
NETWORK_CASES = [pytest.param(kind, id=name) for name, kind in ON_NETWORKS.items()]
# Those that explain a convolutional network.
CONVOLUTIONAL = [case for case in NETWORK_CASES if "attention" not in case.values[0].needs]
GRADIENT_METHODS = [
    pytest.param(kind, id=name)
    for name, kind in ON_NETWORKS.items()
    if not {"images", "attention"} & set(kind.needs)
]


def home(kind: type[Method]) -> Network:
    """A network that the method surely explains."""
    return ZOO["vit"] if "attention" in kind.needs else ZOO["gap-cnn"]


def applies(kind: type[Method], network: Network) -> bool:
    """Whether a method can explain this kind of network at all."""
    if "images" in kind.needs and not (network.is_image or network.convolves):
        return False
    if "attention" in kind.needs and not network.attends:
        return False
    if kind is CAM and not network.pools_globally:
        return False
    if kind is DASP and network.multiplies:
        return False
    # A background row cannot stand in for an input that is held fixed.
    return not (kind.baseline_is == "background" and "mask" in network.shapes)


def _any(kind: type[Method], network: Network) -> bool:
    return True


def pairs(
    suits: Callable[[type[Method], Network], bool] = _any, *, respelled: bool = False
) -> list[Any]:
    """All combinations that suit, named for pytest."""
    return [
        pytest.param(kind, network, id=f"{name}-{network.name}")
        for name, kind in ON_NETWORKS.items()
        for network in ZOO.values()
        if applies(kind, network) and suits(kind, network) and network.respelled <= respelled
    ]


def plain(kind: type[Method]) -> Network:
    """The simplest network that a method can explain."""
    return ZOO["gap-cnn" if "images" in kind.needs else "mlp"]


def fields(kind: type[Method]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def few(inputs: Inputs) -> Any:
    """At most eight players: features where there are no more, else windows along two axes."""
    given = leaves(inputs)
    with_players = [leaf for leaf in given if leaf.is_floating_point()] or given
    each_one = sum(leaf[0].numel() for leaf in with_players) <= 8
    masks: list[Tensor] = []
    count = 0
    for leaf in given:
        shape = (1, *leaf.shape[2:]) if leaf.dim() > 3 else tuple(leaf.shape[1:])
        number = torch.full(shape, -1)
        if any(leaf is one for one in with_players):
            number = torch.arange(number.numel()).reshape(shape)
            if not each_one:
                tail = shape[-1]
                number = number % tail * 2 // tail + 2 * (number // tail % 2)
            number = number + count
            count = int(number.max()) + 1
        masks.append(number)
    return take_form(masks, inputs)


def take_form(masks: list[Tensor], inputs: Inputs) -> Any:
    """Masks in the form of the inputs."""
    if isinstance(inputs, Tensor):
        return masks[0]
    return dict(zip(inputs, masks, strict=True)) if isinstance(inputs, dict) else tuple(masks)


# Enough for a few draws of eight players, and too little for all coalitions of five.
BUDGETS: dict[str, dict[str, Any]] = {
    "permutation-shapley": {"budget": 60},
    "kernel-shap": {"budget": 26},
    "regression-adjusted-shapley": {"budget": 40},
    "lime": {"budget": 26},
    "owen": {"budget": 60},
    "qii": {"budget": 60},
}


def small(kind: type[Method], **settings: Any) -> Method:
    """The method with a budget that keeps the suite fast."""
    return kind(**cheap(kind) | settings)


def cheap(kind: type[Method]) -> dict[str, Any]:
    """The settings of that budget."""
    budget: dict[str, Any] = {"steps": 12, "samples": 6, "sizes": 1, "compare": False}
    budget |= {"players": few} | BUDGETS.get(kind.name, {})
    return {name: value for name, value in budget.items() if name in fields(kind)}


def arguments(kind: type[Method], network: Network, **given: Any) -> dict[str, Any]:
    """What the call needs besides model and inputs."""
    # Methods on attention take token ids as they are.
    at = None if "attention" in kind.needs else network.at
    found: dict[str, Any] = {"at": at, "output": network.output}
    if kind.baseline_is == "background":
        dtype = given.pop("dtype", torch.float64)
        found["baseline"] = Background(network.inputs(5, seed=5, dtype=dtype))
    given.pop("dtype", None)
    return found | given


def take(inputs: Inputs, rows: slice) -> Inputs:
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, dict):
        return {name: leaf[rows] for name, leaf in inputs.items()}
    return tuple(leaf[rows] for leaf in inputs)


def leaves(packed: Inputs | None) -> list[Tensor]:
    if packed is None:
        return []
    if isinstance(packed, Tensor):
        return [packed]
    return list(packed.values()) if isinstance(packed, dict) else list(packed)


def each(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same inputs with every leaf changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, dict):
        return {name: change(leaf) for name, leaf in inputs.items()}
    return tuple(change(leaf) for leaf in inputs)


def assert_same(
    one: Explanation, other: Explanation, rtol: float = 1e-9, atol: float = 1e-11
) -> None:
    """The same answer: values, errors, scores."""
    for name in ("values", "std_error", "score", "baseline_score"):
        mine, others = (leaves(getattr(e, name)) for e in (one, other))
        assert len(mine) == len(others), name
        for a, b in zip(mine, others, strict=True):
            torch.testing.assert_close(
                a, b, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
            )
