"""What must not change an answer: the batch, the spelling of a ReLU, the memory layout, threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract.cases import (
    CONVOLUTIONAL,
    GRADIENT_METHODS,
    ON_NETWORKS,
    applies,
    arguments,
    assert_same,
    each,
    leaves,
    pairs,
    small,
    take,
)
from tests.zoo.networks import ZOO, GlobalPoolCNN, Network
from whyglass import METHODS, Explanation, Method


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_a_batch_equals_its_rows(kind: type[Method], network: Network) -> None:
    model, inputs, rows = network.make(), network.inputs(3), 3
    method, kwargs = small(kind), arguments(kind, network)
    whole = method(model, inputs, **kwargs)
    for row in range(rows):
        here = slice(row, row + 1)
        alone = method(model, take(inputs, here), **kwargs)
        for name in ("values", "std_error", "score", "baseline_score"):
            batch, single = leaves(getattr(whole, name)), leaves(getattr(alone, name))
            for a, b in zip(batch, single, strict=True):
                torch.testing.assert_close(a[here], b, rtol=1e-9, atol=1e-11)
        assert whole.targets[row] == alone.targets[0]
        assert whole.at == alone.at


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
@pytest.mark.parametrize("style", ["functional", "reused", "in-place"])
def test_every_spelling_of_relu_is_the_same(kind: type[Method], style: str) -> None:
    name = "gap-cnn" if "images" in kind.needs else "mlp"
    plain, spelled = ZOO[name], ZOO[f"{name}-{style}"]
    kwargs = arguments(kind, plain)
    expected = small(kind)(plain.make(), plain.inputs(), **kwargs)
    found = small(kind)(spelled.make(), plain.inputs(), **kwargs)
    assert_same(found, expected, 0, 0)


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_a_sequential_head_is_the_same_as_a_forward(kind: type[Method]) -> None:
    model = ZOO["gap-cnn"].make()
    assert isinstance(model, GlobalPoolCNN)
    sequential = nn.Sequential(
        model.conv1,
        nn.ReLU(),
        model.conv2,
        nn.ReLU(inplace=True),
        nn.AvgPool2d(8),
        nn.Flatten(),
        model.head,
    )
    inputs, kwargs = ZOO["gap-cnn"].inputs(), arguments(kind, ZOO["gap-cnn"])
    assert_same(small(kind)(sequential, inputs, **kwargs), small(kind)(model, inputs, **kwargs))


def _spread_out(leaf: Tensor) -> Tensor:
    """The same numbers, every second place of a larger tensor."""
    wide = leaf.new_zeros(*leaf.shape[:-1], 2 * leaf.shape[-1])
    wide[..., ::2] = leaf
    return wide[..., ::2]


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_non_contiguous_inputs(kind: type[Method], network: Network) -> None:
    model, inputs, kwargs = network.make(), network.inputs(), arguments(kind, network)
    scattered = each(inputs, _spread_out)
    assert not leaves(scattered)[0].is_contiguous()
    assert_same(small(kind)(model, scattered, **kwargs), small(kind)(model, inputs, **kwargs))


@pytest.mark.parametrize(
    ("kind", "network"),
    pairs(lambda kind, net: net.is_image and len(net.inputs()[:1].shape) == 4),
)
def test_channels_last(kind: type[Method], network: Network) -> None:
    model, inputs, kwargs = network.make(), network.inputs(), arguments(kind, network)
    expected = small(kind)(model, inputs, **kwargs)
    other = inputs.to(memory_format=torch.channels_last)
    found = small(kind)(network.make().to(memory_format=torch.channels_last), other, **kwargs)
    assert_same(found, expected)


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_frozen_parameters_under_an_outer_no_grad(kind: type[Method], network: Network) -> None:
    model, inputs, kwargs = network.make(), network.inputs(), arguments(kind, network)
    expected = small(kind)(model, inputs, **kwargs)
    frozen = network.make().requires_grad_(False)
    with torch.no_grad():
        found = small(kind)(frozen, inputs, **kwargs)
        assert not torch.is_grad_enabled()
    assert_same(found, expected)
    assert not any(leaf.requires_grad for leaf in leaves(found.values))


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_inputs_that_hang_in_a_graph(kind: type[Method], network: Network) -> None:
    model, inputs, kwargs = network.make(), network.inputs(), arguments(kind, network)
    expected = small(kind)(model, inputs, **kwargs)

    def attach(leaf: Tensor) -> Tensor:
        return leaf.clone().requires_grad_() * 1 if leaf.is_floating_point() else leaf

    assert_same(small(kind)(model, each(inputs, attach), **kwargs), expected, 1e-12, 1e-12)


@pytest.mark.parametrize(("kind", "network"), pairs())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_dtype_and_device_are_kept(
    kind: type[Method], network: Network, dtype: torch.dtype
) -> None:
    model, inputs = network.make(dtype=dtype), network.inputs(dtype=dtype)
    found = small(kind)(model, inputs, **arguments(kind, network, dtype=dtype))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for name in ("score", "baseline_score"):
        for leaf in leaves(getattr(found, name)):
            assert leaf.dtype == wide, name
            assert torch.isfinite(leaf).all(), name
    explained = leaves(inputs) if network.all_float else leaves(inputs)[:1]
    for name in ("values", "std_error"):
        for leaf, given in zip(leaves(getattr(found, name)), explained, strict=False):
            assert leaf.dtype == wide, name
            assert leaf.device == given.device, name
            assert torch.isfinite(leaf).all(), name
    for given, kept in zip(leaves(inputs), leaves(found.inputs), strict=True):
        assert given.dtype == kept.dtype
        assert torch.equal(given, kept)


@pytest.mark.parametrize(("kind", "network"), pairs(lambda _, net: net.all_float))
@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_inputs(kind: type[Method], network: Network, value: float) -> None:
    inputs = each(network.inputs(2), lambda leaf: torch.full_like(leaf, value))
    found = small(kind)(network.make(), inputs, **arguments(kind, network))
    for leaf in leaves(found.values) + leaves(found.std_error):
        assert torch.isfinite(leaf).all()


@pytest.mark.parametrize(("kind", "network"), pairs(lambda _, net: net.layer is not None))
def test_values_are_shaped_as_what_is_explained(kind: type[Method], network: Network) -> None:
    model, inputs = network.make(), network.inputs()
    found = small(kind)(model, inputs, **arguments(kind, network))
    if kind.family == "cam":
        mapped = inputs["signal"] if isinstance(inputs, dict) else inputs
        assert isinstance(mapped, Tensor)
        assert found.values.shape == (3, 1, *mapped.shape[2:])
    elif "attention" in kind.needs and not network.is_image:
        assert found.values.shape == ((3, 6) if network.at else (3, 6, 1))
    elif network.at is not None:
        assert found.values.shape == (*inputs.shape, 8)
    else:
        assert type(found.values) is type(inputs)
        if isinstance(inputs, dict):
            assert list(found.values) == list(inputs)
        for value, leaf in zip(leaves(found.values), leaves(inputs), strict=True):
            one_map = leaf.dim() > 3 and value.shape == (3, 1, *leaf.shape[2:])
            assert value.shape == leaf.shape or one_map
            if not leaf.is_floating_point():
                assert not value.any()
    assert len(found) == 3


class Slow(nn.Module):
    """Lets another thread run in the middle of a forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.0005)
        return x


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_two_threads_explain_one_model(kind: type[Method]) -> None:
    network = ZOO["gap-cnn"]
    inner = network.make()
    assert isinstance(inner, GlobalPoolCNN)
    model = nn.Sequential(
        inner.conv1,
        nn.ReLU(),
        Slow(),
        inner.conv2,
        nn.ReLU(),
        Slow(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        inner.head,
    )
    places = (None, None) if kind is METHODS["cam"] else ("0", "3")
    method, kwargs = small(kind), arguments(kind, network)
    jobs = [(network.inputs(2, seed), kwargs | {"at": at}) for seed, at in enumerate(places)]
    serial = [method(model, inputs, **given) for inputs, given in jobs]
    found: dict[int, list[Explanation]] = {0: [], 1: []}
    start = threading.Barrier(2)

    def work(number: int, inputs: Any, given: dict[str, Any]) -> None:
        start.wait()
        for _ in range(3):
            found[number].append(method(model, inputs, **given))

    threads = [threading.Thread(target=work, args=(i, *job)) for i, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(serial):
        assert len(found[number]) == 3
        for explanation in found[number]:
            assert_same(explanation, expected)
            assert explanation.evaluations == expected.evaluations


@pytest.mark.parametrize("kind", GRADIENT_METHODS)
def test_any_gradient_method_explains_a_layer(kind: type[Method]) -> None:
    """A layer's activations, explained in the whole network, are the rest's inputs explained."""
    network = ZOO["mlp"]
    model: Any = network.make()
    inputs, background = network.inputs(), network.inputs(5, seed=5)
    rest = nn.Sequential(nn.ReLU(), model.second, nn.ReLU(), model.last)
    with torch.no_grad():
        activations, others = model.first(inputs), model.first(background)
    at_layer = arguments(kind, network, at="first")
    at_input = arguments(kind, network)
    if "baseline" in at_input:
        at_input["baseline"] = type(at_input["baseline"])(others)
    found = small(kind)(model, inputs, **at_layer)
    expected = small(kind)(rest, activations, **at_input)
    assert found.at == "first"
    assert found.values.shape == (3, 16)
    assert_same(found, expected)


def test_the_exclusions_leave_every_method_and_network_something_to_do() -> None:
    for kind in ON_NETWORKS.values():
        assert any(applies(kind, network) for network in ZOO.values())
    for network in ZOO.values():
        assert any(applies(kind, network) for kind in METHODS.values())
