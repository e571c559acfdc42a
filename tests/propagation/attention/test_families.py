"""Attention methods on the architectures that people use: no token of the input is left out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.families import FAMILIES
from whyglass import AttentionRollout, Chefer, Saliency, Unsupported

pytest.importorskip("transformers", reason="extra dev is not installed")

# Windows, reduced keys, a batch axis behind time, pooled queries, grouped queries, class tokens.
FOLLOWED = ["BERT", "GPT-2", "Llama", "XLNet", "ViT", "Swin", "SegFormer", "PVT"]


def _leaves(values: Any) -> list[Tensor]:
    return [values] if isinstance(values, Tensor) else list(values.values())


@pytest.mark.parametrize("name", FOLLOWED)
def test_rollout_reaches_what_the_score_depends_on(name: str) -> None:
    family = FAMILIES[name]
    model, inputs = family.make(), family.batch()
    kwargs = {"output": family.output, "target": family.target}
    (values,) = _leaves(AttentionRollout()(model, inputs, **kwargs).values)
    layer = family.layer(model)
    (slopes,) = _leaves(Saliency()(model, inputs, at=layer, **kwargs).values)
    if layer is not None and slopes.shape[:2] != values.shape:
        slopes = slopes.transpose(0, 1)
    depends = slopes.sum(2 if layer is not None else 1) > 0
    assert bool(((values if layer is not None else values[:, 0]) > 0).eq(depends).all())
    assert bool((values.flatten(1).sum(1) <= 1 + 1e-9).all())


@pytest.mark.parametrize("name", ["T5", "BART", "Whisper"])
def test_encoder_and_decoder_share_out_all_of_it(name: str) -> None:
    """Each of two decoder layers halves what stays in the decoder, at its cross-attention."""
    family = FAMILIES[name]
    result = AttentionRollout()(
        family.make(), family.batch(), output=family.output, target=family.target
    )
    source, query = (leaf for leaf in _leaves(result.values) if leaf.any())
    torch.testing.assert_close(source.flatten(1).sum(1), torch.full((2,), 0.75).double())
    torch.testing.assert_close(query.flatten(1).sum(1), torch.full((2,), 0.25).double())


@pytest.mark.parametrize("name", ["Swin", "SegFormer", "PVT"])
def test_chefer_follows_images(name: str) -> None:
    family = FAMILIES[name]
    values = Chefer()(family.make(), family.batch(), output=family.output, target=1).values
    (image,) = _leaves(family.batch())
    (leaf,) = _leaves(values)
    assert leaf.shape == (len(image), 1, *image.shape[2:])
    assert bool((leaf > 0).all())


@pytest.mark.parametrize("name", ["CLIP", "Mamba"])
def test_others_are_refused(name: str) -> None:
    family = FAMILIES[name]
    with pytest.raises(Unsupported, match=r"in layer .* of shape .*integrated-gradients"):
        AttentionRollout()(
            family.make(), family.batch(), output=family.output, target=family.target
        )
