"""Attention rollout: how tokens mix through all layers, whatever the target."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.propagation.attention.attention_method import (
    AttentionLayer,
    AttentionMethod,
    layer_product,
)


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(AttentionMethod):
    r"""Attention multiplied through the layers, residual connections counted as identity.

    .. math:: R = \hat A_L \cdots \hat A_1, \quad \hat A_l = \tfrac{1}{2} (E_h A_l + I)

    The mean is over heads h. The same for every target: it shows where information can flow, not what
    the decision rests on. Units: none; a token's row sums to 1. Source: Abnar & Zuidema (2020),
    section 3.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> attend = lambda x: (torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.AttentionRollout()(attend, x).values[..., 0]
    tensor([[0.4373, 0.5627]])
    """

    name: ClassVar[str] = "attention-rollout"
    shows: ClassVar[str] = "From which tokens information can reach the answer, for any class."
    cost: ClassVar[str] = "1 gradient"
    paper: ClassVar[Paper] = Paper(
        "Samira Abnar and Willem Zuidema",
        "Quantifying Attention Flow in Transformers",
        "ACL",
        2020,
        "https://arxiv.org/abs/2005.00928",
    )

    def token_matrices(self, scorer: Scorer, layers: Sequence[AttentionLayer]) -> list[Tensor]:
        heads = [layer.weights.mean(1) for layer in layers]
        identity = torch.eye(heads[0].shape[-1], dtype=heads[0].dtype, device=heads[0].device)
        rollout = layer_product([(head + identity) / 2 for head in heads])
        return [rollout] * len(layers[0].gradients)
