"""Base class of the methods that read attention: from the score back to the tokens of the input."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Structure
from whyglass.core.method import Attribution, Method, Need
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.propagation.attention.token_flow import WAYS_OUT, TokenFlow
from whyglass.propagation.attention.token_inputs import TokenInputs

FLAT = "no token's attention passes the threshold for the target"


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Method):
    """Abstract base of the methods that weigh tokens by the attention between them.

    A subclass states `flow`: the flow from the score to each entry of the input. Its sum over channels
    is the value of a token: (B, T) for token ids, which need no `at=`, (B, T, 1) for sequences of
    vectors, (B, 1, H, W) for images, whose patches share their value out to their pixels. Where the
    network reads several inputs, values have their form; masks, token types and positions are held.
    """

    family: ClassVar[str] = "propagation"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "attention")
    data: ClassVar[tuple[str, ...]] = ("images", "text")
    # Whether the flow from a score adds up to 1, over the input and what the network adds to it.
    adds_up: ClassVar[bool] = False

    @abstractmethod
    def flow(self, scorer: Scorer) -> tuple[Evaluated, list[TokenFlow]]:
        """The flow to the points of the scorer, in the place of gradients, and its passes."""

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        tokens: TokenInputs | None = None
        if scorer.layer is None:
            tokens = TokenInputs(scorer.inputs, scorer.input_structure)
            scorer.layer = tokens
        here, passes = self.flow(scorer)
        attentions: set[int] = set().union(*(each.reached for each in passes))
        if not attentions:
            raise BadInput(
                "the score depends on no attention between tokens: this method needs a transformer "
                f"with attention by softmax; {WAYS_OUT}"
            )
        parts: list[Tensor] = []
        for index, leaf in enumerate(here.gradients):
            flow = leaf / passes[0].start
            ids = (
                tokens is not None and not scorer.inputs[tokens.sources[index]].is_floating_point()
            )
            parts.append(flow.sum(2) if ids else _per_token(flow, flow.dim() - scorer.many))
        notes = [f"{len(attentions)} attention layers"]
        share = float(sum(part.sum() for part in parts)) / here.scores.numel()
        if self.adds_up and share < 0.999:
            notes.append(
                f"{share:.0%} of the attention ends in the input, the rest in what the network adds to "
                "it (class token, padding)"
            )
        structure = Structure()
        values = (parts[0],)
        if tokens is not None:
            scorer.layer = None
            values, structure = _by_input(scorer, tokens, parts)
            held = [i for i in range(len(scorer.inputs)) if i not in tokens.sources]
            notes += [f"{scorer.input_structure.label(i)} is held, not explained" for i in held]
        return Attribution(
            values,
            here.scores,
            checks=(not_flat(values, scorer.many, FLAT),),
            notes=notes,
            structure=structure,
        )


def _per_token(flow: Tensor, dims: int) -> Tensor:
    """The flow to an input or a layer of so many axes, summed over its channels."""
    return flow if dims < 3 else flow.sum(_channel_axis(flow, dims), keepdim=True)


def _channel_axis(flow: Tensor, dims: int) -> int:
    """The axis of channels: all channels of a token have the same flow.

    Sequences have them last, or first like signals and spectrograms; images first; videos first or
    behind the frames.
    """
    usual = {3: (2, 1), 5: (1, 2)}.get(dims, (1,))
    equal = [axis for axis in usual if _is_constant(flow, axis)]
    return equal[0] if equal else usual[0]


def _is_constant(flow: Tensor, axis: int) -> bool:
    spread = flow.amax(axis) - flow.amin(axis)
    return bool(spread.amax() <= 1e-3 * flow.abs().amax())


def _by_input(
    scorer: Scorer, tokens: TokenInputs, parts: list[Tensor]
) -> tuple[tuple[Tensor, ...], Structure]:
    """Values of the one input that any flow reaches, or of all inputs in their form."""
    values: dict[int, Tensor] = {}
    for source, part in zip(tokens.sources, parts, strict=True):
        values[source] = values[source] + part if source in values else part
    reached = [source for source in values if bool(values[source].any())] or list(values)[:1]
    if len(reached) == 1:
        return (values[reached[0]],), Structure()
    tail = (len(scorer.target.terms),) if scorer.many else ()
    zeros = [
        torch.zeros(*leaf.shape, *tail, dtype=parts[0].dtype, device=leaf.device)
        for leaf in scorer.inputs
    ]
    packed = tuple(values.get(index, zero) for index, zero in enumerate(zeros))
    return packed, scorer.input_structure
