"""Attention of any shape: followed as the product of its matrices, or refused in one sentence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from whyglass import AttentionRollout, Chefer, Method, Saliency, Several, Unsupported

F64 = torch.float64
METHODS = [AttentionRollout(), Chefer()]


def _attention(x: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (..., T, S) of queries and keys, and what they mix."""
    weights = torch.softmax(x @ keys.mT / math.sqrt(x.shape[-1]), -1)
    return weights, weights @ keys


def full(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention between all tokens, and its matrix (B, T, T)."""
    weights, mixed = _attention(x, x)
    return mixed, weights


def windows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention within windows of two tokens, shifted by one."""
    rows, count, _ = x.shape
    parts = x.roll(-1, 1).reshape(rows * count // 2, 2, -1)
    weights, mixed = _attention(parts, parts)
    # Token 2 w + 1 and the next one are the window w.
    blocks = weights.reshape(rows, count // 2, 2, 2)
    place = torch.arange(count).roll(-1).reshape(count // 2, 2)
    member = torch.nn.functional.one_hot(place, count).to(x.dtype)
    matrix = torch.einsum("wat,bwac,wcs->bts", member, blocks, member)
    return mixed.reshape(x.shape).roll(1, 1), matrix


def reduced(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to keys that are averages of two tokens each."""
    keys = nn.functional.avg_pool1d(x.mT, 2).mT
    weights, mixed = _attention(x, keys)
    return mixed, weights.repeat_interleave(2, -1) / 2


def strided(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to keys that a strided convolution makes of two tokens each."""
    width = x.shape[-1]
    kernel = torch.linspace(-1, 1, width * width * 2, dtype=x.dtype).reshape(width, width, 2)
    weights, mixed = _attention(x, torch.conv1d(x.mT, kernel, stride=2).mT)
    return mixed, weights.repeat_interleave(2, -1) / 2


def time_first(x: Tensor) -> tuple[Tensor, Tensor]:
    """Attention whose batch axis is the last but one, by einsum."""
    y = x.transpose(0, 1)
    weights = torch.softmax(torch.einsum("ibd,jbd->ijb", y, y), 1)
    return torch.einsum("ijb,jbd->ibd", weights, y).transpose(0, 1), weights.permute(2, 0, 1)


LAYERS = {f.__name__: f for f in (full, windows, reduced, strided, time_first)}
Names = st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=4)


class Stack(nn.Module):
    """Layers of attention with residual connections and a linear map of the channels after each."""

    def __init__(self, names: list[str], seed: int, token: int) -> None:
        super().__init__()
        self.names, self.token = names, token
        generator = torch.Generator().manual_seed(seed)
        self.maps = [torch.randn(3, 3, generator=generator, dtype=F64) for _ in names]
        self.head = torch.randn(3, 2, generator=generator, dtype=F64)

    def forward(self, x: Tensor) -> Tensor:
        for name, weight in zip(self.names, self.maps, strict=True):
            x = x + LAYERS[name](x)[0] @ weight
        return x[:, self.token] @ self.head

    def product(self, x: Tensor) -> Tensor:
        """Row `token` of the product of (A + I) / 2 over the layers."""
        rolled = torch.eye(x.shape[1], dtype=F64)
        for name, weight in zip(self.names, self.maps, strict=True):
            mixed, matrix = LAYERS[name](x)
            rolled = (matrix + torch.eye(x.shape[1])) / 2 @ rolled
            x = x + mixed @ weight
        return rolled[:, self.token]


def _tokens(seed: int, rows: int = 2, count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, count, 3, generator=generator, dtype=F64)


@settings(max_examples=25, deadline=None)
@given(Names, st.integers(0, 99), st.integers(0, 5))
def test_rollout_is_the_product_of_its_matrices(names: list[str], seed: int, token: int) -> None:
    net, x = Stack(names, seed, token), _tokens(seed)
    values = AttentionRollout()(net, x, target=1).values
    assert isinstance(values, Tensor)
    torch.testing.assert_close(values[..., 0], net.product(x))
    torch.testing.assert_close(values.sum((1, 2)), torch.ones(2, dtype=F64))


@settings(max_examples=15, deadline=None)
@given(Names, st.integers(0, 99), st.integers(0, 5))
def test_flow_reaches_the_tokens_that_the_score_depends_on(
    names: list[str], seed: int, token: int
) -> None:
    net, x = Stack(names, seed, token), _tokens(seed)
    for method in METHODS:
        values = method(net, x, target=Several(0, 1)).values
        slopes = Saliency()(net, x, target=Several(0, 1)).values
        assert isinstance(values, Tensor)
        assert isinstance(slopes, Tensor)
        assert not bool(((values.sum(2) > 0) & (slopes.sum(2) == 0)).any())
        if method.name == "attention-rollout":
            assert bool(((values.sum(2) > 0) == (slopes.sum(2) > 0)).all())


def test_cross_attention_reaches_both_sequences() -> None:
    source, query = _tokens(0), _tokens(1, count=4)
    head = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=F64)

    def model(source: Tensor, query: Tensor) -> Tensor:
        source = source + full(source)[0]
        query = query + full(query)[0]
        query = query + _attention(query, source)[1]
        return query[:, 0] @ head

    values = AttentionRollout()(model, (source, query)).values
    assert isinstance(values, tuple)
    encoder = (full(source)[1] + torch.eye(6)) / 2
    decoder = (full(query)[1] + torch.eye(4)) / 2
    crossed, _ = _attention(query + full(query)[0], source + full(source)[0])
    torch.testing.assert_close(values[0][..., 0], (crossed @ encoder)[:, 0] / 2)
    torch.testing.assert_close(values[1][..., 0], decoder[:, 0] / 2)


def test_attention_beside_a_feed_forward_network_has_one_residual_connection() -> None:
    """As in GPT-J: attention and network are added to each other, then to their tokens."""
    head = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=F64)

    def model(x: Tensor) -> Tensor:
        mixed, _ = full(x)
        return ((mixed + torch.tanh(x @ head @ head.mT)) + x)[:, 0] @ head

    x = _tokens(3)
    values = AttentionRollout()(model, x).values
    assert isinstance(values, Tensor)
    torch.testing.assert_close(values[..., 0], (full(x)[1] + torch.eye(6))[:, 0] / 2)


def test_a_mean_over_some_tokens_weighs_those() -> None:
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 1.0], dtype=F64)[:, None]

    def model(x: Tensor) -> Tensor:
        return ((x + full(x)[0]) * mask).sum(1) / mask.sum()

    x = _tokens(4)
    values = AttentionRollout()(model, x, target=0).values
    assert isinstance(values, Tensor)
    expected = (full(x)[1] + torch.eye(6)) / 2
    torch.testing.assert_close(values.sum((1, 2)), torch.ones(2, dtype=F64))
    torch.testing.assert_close(values[..., 0], (mask.mT / mask.sum() @ expected)[:, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_half_precision(method: Method, dtype: torch.dtype) -> None:
    def model(x: Tensor) -> Tensor:
        return (x + full(x)[0]).mean(1)

    x = _tokens(5)
    expected = method(model, x, target=1).values
    values = method(model, x.to(dtype), target=1).values
    assert isinstance(values, Tensor)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected, rtol=0.05, atol=0.01)


def _linear_attention(x: Tensor) -> Tensor:
    return torch.relu(x) @ (torch.relu(x).mT @ x)


def _sigmoid_attention(x: Tensor) -> Tensor:
    return torch.sigmoid(x @ x.mT) @ x


def _signed_attention(x: Tensor) -> Tensor:
    first, second = torch.softmax(x @ x.mT, -1), torch.softmax(-x @ x.mT, -1)
    return (first - second) @ x


def _hidden(x: Tensor) -> Tensor:
    """As an extension in C++ computes it: no mode sees the calls."""
    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        return torch.softmax(x @ x.mT, -1) @ x


class Beside(nn.Module):
    """An attention that is followed, with another layer after it that is not."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        x = x + full(x)[0]
        return (x + self.layer(x)).mean(1)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize(
    "layer", [_linear_attention, _sigmoid_attention, _signed_attention, _hidden]
)
def test_what_cannot_be_followed_is_refused(method: Method, layer: Any) -> None:
    """The layer and the way out are named, and the way out works."""
    x = _tokens(6)
    with pytest.raises(Unsupported, match=r"in layer 'Beside'.*\(.*6.*integrated-gradients"):
        method(Beside(layer), x, target=0)


def test_an_operation_that_no_flow_reaches_needs_no_rule() -> None:
    def model(x: Tensor) -> Tensor:
        order = torch.cummax(x, 1).values.sum()
        weights = torch.softmax(x @ x.mT + order * 1e-3, -1)
        return (x + weights @ x).mean(1)

    values = AttentionRollout()(model, _tokens(7), target=0).values
    assert isinstance(values, Tensor)
    torch.testing.assert_close(values.sum((1, 2)), torch.ones(2, dtype=F64))
