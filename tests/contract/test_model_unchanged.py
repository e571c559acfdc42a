"""The model, the inputs and the process are as they were, after an answer and after an exception."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.contract.cases import (
    CONVOLUTIONAL,
    METHOD_CASES,
    NETWORK_CASES,
    ON_NETWORKS,
    arguments,
    home,
    leaves,
    pairs,
    small,
)
from tests.zoo.networks import ZOO, Inputs, Network
from whyglass import CAM, METHODS, BadInput, Method


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _state(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
    """Everything that explaining must leave alone."""
    state: dict[str, Any] = {
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": str(np.random.get_state()),  # noqa: NPY002  the global one is the point
        "python generator": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "default dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "inputs": [(_bytes(leaf), leaf.requires_grad, leaf.grad) for leaf in leaves(inputs)],
        "class": type(model).__dict__.copy(),
    }
    for key, value in model.state_dict().items():
        state[f"state {key}"] = (_bytes(value), value.dtype, value.shape)
    for key, parameter in model.named_parameters():
        state[f"parameter {key}"] = (id(parameter), parameter.requires_grad, parameter.grad)
        state[f"hooks of parameter {key}"] = parameter._backward_hooks
    for key, module in model.named_modules():
        state[f"attributes of {key}"] = sorted(vars(module))
        state[f"training of {key}"] = module.training
        for name, value in vars(module).items():
            if "hooks" in name:
                state[f"{name} of {key}"] = dict(value)
    return state


@contextlib.contextmanager
def _unchanged(model: nn.Module, inputs: Inputs) -> Iterator[None]:
    before = _state(model, inputs)
    yield
    after = _state(model, inputs)
    assert after.keys() == before.keys()
    for key, value in before.items():
        assert after[key] == value, key


def _places(kind: type[Method], network: Network) -> list[str | None]:
    """At the input where that can be, and at a layer where that can be."""
    if network.at is not None:
        return [network.at]
    return [None] if kind is CAM else [None, network.layer]


@pytest.mark.parametrize(("kind", "network"), pairs(respelled=True))
def test_model_is_unchanged(kind: type[Method], network: Network) -> None:
    model, inputs = network.make(), network.inputs()
    for at in _places(kind, network):
        with _unchanged(model, inputs):
            small(kind)(model, inputs, **arguments(kind, network, at=at))


class Boom(Exception):
    """Nothing that the library may know."""


@pytest.mark.parametrize(("kind", "network"), pairs(respelled=True))
@pytest.mark.parametrize("call", [1, 2])
def test_model_is_unchanged_after_an_exception(
    kind: type[Method], network: Network, call: int
) -> None:
    model, inputs = network.make(), network.inputs()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    calls = 0

    def explode(_module: nn.Module, _args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise Boom

    last.register_forward_pre_hook(explode)
    for at in _places(kind, network):
        calls = 0
        with _unchanged(model, inputs), contextlib.suppress(Boom):
            small(kind)(model, inputs, **arguments(kind, network, at=at))
        # One gradient is all that some methods need.
        assert calls == call or (call > 1 and calls == 1)


WITH_BASELINE = [c for c in METHOD_CASES if c.values[0].baseline_is != "unused"]


@pytest.mark.parametrize("kind", WITH_BASELINE)
def test_the_baseline_is_unchanged(kind: type[Method]) -> None:
    """By a network whose first layer writes into what it is given."""
    model = nn.Sequential(nn.ReLU(inplace=True), ZOO["gap-cnn"].make())
    inputs = ZOO["gap-cnn"].inputs()
    assert isinstance(inputs, torch.Tensor)
    baseline = -inputs.flip(0)
    with _unchanged(model, (inputs, baseline)):
        small(kind)(model, inputs, baseline=baseline)


@pytest.mark.parametrize("name", ON_NETWORKS)
def test_a_refused_call_changes_nothing(name: str) -> None:
    kind = METHODS[name]
    network = home(kind)
    model, inputs = network.make(), network.inputs()
    with _unchanged(model, inputs), pytest.raises(BadInput):
        small(kind)(model, inputs, **arguments(kind, network, target=99))


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_hooks_of_the_user_are_kept_and_called(kind: type[Method], network: Network) -> None:
    model, inputs = network.make(), network.inputs()
    seen: list[str] = []
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    linear.register_forward_pre_hook(lambda *_: seen.append("before"))
    linear.register_forward_hook(lambda *_: seen.append("after"))
    model.register_forward_hook(lambda *_: seen.append("whole"))
    with _unchanged(model, inputs):
        small(kind)(model, inputs, **arguments(kind, network))
    assert seen[:3] == ["before", "after", "whole"]
    assert len(set(map(seen.count, ("before", "after", "whole")))) == 1


@pytest.mark.parametrize("kind", [case for case in CONVOLUTIONAL if case.values[0] is not CAM])
def test_a_hook_of_the_user_that_changes_the_layer_counts(kind: type[Method]) -> None:
    """A user's hook on the layer explained runs first: what it returns is what is explained."""
    network = home(kind)
    plain, doubled = network.make(), network.make()
    assert isinstance(doubled.conv2, nn.Conv2d)
    doubled.conv2.register_forward_hook(lambda _m, _i, result: 2 * result)
    with torch.no_grad():
        plain.conv2.weight *= 2
        plain.conv2.bias *= 2
    inputs, given = network.inputs(), arguments(kind, network, at="conv2")
    expected = small(kind)(plain, inputs, **given)
    found = small(kind)(doubled, inputs, **given)
    torch.testing.assert_close(found.values, expected.values)


@pytest.mark.parametrize("kind", NETWORK_CASES)
def test_a_training_flag_that_does_no_harm_is_left_on(kind: type[Method]) -> None:
    network = home(kind)
    model = network.make().train()
    inputs = network.inputs()
    with _unchanged(model, inputs):
        small(kind)(model, inputs, **arguments(kind, network))
    assert model.training
