"""Attention rollout and Chefer et al. against their formulas, on models of every spelling."""

from __future__ import annotations

import gzip
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.networks import ZOO
from tests.zoo.vit import trained
from whyglass import AttentionRollout, BadInput, Chefer, Several
from whyglass.core.scorer import Scorer
from whyglass.propagation.attention.attention_method import AttentionMethod

DIGITS = Path(__file__).parents[4] / "shared" / "data" / "mnist" / "t10k-images-idx3-ubyte.gz"
F64 = torch.float64
METHODS = [AttentionRollout(), Chefer()]


class Encoder(nn.Module):
    """Two layers of attention with residual connections, written out or by torch's own call."""

    def __init__(self, spelling: str, first_token: bool) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(6, 18) for _ in range(2))
        self.head = nn.Linear(6, 3)
        self.spelling, self.first_token = spelling, first_token

    def forward(self, x: Tensor) -> Tensor:
        for projection in self.projections:
            q, k, v = (
                part.unflatten(2, (2, 3)).transpose(1, 2) for part in projection(x).chunk(3, 2)
            )
            if self.spelling == "written out":
                weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(3), dim=-1)
                mixed = torch.matmul(weights, v)
            else:
                mixed = F.scaled_dot_product_attention(q, k, v)
            x = x + mixed.transpose(1, 2).flatten(2)
        return self.head(x[:, 0] if self.first_token else x.mean(1))


def encoder(spelling: str = "written out", first_token: bool = True) -> Encoder:
    torch.manual_seed(0)
    return Encoder(spelling, first_token).double().eval()


X = torch.randn(2, 5, 6, dtype=F64, generator=torch.Generator().manual_seed(1))


def naive_matrices(net: Encoder, x: Tensor) -> list[np.ndarray]:
    """Softmax(q k^T / sqrt d) of both layers, by hand."""
    result = []
    state = x.numpy()
    for projection in net.projections:
        assert isinstance(projection, nn.Linear)
        made = state @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
        q, k, v = (
            part.reshape(len(x), 5, 2, 3).transpose(0, 2, 1, 3) for part in np.split(made, 3, 2)
        )
        scores = np.exp(q @ k.transpose(0, 1, 3, 2) / math.sqrt(3))
        result.append(scores / scores.sum(-1, keepdims=True))
        state = state + (result[-1] @ v).transpose(0, 2, 1, 3).reshape(len(x), 5, 6)
    return result


@pytest.mark.parametrize("spelling", ["written out", "one call"])
@pytest.mark.parametrize("first_token", [True, False])
def test_rollout_equals_its_formula(spelling: str, first_token: bool) -> None:
    """Abnar & Zuidema (2020), section 3: (A + I) / 2 through the layers."""
    net = encoder(spelling, first_token)
    result = AttentionRollout()(net, X, target=1)
    rolled = np.eye(5)
    for weights in naive_matrices(net, X):
        rolled = (weights.mean(1) + np.eye(5)) / 2 @ rolled
    expected = rolled[:, 0] if first_token else rolled.mean(1)
    np.testing.assert_allclose(result.values[..., 0], expected, atol=1e-12)
    np.testing.assert_allclose(result.values.sum(1), 1, atol=1e-12)  # type: ignore[union-attr]
    assert result.notes == ("2 attention layers",)


def test_chefer_equals_its_formula_on_one_layer() -> None:
    """Chefer et al. (2021), equation 13, with gradient and relevance worked out by hand."""
    x = np.array([[1.0, 2.0], [0.5, 0.1], [3.0, 0.2]])
    head = np.array([0.7, 1.5])

    def model(x: Tensor) -> Tensor:
        mixed = x + torch.softmax(x @ x.mT, -1) @ x
        return mixed[:, 1] @ torch.from_numpy(head)[:, None]

    result = Chefer()(model, torch.from_numpy(x)[None], target=0).values
    scores = np.exp(x @ x.T)
    weights = scores / scores.sum(-1, keepdims=True)
    # The score is linear in what attention reads of token j, all terms are positive, and the product
    # of weights and values gives half of its relevance to the weights.
    gradient = x @ head
    relevance = weights[1] * (x @ head) / 2
    expected = np.array([0.0, 1.0, 0.0]) + gradient * relevance
    # The composite has an epsilon of 1e-6 in sums.
    np.testing.assert_allclose(result[0, :, 0], expected, rtol=1e-5)  # type: ignore[index]


@pytest.mark.parametrize("spelling", ["written out", "one call"])
@pytest.mark.parametrize("first_token", [True, False])
def test_chefer_multiplies_its_layers(spelling: str, first_token: bool) -> None:
    """Equation 14: I + E_h (gradient x relevance)^+ through the layers, of each target."""
    net = encoder(spelling, first_token)
    scorer = Scorer(net, X, target=Several(0, 2))
    gradients, relevances = (record[0, 2] for record in Chefer().records(scorer))
    values = Chefer()(net, X, target=Several(0, 2)).values
    assert isinstance(values, Tensor)
    for target in range(2):
        product = torch.eye(5, dtype=F64)
        for layer in range(2):
            parts = [record.arrived[layer, target] for record in (gradients, relevances)]
            product = (torch.eye(5) + (parts[0] * parts[1]).clamp_min(0).mean(1)) @ product
        expected = product[:, 0] if first_token else product.mean(1)
        torch.testing.assert_close(values[:, :, 0, target], expected)


def test_chefer_depends_on_the_class_and_rollout_does_not() -> None:
    net = encoder()
    chefer = Chefer()(net, X, target=Several(0, 1)).values
    rollout = AttentionRollout()(net, X, target=Several(0, 1)).values
    assert isinstance(chefer, Tensor)
    assert isinstance(rollout, Tensor)
    assert not torch.allclose(chefer[..., 0], chefer[..., 1])
    assert torch.equal(rollout[..., 0], rollout[..., 1])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("batch_size", [1, 7, "auto"])
def test_the_batch_may_be_cut_anywhere(method: AttentionMethod, batch_size: Any) -> None:
    """Matrices of one pass meet those of another, also where the first one measures what fits."""
    net = encoder("one call")
    x = torch.randn(40, 5, 6, dtype=F64, generator=torch.Generator().manual_seed(2))
    values = method(net, x, target=1, batch_size=batch_size).values
    expected = method(net, x, target=1, batch_size=40).values
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_both_spellings_of_attention_are_one(method: AttentionMethod) -> None:
    result = [method(encoder(spelling), X, target=2).values for spelling in ("written out", "one")]
    torch.testing.assert_close(*result)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_vision_transformer_gets_a_map_over_the_image(method: AttentionMethod) -> None:
    x = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    result = method(trained(), x)
    assert isinstance(result.values, Tensor)
    assert result.values.shape == x.shape
    assert result.notes[0] == "4 attention layers"


@pytest.mark.skipif(not DIGITS.exists(), reason="no data sets beside the project")
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_the_map_of_a_trained_transformer_lies_on_the_ink(method: AttentionMethod) -> None:
    with gzip.open(DIGITS) as file:
        pixels = np.frombuffer(file.read(16 + 30 * 784), np.uint8, offset=16)[: 30 * 784]
    digits = torch.from_numpy(pixels.reshape(30, 1, 28, 28).copy()).float() / 255
    result = method(trained(), digits).values
    assert isinstance(result, Tensor)
    patches, ink = (F.avg_pool2d(part, 4).flatten(1) for part in (result, digits))
    # How often a patch with ink is above one without: .5 by chance, measured .82 and .95.
    above = [
        (row[mark > 0.1][:, None] > row[mark <= 0.1]).float().mean()
        for row, mark in zip(patches, ink, strict=True)
    ]
    assert torch.stack(above).mean() > 0.7


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_networks_without_attention_are_refused(method: AttentionMethod) -> None:
    with pytest.raises(BadInput, match="no attention between tokens"):
        method(ZOO["mlp"].make(), ZOO["mlp"].inputs())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_two_threads_on_one_model(method: AttentionMethod) -> None:
    net = encoder("one call")
    expected = method(net, X, target=1).values
    result: list[Any] = []

    def work() -> None:
        result.extend(method(net, X, target=1).values for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(result) == 10
    for values in result:
        torch.testing.assert_close(values, expected)
