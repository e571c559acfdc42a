"""Models of the transformers library as people call them: no layer named, no output picked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.core.test_layer_calls import make
from tests.zoo.families import FAMILIES
from whyglass import BadInput, IntegratedGradients, Saliency, explain

transformers = pytest.importorskip("transformers", reason="extra dev is not installed")


@pytest.mark.parametrize("method", ["saliency", "integrated-gradients", "deeplift", "lrp"])
@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5", "XLNet"])
def test_ids_lead_to_the_embedding_and_the_logits(name: str, method: str) -> None:
    family = FAMILIES[name]
    model, inputs = family.make(), family.batch()
    assert isinstance(inputs, dict)
    encoding: Any = transformers.BatchEncoding(inputs)
    result = make(method)(model, encoding, target=family.target)
    place = "encoder.embed_tokens" if name == "T5" else family.layer(model)
    assert result.at == place
    assert any(f"at={place!r}" in note for note in result.notes)
    expected = make(method)(model, inputs, at=place, output="logits", target=family.target)
    torch.testing.assert_close(result.values, expected.values)
    assert isinstance(result.values, Tensor)
    assert result.values.shape[:2] == inputs["input_ids"].shape


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("at", ["transformer.word_embedding", "transformer.layer.0"])
def test_a_model_with_time_first(at: str, rows: int) -> None:
    """XLNet works on (T, B, D): rows and tokens are told apart, as many as there may be of each."""
    family = FAMILIES["XLNet"]
    model = family.make()
    ids = torch.randint(40, (rows, 5), generator=torch.Generator().manual_seed(1))
    method = IntegratedGradients(steps=20, rule="midpoint")
    values = method(model, ids, at=at, target=1).values
    assert isinstance(values, Tensor)
    assert values.shape[:2] == (rows, 5)
    for row in range(rows):
        alone = method(model, ids[row : row + 1], at=at, target=1).values
        torch.testing.assert_close(values[row : row + 1], alone)


def test_a_layer_whose_copies_run() -> None:
    family = FAMILIES["T5"]
    model, inputs = family.make(), family.batch()
    given = {"target": family.target}
    with pytest.raises(BadInput, match=r"'shared' never runs.*'encoder.embed_tokens' and 'decoder"):
        Saliency()(model, inputs, at="shared", **given)
    for way in ("encoder.embed_tokens", "decoder.embed_tokens"):
        assert Saliency()(model, inputs, at=way, **given).at == way


def test_one_text_without_its_batch_axis() -> None:
    family = FAMILIES["BERT"]
    model, inputs = family.make(), family.batch()
    assert isinstance(inputs, dict)
    with pytest.raises(BadInput, match=r"without its batch axis.*tensor\[None\]"):
        explain(model, {name: leaf[0] for name, leaf in inputs.items()}, target=1)
