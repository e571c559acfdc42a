"""Chefer et al.: attention weighed by its gradient and its relevance, for a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.propagation.attention.attention_method import (
    AttentionLayer,
    AttentionMethod,
    AttentionRecord,
    attention_layers,
    layer_product,
)
from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.interception import intercepted, layers_of
from whyglass.propagation.lrp.composites import composite
from whyglass.propagation.lrp.relevance import Relevance


class _AttentionRelevance(Relevance):
    """A pass of LRP that records the relevance of the attention matrices."""

    def __init__(self, layers: dict[int, str]) -> None:
        super().__init__(composite("z-plus"), "share", "half", "error", layers)
        self.record = AttentionRecord()

    def after_call(self, call: Call, result: Any) -> None:
        super().after_call(call, result)
        self.record.add(call, result)


@dataclass(frozen=True, kw_only=True)
class Chefer(AttentionMethod):
    r"""Attention relevance, positive where gradient and relevance agree, multiplied through the layers.

    .. math:: C = \bar A_L \cdots \bar A_1, \quad
        \bar A_l = I + E_h \big( \nabla A_l \odot R_{A_l} \big)^+

    The gradient makes it depend on the class. The relevance of an attention matrix is that of LRP with
    the z-plus rule, half of each product going to either factor. It is made for networks that read one
    token; where all are averaged, the identity weighs every token alike and drowns the rest. Units:
    none. Source: Chefer, Gur & Wolf (2021), equations 13 and 14.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> attend = lambda x: (torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.Chefer()(attend, x).values[..., 0]
    tensor([[0.6873, 1.7510]])
    """

    name: ClassVar[str] = "chefer"
    shows: ClassVar[str] = "Which tokens the answer rests on, by what attention did for the class."
    cost: ClassVar[str] = "2 gradients"
    paper: ClassVar[Paper] = Paper(
        "Hila Chefer, Shir Gur and Lior Wolf",
        "Transformer Interpretability Beyond Attention Visualization",
        "CVPR",
        2021,
        "https://arxiv.org/abs/2012.09838",
    )

    def token_matrices(self, scorer: Scorer, layers: Sequence[AttentionLayer]) -> list[Tensor]:
        owners = layers_of(scorer.model)
        _, passes = intercepted(scorer, lambda _: _AttentionRelevance(owners))
        relevances = attention_layers([each.record for each in passes], len(layers[0].gradients))
        size = layers[0].weights.shape[-1]
        identity = torch.eye(size, dtype=layers[0].weights.dtype, device=layers[0].weights.device)
        return [
            layer_product(
                [
                    identity + (layer.gradients[k] * relevance.gradients[k]).clamp_min(0).mean(1)
                    for layer, relevance in zip(layers, relevances, strict=True)
                ]
            )
            for k in range(len(layers[0].gradients))
        ]
