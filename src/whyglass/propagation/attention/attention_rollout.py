"""Attention rollout: how tokens mix through all layers, whatever the target."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.calling_module import names_by_id
from whyglass.core.paper import Paper
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.propagation.attention.attention_method import AttentionMethod
from whyglass.propagation.attention.token_flow import TokenFlow
from whyglass.propagation.engine.passes import intercepted


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(AttentionMethod):
    r"""Attention multiplied through the layers, residual connections counted as identity.

    .. math:: R = \hat A_L \cdots \hat A_1, \quad \hat A_l = \tfrac{1}{2} (E_h A_l + I)

    The mean is over heads h. The same for every target: it shows where information can flow, not what
    the decision rests on. Units: none; a token's row sums to 1. Source: Abnar & Zuidema (2020),
    section 3.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> attend = lambda x: (x + torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.AttentionRollout()(attend, x).values[..., 0]
    tensor([[0.4373, 0.5627]])
    """

    name: ClassVar[str] = "attention-rollout"
    shows: ClassVar[str] = "From which tokens information can reach the answer, for any class."
    cost: ClassVar[str] = "1 gradient"
    adds_up: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        "Samira Abnar and Willem Zuidema",
        "Quantifying Attention Flow in Transformers",
        "ACL",
        2020,
        "https://arxiv.org/abs/2005.00928",
    )

    def flow(self, scorer: Scorer) -> tuple[Evaluated, list[TokenFlow]]:
        names = names_by_id(scorer.model)
        return intercepted(scorer, lambda _: TokenFlow(names, 0.5, lambda _n, _k, weights: weights))
