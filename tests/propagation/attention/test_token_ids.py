"""Attention methods on token ids: explained by their embedding, without at=."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.zoo.networks import ZOO, Transformer
from whyglass import AttentionRollout, BadInput, Chefer, Legend, Method, Several

F64 = torch.float64
METHODS = [AttentionRollout(), Chefer()]


class Classifier(nn.Module):
    """Ids, types and a mask (B, T) -> (B, 3), with the embedding written in several ways."""

    def __init__(self, spelling: str = "module") -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(11, 8), nn.Embedding(2, 8)
        self.positions = nn.Parameter(torch.randn(6, 8))
        self.body = Transformer()
        self.spelling = spelling

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        ids = input_ids.view(-1, input_ids.shape[-1])
        if self.spelling == "module":
            x = self.words(ids)
        elif self.spelling == "index":
            x = self.words.weight[ids.long()]
        elif self.spelling == "time first":
            x = self.words(ids.T.contiguous()).transpose(0, 1)
        elif self.spelling == "flat":
            x = self.words(ids.flatten()).unflatten(0, ids.shape)
        else:
            x = torch.cat([self.words(ids[:, :2]), self.words(ids[:, 2:])], 1)
        x = x + self.positions.expand_as(x)
        if token_type_ids is not None:
            x = x + self.types(token_type_ids)
        return self.body(x, None if attention_mask is None else attention_mask == 0)


def make(spelling: str = "module") -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(spelling).double().eval()


IDS = torch.randint(0, 11, (3, 6), generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
TYPES = torch.tensor([[0, 0, 0, 1, 1, 1]] * 3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("spelling", ["module", "index", "time first", "flat", "parts"])
def test_ids_are_explained_by_their_embedding(method: Method, spelling: str) -> None:
    expected = method(make(), IDS, target=Several(0, 2), at="words").values
    result = method(make(spelling), IDS, target=Several(0, 2))
    assert isinstance(expected, Tensor)
    assert isinstance(result.values, Tensor)
    assert result.values.shape == (3, 6, 2)
    assert result.at is None
    torch.testing.assert_close(result.values, expected[:, :, 0])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_masks_and_types_beside_ids_are_held(method: Method) -> None:
    inputs = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    result = method(make(), inputs, target=1, legend=Legend(tokens=[list("abcdef")] * 3))
    assert isinstance(result.values, Tensor)
    assert result.values.shape == (3, 6)
    assert not result.values[MASK == 0].any()
    assert bool((result.values[MASK == 1] > 0).all())
    held = [note for note in result.notes if "held" in note]
    assert ["attention_mask" in held[0], "token_type_ids" in held[1]] == [True, True]
    for row in range(3):
        alone = {name: leaf[row : row + 1] for name, leaf in inputs.items()}
        torch.testing.assert_close(method(make(), alone, target=1).values, result.values[row, None])


def test_ids_of_two_sequences() -> None:
    words = nn.Embedding(11, 4).double()

    def model(*, source: Tensor, query: Tensor) -> Tensor:
        keys, queries = words(source), words(query)
        queries = queries + torch.softmax(queries @ keys.mT, -1) @ keys
        return queries.mean(1)

    result = AttentionRollout()(model, {"source": IDS, "query": IDS[:, :4]}, target=0)
    assert isinstance(result.values, dict)
    assert [tuple(leaf.shape) for leaf in result.values.values()] == [(3, 6), (3, 4)]
    for leaf in result.values.values():
        torch.testing.assert_close(leaf.sum(1), torch.full((3,), 0.5, dtype=F64))


def test_ids_beside_numbers() -> None:
    words = nn.Embedding(11, 4).double()
    image = torch.randn(3, 2, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    kernel = torch.randn(4, 2, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(2))

    def model(ids: Tensor, image: Tensor) -> Tensor:
        patches = torch.conv2d(image, kernel, stride=2).flatten(2).mT
        tokens = torch.cat([words(ids), patches], 1)
        return (tokens + torch.softmax(tokens @ tokens.mT, -1) @ tokens).mean(1)

    result = AttentionRollout()(model, (IDS, image), target=0)
    assert isinstance(result.values, tuple)
    assert [tuple(leaf.shape) for leaf in result.values] == [(3, 6), (3, 1, 4, 4)]
    total = sum(leaf.flatten(1).sum(1) for leaf in result.values)
    torch.testing.assert_close(total, torch.ones(3, dtype=F64))


def test_ids_that_no_embedding_reads() -> None:
    def model(ids: Tensor) -> Tensor:
        x = nn.functional.one_hot(ids, 11).double()
        return (x + torch.softmax(x @ x.mT, -1) @ x).mean(1)

    with pytest.raises(BadInput, match=r"no embedding of token ids.*at="):
        AttentionRollout()(model, IDS)


def test_the_zoo_needs_no_layer_either() -> None:
    network: Any = ZOO["tokens"]
    values = AttentionRollout()(network.make(), network.inputs()).values
    expected = AttentionRollout()(network.make(), network.inputs(), at="embedding").values
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(values, expected[:, :, 0])
