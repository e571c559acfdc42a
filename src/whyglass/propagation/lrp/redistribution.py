"""How one operation redistributes relevance: a rule applied to its operands, weights and sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.linear_operations import per_channel
from whyglass.propagation.lrp.rules import (
    PROPORTIONAL,
    Flow,
    Rule,
    Transform,
    boosted,
    identity,
    negative_part,
    positive_part,
)
from whyglass.propagation.lrp.terms import Terms

ABSOLUTE_TERMS = Flow(((torch.abs, torch.abs),))


class Rules(Protocol):
    """The backward pass that a redistribution belongs to, for a number of targets."""

    targets: int

    def rule(self, operation: Redistribution) -> Rule:
        """The rule of an operation."""
        ...

    def record_relevance(
        self, operation: Redistribution, output: Tensor, operands: tuple[Tensor, ...]
    ) -> None:
        """Note the relevance of an operation's output, and what its operands got of it."""
        ...


class Passage(NamedTuple):
    """Relevance that passed an operation for one target: of its output, of its operands, and lost."""

    output: Tensor
    operands: tuple[Tensor, ...]
    absorbed: float


@dataclass(eq=False)
class Redistribution:
    """One operation on its operands, its sum z, and the redistribution of relevance through it.

    `operands` belong to the network's graph, `values` are detached copies, and `z` has a graph of its
    own over the values. The output is y = scale * z + shift. `scale` is that of a batch norm joined to
    the weights, and `bias` is the shift where the bias shares. Each operand gets `share` of the
    relevance. `weight` is the position of the weights. `signs` are those with which a sum takes its
    operands; other operations without weights have none. `passages` holds the relevance that passed,
    if the pass keeps it.
    """

    rules: Rules
    call: Call
    operands: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    z: Tensor
    y: Tensor
    shift: Tensor | None = None
    share: float = 1.0
    bias: Tensor | None = None
    depth: int = 0
    scale: Tensor | None = None
    weight: int | None = None
    signs: tuple[int, ...] | None = None
    passages: list[Passage] = field(default_factory=list[Passage])

    @property
    def name(self) -> str:
        """The operation's name in messages."""
        return f"{self.call.op} of layer {self.call.layer!r}" if self.call.layer else self.call.op

    def pass_back(self, relevance: Tensor) -> tuple[Tensor, ...]:
        """The relevance of each operand, recorded by the pass."""
        operands = self.by_flows(self.rules.rule(self).flows(), relevance)
        self.rules.record_relevance(self, relevance, operands)
        return operands

    def by_flows(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """The relevance of each operand by these flows."""
        flow = flows[0]
        if len(flows) > 1:
            return self._by_sign(flows, relevance)
        if flow.agree:
            return self._by_agreement(flow, relevance)
        if flow.pairs is PROPORTIONAL:
            return self._proportional(self._quotient(flow, relevance, self._total()))
        terms = Terms(self, flow)
        return terms.pass_back(self._quotient(flow, relevance, terms.z))

    def _proportional(self, quotient: Tensor) -> tuple[Tensor, ...]:
        """x W^T (R / z), by the operation's own gradient."""
        if self.scale is not None:
            quotient = quotient.mul_(per_channel(self.scale, quotient))
        slopes = torch.autograd.grad(self.z, self.values, quotient, retain_graph=True)
        if self.weight is not None:
            # The gradient of a weighted operation is new memory, that of a sum may be `quotient`.
            return (slopes[0].mul_(self.values[0].detach()),)
        pairs = zip(self.values, slopes, strict=True)
        return tuple(value.detach() * slope * self.share for value, slope in pairs)

    def _by_agreement(self, flow: Flow, relevance: Tensor) -> tuple[Tensor, ...]:
        """Terms t of the sign of their sum count 1 + agree times.

        Up to a factor that is |t| with the sign of the sum, plus (1 + 2 / agree) t.
        """
        total, times = self._total(), 1 + 2 / flow.agree
        nonnegative_outputs = self._relevance_at_nonnegative_outputs(total, relevance)
        if nonnegative_outputs and self.nonnegative:
            one_sided = replace(flow, pairs=((identity, boosted(flow.agree)),), agree=0.0)
            return self.by_flows([one_sided], relevance)
        absolute = Terms(self, ABSOLUTE_TERMS)
        z = absolute.z.add_(2 * flow.epsilon / flow.agree)
        z = z.copysign_(total).add_(total, alpha=times)
        quotient = self._quotient(replace(flow, epsilon=0.0), relevance, z)
        signed = quotient if nonnegative_outputs else quotient.copysign(relevance)
        return _add(absolute.pass_back(signed), self._proportional(quotient), times)

    def _relevance_at_nonnegative_outputs(self, total: Tensor, relevance: Tensor) -> bool:
        """Whether only outputs that are not negative have relevance, as those of a ReLU."""
        first = (..., slice(1)) if total.dim() else ...
        return not any(
            bool(((t < 0) & (r != 0)).any())
            for t, r in ((total[first], relevance[first]), (total, relevance))
        )

    def _by_sign(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """Positive and negative terms apart; a side without terms leaves its share to the other."""
        one, other = flows
        first = Terms(self, one)
        if not other.share:
            return self._by_one_sign(first, other, relevance)
        second = Terms(self, other)
        of_first, of_second = relevance * one.share, relevance * other.share
        to_first = of_first + of_second.where(second.z == 0, 0)
        to_second = of_second + of_first.where(first.z == 0, 0)
        return _add(
            first.pass_back(self._quotient(one, to_first, first.z)),
            second.pass_back(self._quotient(other, to_second, second.z)),
        )

    def _by_one_sign(self, terms: Terms, other: Flow, relevance: Tensor) -> tuple[Tensor, ...]:
        """Terms of one sign alone; an output that has none leaves its relevance to the others."""
        quotient = torch.div(relevance, terms.z, out=terms.z)
        if _finite(quotient):
            return terms.pass_back(quotient)
        no_terms = quotient.isinf()
        passed = terms.pass_back(quotient.masked_fill_(no_terms, 0))
        # An output without terms of one sign has terms of the other sign only.
        rest = self._quotient(other, relevance * no_terms, self._total())
        return _add(passed, self._proportional(rest))

    def sum_of(self, operands: Sequence[Tensor]) -> Tensor:
        """The operation on other operands."""
        return self.call.run(dict(zip(self.call.operands, operands, strict=True)))

    def transformed(self, transform: Transform) -> Tensor | None:
        """The operand transformed, or None if that is zero everywhere."""
        x = self.values[0].detach()
        if transform in (positive_part, negative_part, torch.abs) and self.nonnegative:
            return None if transform is negative_part else x
        return transform(x)

    @cached_property
    def nonnegative(self) -> bool:
        """Whether no operand is negative, nor subtracted."""
        signs = self.signs or ()
        return all(sign > 0 for sign in signs) and all(
            bool(value.detach().amin() >= 0) for value in self.values
        )

    def _total(self) -> Tensor:
        """The sum of the terms, with the bias where the bias shares."""
        if self.shift is None or self.bias is not None:
            return self.y
        z = self.z.detach()
        return z if self.scale is None else z * per_channel(self.scale, z)

    def _quotient(self, flow: Flow, relevance: Tensor, z: Tensor) -> Tensor:
        """R / z, zero where z is zero."""
        if flow.epsilon:
            epsilon = torch.full((), flow.epsilon, dtype=z.dtype, device=z.device)
            z = z + epsilon if flow.plain else torch.copysign(epsilon, z).add_(z)
            return torch.div(relevance, z, out=z)
        quotient = relevance / z
        if _finite(quotient):
            return quotient
        zero = z == 0
        if flow.strict and bool((zero & (relevance != 0)).any()):
            raise BadInput(
                f"LRP divides relevance by zero in {self.name}: the contributions of its inputs add "
                'up to nothing there, so they have no shares; take bias="share", where the bias has a '
                'share, or rule="gamma", which leaves such relevance out and states how much'
            )
        return quotient.masked_fill_(zero, 0)


class FirstOrder(Redistribution):
    """An operation that passes relevance by the first-order terms of its expansion."""

    def by_flows(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        quotient = torch.where(self.y == 0, 0.0, relevance / torch.where(self.y == 0, 1.0, self.y))
        slopes = torch.autograd.grad(self.z, self.values, quotient, retain_graph=True)
        return tuple(
            torch.where(value.isfinite(), value.detach() * slope, 0.0)
            for value, slope in zip(self.values, slopes, strict=True)
        )


def _finite(quotient: Tensor) -> bool:
    """Whether no relevance was divided by zero; 0 / 0 becomes 0 in place."""
    return math.isfinite(quotient.sum()) or math.isfinite(
        quotient.nan_to_num_(0.0, math.inf, -math.inf).sum()
    )


def _add(
    one: tuple[Tensor, ...], other: tuple[Tensor, ...], times: float = 1.0
) -> tuple[Tensor, ...]:
    """one + times * other, written into the first."""
    return tuple(a.add_(b, alpha=times) for a, b in zip(one, other, strict=True))
