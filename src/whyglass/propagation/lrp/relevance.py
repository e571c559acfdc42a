"""Relevance through a network: what every method of the LRP family shares.

Backwards each tensor carries its relevance R, not a gradient. Moving and copying numbers passes R as
torch's own backward pass does; a function of one number hands R to that number; weighted operations
follow the composite's rules, sums its rule for sums, and products are split by `Products`:

- "signal": a factor made by a sigmoid or a softmax is a gate, and the other one takes all;
- "half": both take half.

In a norm the spread counts as a constant, a division gives all to the numerator, softmax takes the
first-order terms of its expansion. Batch norm after a weighted operation is joined to it: the rule
sees their product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.propagation.engine.arguments import leaves_of
from whyglass.propagation.engine.calls import Call, Policy, StraightThrough, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.linear_operations import (
    bias_of,
    norm_scale,
    norm_shift,
    per_channel,
    scales_output_channels,
    unbiased,
    weight_position,
)
from whyglass.propagation.engine.operations import ADDITIVE, MAX_POOLS, STRUCTURAL
from whyglass.propagation.lrp.composites import SUMS, Composite
from whyglass.propagation.lrp.normalisation import NORMS
from whyglass.propagation.lrp.redistribution import FirstOrder, Passed, Seed, Step
from whyglass.propagation.lrp.rules import Gamma, Rule

Products = Literal["signal", "half"]
Bias = Literal["ignore", "share"]

GATES = frozenset({"sigmoid", "hardsigmoid", "softmax"})
NORMALISERS = frozenset({"reciprocal", "rsqrt"})
# With a constant these leave a gate a gate: 1 - sigmoid(x).
AFFINE = ADDITIVE | {"mul", "multiply"}


def stays(call: Call) -> bool:
    """Whether a gate that goes in comes out as one: moved, or with constants."""
    return call.op in STRUCTURAL or (len(call.operands) == 1 and call.op in AFFINE)


class Relevance(Propagation):
    """A forward pass whose backward pass, one for each of so many `targets`, carries relevance.

    `steps` are those it took, if it is to keep them.
    """

    def __init__(
        self,
        composite: Composite,
        bias: Bias,
        products: Products,
        unsupported: Policy,
        layers: Mapping[int, str],
        keep: bool = False,
    ) -> None:
        first_order = ("softmax", "log_softmax", "logsumexp")
        adding = ("scatter_add", "index_add", "index_put")
        winner = ("maximum", "minimum", *MAX_POOLS)
        table = Table(
            elementwise=self._hand_over,
            bilinear=self._split,
            linear=self._weigh,
            additive=self._add,
            by_name={
                **dict.fromkeys(NORMS, self._norm),
                **dict.fromkeys(first_order, self._first_order),
                **dict.fromkeys(adding, self._sum),
                **dict.fromkeys(winner),
                **dict.fromkeys(("mul", "multiply"), self._multiply),
                "batch_norm": self._batch_norm,
                "quotient": self._hand_over,
            },
            accepted=self._first_order,
        )
        super().__init__(table, with_baseline=False, unsupported=unsupported, layers=layers)
        self._composite, self._bias, self._products, self._keep = composite, bias, products, keep
        self._depth: dict[int, int] = self.per_tensor()
        self._gates: dict[int, bool] = self.per_tensor()
        self._made: dict[int, Step] = self.per_tensor()
        self._deepest = 1
        self.steps: list[Step] = []
        self.targets = 1
        self.absorbed: dict[str, float] = {}
        self.seeded = 0.0

    def end(self, scores: Tensor) -> Tensor:
        """Relevance begins as the score."""
        self.targets = scores[:1].numel()
        self.seeded += float(scores.detach().abs().sum())
        return Seed.apply(scores)

    def after_call(self, call: Call, result: Any) -> None:
        """How deep each tensor is, and whether it is a gate."""
        operands = [id(call.leaves[place]) for place in call.operands]
        depth = max((self._depth.get(operand, 0) for operand in operands), default=0)
        made = leaves_of(result)
        step = self._made.get(id(made[0]))
        if step is not None and step.weight is not None and step.call is call:
            depth += 1
            step.depth = depth
            self._deepest = max(self._deepest, depth)
        divisor = call.op == "quotient" and 0 not in call.operands
        gate = (
            divisor or call.op in NORMALISERS or (self._products == "signal" and call.op in GATES)
        )
        if not gate and stays(call):
            gate = any(operand in self._gates for operand in operands)
        for tensor in made:
            self._depth[id(tensor)] = depth
            if gate:
                self._gates[id(tensor)] = True

    def rule(self, step: Step) -> Rule:
        """The rule of a step: known once the whole network has run."""
        if step.weight is None:
            sums = self._composite.sums
            return sums if step.signs or not isinstance(sums, Gamma) else SUMS
        return self._composite.rule(step.call.op, step.call.layer, step.depth, self._deepest)

    def tell(self, step: Step, relevance: Tensor, found: tuple[Tensor, ...]) -> None:
        """Record what did not arrive, and all of it if it is to be kept."""
        lost = float(relevance.sum()) - sum(float(part.sum()) for part in found)
        if not math.isfinite(lost):
            raise BadInput(
                f"relevance grew beyond all bounds at {step.name}: its rule divides by sums near zero; "
                'take rule="gamma", which cannot, a larger epsilon, or bias="share"'
            )
        self.absorbed[step.name] = self.absorbed.get(step.name, 0.0) + lost
        if self._keep:
            step.arrived.append((relevance, found, lost))

    def _step(
        self,
        call: Call,
        places: Sequence[int],
        share: float = 1.0,
        weight: int | None = None,
        signs: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Run the operation on values cut from the graph, and hang the step in its place."""
        operands = tuple(call.leaves[place] for place in places)
        values = tuple(operand.detach().requires_grad_() for operand in operands)
        with torch.enable_grad():
            z = unbiased(call, dict(zip(places, values, strict=True)))
        y, bias = z.detach(), bias_of(call)
        share_out = self._bias == "share"
        if bias is not None:
            bias = per_channel(bias, y) if call.op.startswith("conv") else bias
            # Where the bias shares nobody asks for the sum without it.
            y = y.add_(bias) if share_out else y + bias
        shared = bias if share_out else None
        step = Step(self, call, operands, values, z, y, bias, share, shared)
        step.weight, step.signs = weight, signs
        return self._hang(step)

    def _hang(self, step: Step) -> Tensor:
        if self._keep:
            self.steps.append(step)
        result: Tensor = Passed.apply(step, step.y, *step.operands)
        self._made[id(result)] = step
        return result

    def _weigh(self, call: Call) -> Any:
        """Linear in its one operand: by the composite's rule if there are weights, else a sum."""
        weight = weight_position(call)
        return self._sum(call) if weight is None else self._step(call, call.operands, weight=weight)

    def _sum(self, call: Call) -> Any:
        """In shares, by the composite's rule for sums; one operand may count negative."""
        turned = {"rsub": 0, "index_add": 3}.get(call.op, 1)
        factor = call.arguments()[1].get("alpha", 1) * (-1 if call.op in {"sub", "rsub"} else 1)
        signs = tuple(-1 if place == turned and factor < 0 else 1 for place in call.operands)
        return self._step(call, call.operands, signs=signs)

    def _add(self, call: Call) -> Any:
        """A sum of two shares out; one tensor and a constant pass on, the constant being a bias."""
        if len(call.operands) > 1:
            return self._sum(call)
        if self._bias == "ignore" or call.op in {"neg", "negative"}:
            return self._hand_over(call)
        place = next(iter(call.operands))
        x = call.leaves[place]
        with torch.no_grad():
            y = call.run({place: x.detach()})
        values = (x.detach().requires_grad_(),)
        with torch.enable_grad():
            z = values[0].expand_as(y) * 1.0
        shift = y - z.detach()
        return self._hang(Step(self, call, (x,), values, z, y, shift, bias=shift))

    def _hand_over(self, call: Call) -> Any:
        """All relevance to the one operand or the numerator, summed where it was broadcast."""
        x = call.leaves[call.operands[0]]
        with torch.no_grad():
            y = call.run()
        return StraightThrough.apply(x if x.shape == y.shape else x.expand_as(y), y)

    def _multiply(self, call: Call) -> Any:
        if len(call.operands) > 1:
            return self._split(call)
        place = next(iter(call.operands))
        x = call.leaves[place]
        other = next(
            leaf
            for number, leaf in enumerate(call.leaves)
            if number != place and isinstance(leaf, Tensor | int | float)
        )
        with torch.no_grad():
            y = call.run({place: x.detach()})
        if isinstance(other, Tensor) and not other.all():
            # What is multiplied by zero is not used.
            return StraightThrough.apply(x * (other != 0), y)
        return StraightThrough.apply(x if x.shape == y.shape else x.expand_as(y), y)

    def _split(self, call: Call) -> Any:
        """A product of two: to the signal if the other is a gate, else half to each."""
        signals = [p for p in call.operands if id(call.leaves[p]) not in self._gates]
        if len(signals) == 1:
            return self._step(call, signals)
        return self._step(call, call.operands, share=0.5)

    def _first_order(self, call: Call) -> Any:
        """R_i = x_i sum_j (dy_j/dx_i) R_j / y_j, where x_i is finite."""
        operands = tuple(call.leaves[place] for place in call.operands)
        values = tuple(operand.detach().requires_grad_() for operand in operands)
        with torch.enable_grad():
            z = call.run(dict(zip(call.operands, values, strict=True)))
        if not isinstance(z, Tensor):
            # Several results: parts of the operand, moved.
            return call.run()
        return self._hang(FirstOrder(self, call, operands, values, z, z.detach()))

    def _norm(self, call: Call) -> Any:
        """The spread counts as a constant: R passes unchanged, or by terms if the bias shares."""
        if self._bias == "ignore":
            return self._hand_over(call)
        x = call.leaves[call.operands[0]]
        value = x.detach().requires_grad_()
        with torch.no_grad():
            y = call.run({call.operands[0]: x.detach()})
        with torch.enable_grad():
            z = NORMS[call.op](call, value)
        shift = y - z.detach()
        return self._hang(Step(self, call, (x,), (value,), z, y, shift, bias=shift))

    def _batch_norm(self, call: Call) -> Any:
        """Joined to the weighted operation before it, or a scale on its own."""
        place = call.operands[0]
        x = call.leaves[place]
        with torch.no_grad():
            y = call.run({place: x.detach()})
        before = self._made.get(id(x))
        scale = norm_scale(call)
        shift = norm_shift(call, scale)
        if before is None or before.weight is None or not scales_output_channels(before.call):
            if self._bias == "ignore":
                return StraightThrough.apply(x, y)
            values = (x.detach().requires_grad_(),)
            with torch.enable_grad():
                z = values[0] * per_channel(scale, y)
            shift = per_channel(shift, y)
            return self._hang(Step(self, call, (x,), values, z, y, shift, bias=shift))
        own = bias_of(before.call)
        shift = per_channel(shift if own is None else shift + own * scale, y)
        bias = shift if self._bias == "share" else None
        joined = replace(before, y=y, shift=shift, bias=bias, scale=scale, arrived=[])
        # A sum may have several batch norms behind it: each makes a step of its own.
        if before in self.steps:
            self.steps.remove(before)
        return self._hang(joined)
