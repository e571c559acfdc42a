"""Chefer et al.: attention weighed by its gradient and its relevance, for a class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from whyglass.core.calling_module import names_by_id
from whyglass.core.errors import BadInput
from whyglass.core.paper import Paper
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.propagation.attention.attention_method import AttentionMethod
from whyglass.propagation.attention.attention_weights import AttentionRecord, TargetMark
from whyglass.propagation.attention.token_flow import WAYS_OUT, TokenFlow
from whyglass.propagation.engine.calls import Call, Table
from whyglass.propagation.engine.decompositions.table import DECOMPOSITIONS
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.passes import intercepted, layers_of
from whyglass.propagation.lrp.composites import composite
from whyglass.propagation.lrp.relevance import Relevance

ATTENTION_CALLS = ("scaled_dot_product_attention", "multi_head_attention_forward")


class _Gradient(Propagation):
    """A pass of the plain gradient that records that of the attention weights."""

    def __init__(self) -> None:
        as_one_call: Mapping[str, None] = dict.fromkeys(set(DECOMPOSITIONS) - set(ATTENTION_CALLS))
        super().__init__(Table(None, None, by_name=as_one_call, total=True), with_baseline=False)
        self.record = AttentionRecord(self.per_tensor())

    def end(self, scores: Tensor) -> Tensor:
        return TargetMark.apply(scores, self.record.begin_target, 1.0)

    def after_call(self, call: Call, result: Any) -> None:
        self.record.follow(call, result)


class _Relevance(Relevance):
    """A pass of LRP that records the relevance of the attention weights."""

    ways_out: ClassVar[str] = f"attention-rollout, which needs no rule there; or {WAYS_OUT}"

    def __init__(self, layers: dict[int, str]) -> None:
        super().__init__(composite("z-plus"), "share", "half", "error", layers)
        self.record = AttentionRecord(self.per_tensor())

    def end(self, scores: Tensor) -> Tensor:
        return TargetMark.apply(super().end(scores), self.record.begin_target, 1.0)

    def after_call(self, call: Call, result: Any) -> None:
        super().after_call(call, result)
        self.record.follow(call, result)


_Records: TypeAlias = dict[tuple[int, int], AttentionRecord]


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
    >>> attend = lambda x: (x + torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.Chefer()(attend, x).values[..., 0]
    tensor([[0.6873, 1.7510]])
    """

    name: ClassVar[str] = "chefer"
    shows: ClassVar[str] = "Which tokens the answer rests on, by what attention did for the class."
    cost: ClassVar[str] = "3 gradients"
    paper: ClassVar[Paper] = Paper(
        "Hila Chefer, Shir Gur and Lior Wolf",
        "Transformer Interpretability Beyond Attention Visualization",
        "CVPR",
        2021,
        "https://arxiv.org/abs/2012.09838",
    )

    def flow(self, scorer: Scorer) -> tuple[Evaluated, list[TokenFlow]]:
        gradients, relevances = self.records(scorer)
        names = names_by_id(scorer.model)

        def pass_of(piece: slice) -> TokenFlow:
            gradient, relevance = gradients.get(_key(piece)), relevances.get(_key(piece))
            if gradient is None or relevance is None:
                raise _out_of_step()

            def matrix(attention: int, target: int, weights: Tensor) -> Tensor:
                factors = [r.arrived.get((attention, target)) for r in (gradient, relevance)]
                if factors[0] is None or factors[1] is None:
                    return weights * 0
                return (factors[0].to(weights.dtype) * factors[1].to(weights.dtype)).clamp_min(0)

            return TokenFlow(names, 1.0, matrix)

        return intercepted(scorer, pass_of)

    def records(self, scorer: Scorer) -> tuple[_Records, _Records]:
        """Gradient and relevance of all attention weights, by the same pieces of the batch."""
        layers = layers_of(scorer.model)
        relevances: _Records = {}
        # The first pass may measure how many rows fit, so that the next takes other pieces.
        for _ in range(3):
            gradients = _recorded(scorer, _Gradient)
            if gradients.keys() == relevances.keys():
                return gradients, relevances
            relevances = _recorded(scorer, lambda: _Relevance(layers))
            if gradients.keys() == relevances.keys():
                return gradients, relevances
        raise _out_of_step()


def _recorded(scorer: Scorer, make: Callable[[], _Gradient | _Relevance]) -> _Records:
    """The records of one pass over the batch, by the start and the end of each piece."""
    records: _Records = {}

    def pass_of(piece: slice) -> _Gradient | _Relevance:
        made = make()
        records[_key(piece)] = made.record
        return made

    intercepted(scorer, pass_of)
    return records


def _key(piece: slice) -> tuple[int, int]:
    return piece.start, piece.stop


def _out_of_step() -> BadInput:
    return BadInput(
        "memory ran out between the passes of chefer: say how many rows fit with batch_size="
    )
