"""How one operation shares relevance out: a rule applied to its operands, weights and sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from whyglass.errors import BadInput
from whyglass.propagation.calls import Call
from whyglass.propagation.lrp_rules import PROPORTIONAL, Flow, Part, Rule, falls, rises, same
from whyglass.propagation.weighted import along, scaled, unbiased


class Passed(torch.autograd.Function):
    """y as it is; backwards relevance, as a step passes it to its operands."""

    @staticmethod
    def forward(ctx: Any, step: Step, y: Tensor, *operands: Tensor) -> Tensor:
        ctx.step = step
        return y

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *ctx.step.back(relevance[0])


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
    """The pass that a step belongs to."""

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
    arrived: list[tuple[Tensor, tuple[Tensor, ...]]] = field(default_factory=list)

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
        if flows[0].pairs is PROPORTIONAL:
            return self._proportional(flows[0], relevance)
        if flows[0].outputs == "all" and len(flows) > 1:
            return self._two_sided(flows, relevance)
        return self._by_sign(flows, relevance)

    def _proportional(self, flow: Flow, relevance: Tensor) -> tuple[Tensor, ...]:
        """The terms as they are: the operation's own gradient."""
        return self._passed(self._divided(flow, relevance, self._total()))

    def _passed(self, over: Tensor) -> tuple[Tensor, ...]:
        """x W^T over."""
        if self.scale is not None:
            over = over.mul_(along(self.scale, over))
        slopes = torch.autograd.grad(self.z, self.values, over, retain_graph=True)
        if self.weight is not None:
            # The gradient of a weighted operation is new memory, that of a sum may be `over` itself.
            return (slopes[0].mul_(self.values[0].detach()),)
        found = zip(self.values, slopes, strict=True)
        return tuple(value.detach() * slope * self.share for value, slope in found)

    def _two_sided(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """Positive and negative terms apart; a side without terms leaves its share to the other."""
        one, other = flows
        first = _Terms(self, one)
        over = relevance if one.share == 1 else relevance * one.share
        if not other.share:
            found = first.passed(self._divided(one, over, first.z))
            if _one_sided(first.z) or _is_zero(left := over.where(first.z == 0, 0)):
                return found
            # Where one side has no terms, the terms as they are are those of the other.
            return _added(found, self._passed(self._divided(other, left, self._total())))
        left = over.where(first.z == 0, 0)
        second = _Terms(self, other)
        rest = relevance * other.share
        over = over + rest.where(second.z == 0, 0)
        found = first.passed(self._divided(one, over, first.z))
        return _added(found, second.passed(self._divided(other, rest + left, second.z)))

    def _by_sign(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        """Each flow for the outputs that it serves."""
        found = tuple(torch.zeros_like(value) for value in self.values)
        for flow in flows:
            mine = relevance
            if flow.outputs != "all":
                total = self._total()
                served = total > 0 if flow.outputs == "positive" else total <= 0
                mine = relevance.where(served, 0)
                if _is_zero(mine):
                    continue
            terms = _Terms(self, flow)
            found = _added(found, terms.passed(self._divided(flow, mine, terms.z)))
        return found

    def summed(self, operands: Sequence[Tensor]) -> Tensor:
        """A sum of other operands."""
        found = {
            place: operand
            for mine, operand in zip(self.operands, operands, strict=True)
            for place in self.call.operands
            if self.call.leaves[place] is mine
        }
        return self.call.run(found)

    def part(self, change: Part) -> Tensor | None:
        """The input changed, or None if nothing of it is left."""
        x = self.values[0].detach()
        if change in (rises, falls) and bool(x.amin() >= 0):
            return x if change is rises else None
        return change(x)

    def _total(self) -> Tensor:
        """What the terms add up to, with the bias if it shares."""
        if self.shift is None or self.bias is not None:
            return self.y
        z = self.z.detach()
        return z if self.scale is None else z * along(self.scale, z)

    def _divided(self, flow: Flow, relevance: Tensor, z: Tensor) -> Tensor:
        """R / z, zero where z is."""
        if flow.epsilon:
            near = torch.full((), flow.epsilon, dtype=z.dtype, device=z.device)
            near = z + near if flow.plain else torch.copysign(near, z).add_(z)
            return torch.div(relevance, near, out=near)
        over = relevance / z
        if math.isfinite(over.sum()):
            return over
        nothing = z == 0
        if flow.strict and bool((nothing & (relevance != 0)).any()):
            raise BadInput(
                f"LRP divides relevance by zero in {self.name}: the contributions of its inputs add "
                "up to nothing there, so they have no shares; give the rule an epsilon, for example "
                "rule=Epsilon(epsilon=1e-6)"
            )
        return over.masked_fill_(nothing, 0)


def _one_sided(tensor: Tensor) -> bool:
    """Whether it is all positive or all negative: quicker than to look for zeros."""
    low, high = tensor.aminmax()
    return bool(low > 0) or bool(high < 0)


def _is_zero(tensor: Tensor) -> bool:
    low, high = tensor.aminmax()
    return bool(low == 0) and bool(high == 0)


def _added(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(a + b for a, b in zip(one, other, strict=True))


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
        self.z = sum(parts[1:], parts[0]) if parts else torch.zeros_like(step.y)
        if len(parts) > 1 and flow.pairs[0][0] is same:
            # The other parts take away from the whole: what rounding leaves of it is nothing.
            size = torch.stack(parts).abs().sum(0)
            self.z[self.z.abs() <= 8 * torch.finfo(self.z.dtype).eps * size] = 0
        if step.bias is not None and flow.biased:
            one = torch.ones((), dtype=step.y.dtype, device=step.y.device)
            for change, weigh in flow.pairs:
                self.z = self.z + change(one) * weigh(step.bias)

    def _add(self, step: Step, flow: Flow) -> None:
        """A sum: the weights are the signs of its operands, all the pairs one term."""
        assert step.signs is not None
        for value, sign in zip(step.values, step.signs, strict=True):
            x = value.detach()
            weight = torch.full((), float(sign), dtype=x.dtype, device=x.device)
            pairs = [change(x) * weigh(weight) for change, weigh in flow.pairs]
            self._inputs.append(torch.stack(pairs).sum(0).mul_(sign).requires_grad_())
        with torch.enable_grad():
            self._terms.append(step.summed(self._inputs))

    def _weigh(self, step: Step, flow: Flow, weight: int) -> None:
        """A weighted operation on one operand: a term a pair."""
        w = scaled(step.call.leaves[weight].detach(), step.scale)
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
        found = [slope * u.detach() for u, slope in zip(self._inputs, slopes, strict=True)]
        return tuple(found) if self._step.weight is None else (sum(found[1:], found[0]),)


class FirstOrder(Step):
    """The terms of first order of any operation, where its operands are finite."""

    def shares(self, flows: Sequence[Flow], relevance: Tensor) -> tuple[Tensor, ...]:
        over = torch.where(self.y == 0, 0.0, relevance / torch.where(self.y == 0, 1.0, self.y))
        slopes = torch.autograd.grad(self.z, self.values, over, retain_graph=True)
        return tuple(
            torch.where(value.isfinite(), value.detach() * slope, 0.0)
            for value, slope in zip(self.values, slopes, strict=True)
        )
