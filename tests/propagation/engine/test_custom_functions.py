"""Autograd functions of the model's own, and calls while gradients are off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from whyglass import LRP, AttnLRP, Deconvolution, DeepLIFT, GuidedBackprop, Method, WeightOfEvidence

F64 = torch.float64
METHODS = [
    DeepLIFT(),
    DeepLIFT(rule="reveal-cancel"),
    WeightOfEvidence(),
    LRP(),
    LRP(rule="epsilon", bias="share"),
    AttnLRP(),
    GuidedBackprop(),
    Deconvolution(),
]


class Gate(torch.autograd.Function):
    """x tanh(relu(x)), of several calls and with a buffer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        positive = torch.relu(x)
        return (torch.tanh(positive) * x).mul(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, scale = ctx.saved_tensors
        t = torch.tanh(torch.relu(x))
        return gradients[0] * scale * (t + x * (1 - t**2) * (x > 0)), None


class Halves(torch.autograd.Function):
    """Two outputs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = x.chunk(2, 1)
        return torch.relu(left), right * 2

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise NotImplementedError


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*s, generator=g, dtype=F64) for s in ((3, 4), (4, 6), (6, 3)))  # type: ignore[return-value]


def assert_same(
    method: Method, one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    first, second = (method(model, x, target=1) for model in (one, other))
    torch.testing.assert_close(second.values, first.values, rtol=1e-12, atol=1e-12)
    assert second.verdict == first.verdict


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_the_forward_of_a_custom_function_is_the_calls_in_it(method: Method, seed: int) -> None:
    x, first, last = drawn(seed)
    scale = torch.linspace(0.5, 2, 6, dtype=F64)
    assert_same(
        method,
        lambda z: (torch.tanh(torch.relu(z @ first)) * (z @ first)).mul(scale) @ last,
        lambda z: Gate.apply(z @ first, scale) @ last,
        x,
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_several_outputs_and_one_function_behind_another(method: Method) -> None:
    x, first, last = drawn(0)
    scale = torch.ones(3, dtype=F64)

    def plain(z: Tensor) -> Tensor:
        left, right = (z @ first).chunk(2, 1)
        h = torch.cat([torch.relu(left), right * 2], 1)[:, :3]
        return (torch.tanh(torch.relu(h)) * h).mul(scale) @ last[:3]

    def custom(z: Tensor) -> Tensor:
        return Gate.apply(torch.cat(Halves.apply(z @ first), 1)[:, :3], scale) @ last[:3]

    assert_same(method, plain, custom, x)


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.name)
def test_what_is_computed_without_gradients_is_a_constant_of_the_network(method: Method) -> None:
    """As a detached tensor is, and the notes say so of both."""
    x, first, last = drawn(1)

    def detached(z: Tensor) -> Tensor:
        h = z @ first
        return (h * torch.tanh(h.detach())) @ last

    def without(z: Tensor) -> Tensor:
        h = z @ first
        with torch.no_grad():
            t = torch.tanh(h)
        return (h * t) @ last

    assert_same(method, detached, without, x)
    assert any("constants of the network" in note for note in method(without, x, target=1).notes)
