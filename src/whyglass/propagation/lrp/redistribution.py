"""How one operation shares relevance out: a rule applied to its operands, weights and sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.linear_operations import (
    per_channel,
    scale_output_channels,
    unbiased,
)
from whyglass.propagation.lrp.rules import (
    PROPORTIONAL,
    Flow,
    Part,
    Rule,
    falls,
    raised,
    rises,
    same,
)

SIZES = Flow(((torch.abs, torch.abs),))


class Passed(torch.autograd.Function):
    """y as it is; backwards relevance, as a step passes it to its operands.

    After the last target's the step goes: memory used again is much faster than fresh memory.
    """

    @staticmethod
    def forward(ctx: Any, step: Step, y: Tensor, *operands: Tensor) -> Tensor:
        ctx.step, ctx.passed = step, 0
        return y

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        step: Step = ctx.step
        ctx.passed += 1
        if ctx.passed == step.owner.targets:
            ctx.step = None
        return None, None, *step.back(relevance[0])


class Seed(torch.autograd.Function):
    """The scores as they are; backwards the relevance to begin with, which is the score."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0] * ctx.saved_tensors[0]


class Owner(Protocol):
    """The pass that a step belongs to, for so many targets."""

    targets: int

    def rule(self, step: Step) -> Rule:
        """The rule of a step."""
        ...

    def tell(self, step: Step, relevance: Tensor, found: tuple[Tensor, ...]) -> None:
        """What came to a step, and what it passed on."""
        ...


@dataclass(eq=False)
class Step:
    """One operation on its operands, and z, what they add up to.

    `operands` hang in the network's graph, `values` are cut from it, and `z` is a graph of its own over
    the values. The output is y = scale * z + shift, `scale` being that of a batch norm joined to the
    weights; `bias` is the shift where it shares. `share` is what each operand gets of the relevance.
    `arrived` holds what came, what was passed on and what was lost, if the pass is to keep them.
    `signs` are those with which a sum takes its operands; other operations without weights have none.
    """

    owner: Owner
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
    arrived: list[tuple[Tensor, tuple[Tensor, ...], float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return f"{self.call.op} of layer {self.call.layer!r}" if self.call.layer else self.call.op

    def back(self, relevance: Tensor) -> tuple[Tensor, ...]:
        """The relevance of each operand."""
        found = self.shares(self.owner.rule(self).flows(), relevance)
        self.owner.tell(self, relevance, found)
        return found

    def shares(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """The same by these flows, without telling."""
        flow = flows[0]
        if len(flows) > 1:
            return self._two_sided(flows, relevance)
        if flow.agree:
            return self._agreeing(flow, relevance)
        if flow.pairs is PROPORTIONAL:
            return self._passed(self._divided(flow, relevance, self._total()))
        terms = _Terms(self, flow)
        return terms.passed(self._divided(flow, relevance, terms.z))

    def _passed(self, over: Tensor) -> tuple[Tensor, ...]:
        """x W^T over: the operation's own gradient."""
        if self.scale is not None:
            over = over.mul_(per_channel(self.scale, over))
        slopes = torch.autograd.grad(self.z, self.values, over, retain_graph=True)
        if self.weight is not None:
            # The gradient of a weighted operation is new memory, that of a sum may be `over` itself.
            return (slopes[0].mul_(self.values[0].detach()),)
        found = zip(self.values, slopes, strict=True)
        return tuple(value.detach() * slope * self.share for value, slope in found)

    def _agreeing(self, flow: Flow, relevance: Tensor) -> tuple[Tensor, ...]:
        """Terms t of the sign of their sum count 1 + agree times.

        Up to a factor they are |t| with the sign of the sum, and (1 + 2 / agree) t.
        """
        total, plainly = self._total(), 1 + 2 / flow.agree
        rising = self._rising(total, relevance)
        if rising and self.nonnegative:
            one_sided = replace(flow, pairs=((same, raised(flow.agree)),), agree=0.0)
            return self.shares([one_sided], relevance)
        sizes = _Terms(self, SIZES)
        near = sizes.z.add_(2 * flow.epsilon / flow.agree)
        z = near.copysign_(total).add_(total, alpha=plainly)
        over = self._divided(replace(flow, epsilon=0.0), relevance, z)
        signed = over if rising else over.copysign(relevance)
        return self._added(sizes.passed(signed), self._passed(over), plainly)

    def _rising(self, total: Tensor, relevance: Tensor) -> bool:
        """Whether only outputs that are not negative have relevance, as those of a ReLU."""
        some = (..., slice(1))
        return not any(
            bool(((t < 0) & (r != 0)).any())
            for t, r in ((total[some], relevance[some]), (total, relevance))
        )

    def _two_sided(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """Positive and negative terms apart; a side without terms leaves its share to the other."""
        one, other = flows
        first = _Terms(self, one)
        if not other.share:
            over = torch.div(relevance, first.z, out=first.z)
            # Mostly relevance is nothing, too, where there are no terms: 0 / 0.
            if math.isfinite(over.sum()) or math.isfinite(_without_nan(over).sum()):
                return first.passed(over)
            nothing = over.isinf()
            found = first.passed(over.masked_fill_(nothing, 0))
            left = relevance * nothing
            # Where one side has no terms, the terms as they are are those of the other.
            return self._added(found, self._passed(self._divided(other, left, self._total())))
        second = _Terms(self, other)
        mine, rest = relevance * one.share, relevance * other.share
        over = mine + rest.where(second.z == 0, 0)
        left = rest + mine.where(first.z == 0, 0)
        found = first.passed(self._divided(one, over, first.z))
        return self._added(found, second.passed(self._divided(other, left, second.z)))

    def _added(
        self, one: tuple[Tensor, ...], other: tuple[Tensor, ...], times: float = 1.0
    ) -> tuple[Tensor, ...]:
        """So many times the second into the first: products with the operands, new memory."""
        return tuple(a.add_(b, alpha=times) for a, b in zip(one, other, strict=True))

    def summed(self, operands: Sequence[Tensor]) -> Tensor:
        """A sum of other operands."""
        return self.call.run(dict(zip(self.call.operands, operands, strict=True)))

    def part(self, change: Part) -> Tensor | None:
        """The input changed, or None if nothing of it is left."""
        x = self.values[0].detach()
        if change in (rises, falls, torch.abs) and self.nonnegative:
            return None if change is falls else x
        return change(x)

    @cached_property
    def nonnegative(self) -> bool:
        """Whether no operand is negative, nor taken away."""
        signs = self.signs or ()
        return all(sign > 0 for sign in signs) and all(
            bool(value.detach().amin() >= 0) for value in self.values
        )

    def _total(self) -> Tensor:
        """What the terms add up to, with the bias if it shares."""
        if self.shift is None or self.bias is not None:
            return self.y
        z = self.z.detach()
        return z if self.scale is None else z * per_channel(self.scale, z)

    def _divided(self, flow: Flow, relevance: Tensor, z: Tensor) -> Tensor:
        """R / z, zero where z is."""
        if flow.epsilon:
            near = torch.full((), flow.epsilon, dtype=z.dtype, device=z.device)
            near = z + near if flow.plain else torch.copysign(near, z).add_(z)
            return torch.div(relevance, near, out=near)
        over = relevance / z
        if math.isfinite(over.sum()) or math.isfinite(_without_nan(over).sum()):
            return over
        nothing = z == 0
        if flow.strict and bool((nothing & (relevance != 0)).any()):
            raise BadInput(
                f"LRP divides relevance by zero in {self.name}: the contributions of its inputs add "
                "up to nothing there, so they have no shares; give the rule an epsilon, for example "
                "rule=Epsilon(epsilon=1e-6)"
            )
        return over.masked_fill_(nothing, 0)


def _without_nan(tensor: Tensor) -> Tensor:
    return tensor.nan_to_num_(0.0, math.inf, -math.inf)


class _Terms:
    """The pairs of a flow at a step: their graphs, and z, their sum with the bias if it shares."""

    def __init__(self, step: Step, flow: Flow) -> None:
        self._inputs: list[Tensor] = []
        self._terms: list[Tensor] = []
        self._step = step
        if step.weight is None:
            self._add(step, flow)
        else:
            self._weigh(step, flow, step.weight)
        parts = [term.detach() for term in self._terms]
        cancels = len(parts) > 1 and flow.pairs[0][0] is same
        size = sum(part.abs() for part in parts) if cancels else None
        self.z = parts[0] if parts else torch.zeros_like(step.y)
        for part in parts[1:]:
            self.z += part
        if size is not None:
            # The other parts take away from the whole: what rounding leaves of it is nothing.
            self.z[self.z.abs() <= 8 * torch.finfo(self.z.dtype).eps * size] = 0
        if step.bias is not None and flow.biased:
            one = torch.ones((), dtype=step.y.dtype, device=step.y.device)
            for change, weigh in flow.pairs:
                self.z += change(one) * weigh(step.bias)

    def _add(self, step: Step, flow: Flow) -> None:
        """A sum: the weights are the signs of its operands."""
        assert step.signs is not None
        ((change, weigh),) = flow.pairs
        for value, sign in zip(step.values, step.signs, strict=True):
            x = value.detach()
            weight = torch.full((), float(sign), dtype=x.dtype, device=x.device)
            self._inputs.append((change(x) * weigh(weight) * sign).requires_grad_())
        with torch.enable_grad():
            self._terms.append(step.summed(self._inputs))

    def _weigh(self, step: Step, flow: Flow, weight: int) -> None:
        """A weighted operation on one operand: a term a pair."""
        w = scale_output_channels(step.call.leaves[weight].detach(), step.scale)
        for change, weigh in flow.pairs:
            u = step.part(change)
            if u is None:
                continue
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                self._terms.append(unbiased(step.call, {step.call.operands[0]: u}, weigh(w)))
            self._inputs.append(u)

    def passed(self, over: Tensor) -> tuple[Tensor, ...]:
        """sum_p u_p v_p^T over, an operand each."""
        if not self._terms:
            return (torch.zeros_like(self._step.values[0]),)
        slopes = torch.autograd.grad(self._terms, self._inputs, [over] * len(self._terms))
        if self._step.weight is None:
            return tuple(slope * u.detach() for u, slope in zip(self._inputs, slopes, strict=True))
        found = slopes[0].mul_(self._inputs[0].detach())
        for u, slope in zip(self._inputs[1:], slopes[1:], strict=True):
            found.addcmul_(u.detach(), slope)
        return (found,)


class FirstOrder(Step):
    """The terms of first order of any operation, where its operands are finite."""

    def shares(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        over = torch.where(self.y == 0, 0.0, relevance / torch.where(self.y == 0, 1.0, self.y))
        slopes = torch.autograd.grad(self.z, self.values, over, retain_graph=True)
        return tuple(
            torch.where(value.isfinite(), value.detach() * slope, 0.0)
            for value, slope in zip(self.values, slopes, strict=True)
        )
