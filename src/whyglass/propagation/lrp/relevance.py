"""Relevance through a network: what every method of the LRP family shares.

Backwards each tensor carries its relevance R in place of a gradient. An operation that moves or copies
numbers passes R by its own backward pass. A function of one number hands R to that number. Weighted
operations follow the composite's rules, sums its rule for sums. Products follow `Products`:

- "signal": a factor made by a sigmoid or a softmax is a gate, and the other factor takes all;
- "half": both take half.

The standard deviation in a norm counts as a constant, a division gives all to the numerator, softmax
takes the first-order terms of its expansion. Batch norm after a weighted operation is joined to it:
the rule sees their product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
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
from whyglass.propagation.engine.operations import MAX_POOLS
from whyglass.propagation.lrp.backward import Redistribute, StartFromScore
from whyglass.propagation.lrp.composites import SUMS, Composite
from whyglass.propagation.lrp.constants import constant_entries
from whyglass.propagation.lrp.normalisation import NORMS
from whyglass.propagation.lrp.products import (
    NORMALISERS,
    SQUASHING,
    Products,
    product_shares,
    remains_gate,
)
from whyglass.propagation.lrp.redistribution import FirstOrder, Passage, Redistribution
from whyglass.propagation.lrp.rules import Gamma, Rule
from whyglass.propagation.lrp.sums import AVERAGES, factor_in_sum

Bias = Literal["ignore", "share"]

CONSTANTS = "constants of the network"


class Relevance(Propagation):
    """A forward pass whose backward pass, one for each of so many `targets`, carries relevance.

    `operations` are its redistributions in order, if the pass keeps them.
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
            elementwise=self._to_operand,
            bilinear=self._product,
            linear=self._linear,
            additive=self._sum_or_shift,
            by_name={
                **dict.fromkeys(NORMS, self._norm),
                **dict.fromkeys(first_order, self._first_order),
                **dict.fromkeys(adding, self._sum),
                **dict.fromkeys(winner),
                **dict.fromkeys(("mul", "multiply"), self._multiply),
                **dict.fromkeys(("neg", "negative"), self._to_operand),
                "batch_norm": self._batch_norm,
                "quotient": self._to_operand,
            },
            accepted=self._first_order,
        )
        super().__init__(table, with_baseline=False, unsupported=unsupported, layers=layers)
        self._composite, self._bias, self._products, self._keep = composite, bias, products, keep
        self._depth: dict[int, int] = self.per_tensor()
        self._gates: dict[int, bool] = self.per_tensor()
        self._operation_of: dict[int, Redistribution] = self.per_tensor()
        self._deepest = 1
        self.operations: list[Redistribution] = []
        self.targets = 1
        self.absorbed: dict[str, float] = {}
        self.initial = 0.0

    def end(self, scores: Tensor) -> Tensor:
        """Relevance begins as the score."""
        self.targets = scores[:1].numel()
        self.initial += float(scores.detach().abs().sum())
        return StartFromScore.apply(scores)

    def after_call(self, call: Call, result: Any) -> None:
        """Note the depth of each tensor, and whether it is a gate."""
        self._watch_constants(call, result)
        operands = [id(call.leaves[position]) for position in call.operands]
        depth = max((self._depth.get(operand, 0) for operand in operands), default=0)
        results = leaves_of(result)
        operation = self._operation_of.get(id(results[0]))
        if operation is not None and operation.weight is not None and operation.call is call:
            depth += 1
            operation.depth = depth
            self._deepest = max(self._deepest, depth)
        divisor = call.op == "quotient" and 0 not in call.operands
        squashed = self._products == "signal" and call.op in SQUASHING
        gate = divisor or call.op in NORMALISERS or squashed
        if not gate and remains_gate(call):
            gate = any(operand in self._gates for operand in operands)
        for tensor in results:
            self._depth[id(tensor)] = depth
            if gate:
                self._gates[id(tensor)] = True

    def rule(self, operation: Redistribution) -> Rule:
        """The rule of an operation; it is known once the whole network has run."""
        if operation.weight is None:
            sums = self._composite.sums
            return sums if operation.signs or not isinstance(sums, Gamma) else SUMS
        call = operation.call
        return self._composite.rule(call.op, call.layer, operation.depth, self._deepest)

    def record_relevance(
        self, operation: Redistribution, output: Tensor, operands: tuple[Tensor, ...]
    ) -> None:
        """Add up the relevance that was absorbed, and keep all of it if the pass keeps it."""
        lost = float(output.sum()) - sum(float(part.sum()) for part in operands)
        if not math.isfinite(lost):
            raise BadInput(
                f"relevance grew beyond all bounds at {operation.name}: its rule divides by sums near "
                'zero; take bias="share", or rule="gamma", whose sums do not cancel'
            )
        self.absorbed[operation.name] = self.absorbed.get(operation.name, 0.0) + lost
        if self._keep:
            operation.passages.append(Passage(output, operands, lost))

    def _watch_constants(self, call: Call, result: Any) -> None:
        """Add up the relevance of entries that are no operand's, such as a class token's."""
        constant = constant_entries(call, result)
        if constant is None:
            return

        def add(relevance: Tensor) -> None:
            lost = float(relevance[constant].sum())
            self.absorbed[CONSTANTS] = self.absorbed.get(CONSTANTS, 0.0) + lost

        result.register_hook(add)

    def _redistribute(self, operation: Redistribution) -> Tensor:
        """The operation's output, which hands relevance back by the operation's rule."""
        if self._keep:
            self.operations.append(operation)
        result: Tensor = Redistribute.apply(operation, operation.y, *operation.operands)
        self._operation_of[id(result)] = operation
        return result

    def _by_terms(
        self,
        call: Call,
        positions: Sequence[int],
        share: float = 1.0,
        weight: int | None = None,
        signs: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Relevance in shares to the operands in these positions."""
        operands = tuple(call.leaves[position] for position in positions)
        values = tuple(operand.detach().requires_grad_() for operand in operands)
        with torch.enable_grad():
            z = unbiased(call, dict(zip(positions, values, strict=True)))
        y, bias = z.detach(), bias_of(call)
        bias_shares = self._bias == "share"
        if bias is not None:
            bias = per_channel(bias, y) if call.op.startswith("conv") else bias
            # Where the bias shares, the sum without it is never needed.
            y = y.add_(bias) if bias_shares else y + bias
        operation = Redistribution(
            self, call, operands, values, z, y, bias, share, bias if bias_shares else None
        )
        operation.weight, operation.signs = weight, signs
        return self._redistribute(operation)

    def _affine(self, call: Call, linear: Callable[[Tensor], Tensor]) -> Tensor:
        """y = linear(x) + shift of one operand x.

        All relevance goes to x, or x and the shift take their shares where biases share.
        """
        if self._bias == "ignore":
            return self._to_operand(call)
        x = call.leaves[call.operands[0]]
        value = x.detach().requires_grad_()
        with torch.no_grad():
            y = call.run()
        with torch.enable_grad():
            z = linear(value)
        shift = y - z.detach()
        return self._redistribute(
            Redistribution(self, call, (x,), (value,), z, y, shift, bias=shift)
        )

    def _to_operand(self, call: Call, used: Tensor | None = None) -> Any:
        """All relevance to the one operand, or to the numerator, where it is `used`."""
        x = call.leaves[call.operands[0]]
        with torch.no_grad():
            y = call.run()
        proxy = x if used is None else x * used
        return StraightThrough.apply(proxy if proxy.shape == y.shape else proxy.expand_as(y), y)

    def _linear(self, call: Call) -> Any:
        """An operation linear in its one operand: by the composite's rule, a sum, or by its terms."""
        weight = weight_position(call)
        if weight is None and call.op in AVERAGES:
            return self._sum(call)
        return self._by_terms(call, call.operands, weight=weight)

    def _sum(self, call: Call) -> Any:
        """A sum, in shares by the composite's rule for sums; one operand may be subtracted."""
        signs = tuple(-1 if factor_in_sum(call, position) < 0 else 1 for position in call.operands)
        return self._by_terms(call, call.operands, signs=signs)

    def _sum_or_shift(self, call: Call) -> Any:
        """A sum of two operands; of one operand and a constant, which is a bias."""
        position, *others = call.operands
        if others:
            return self._sum(call)
        factor = factor_in_sum(call, position)
        shape = torch.broadcast_shapes(
            *(leaf.shape for leaf in call.leaves if isinstance(leaf, Tensor))
        )
        return self._affine(call, lambda x: x.expand(shape) * factor)

    def _multiply(self, call: Call) -> Any:
        """A product of two operands; of one and a constant, which uses it where it is not zero."""
        if len(call.operands) > 1:
            return self._product(call)
        constants = (
            leaf
            for position, leaf in enumerate(call.leaves)
            if position not in call.operands and isinstance(leaf, Tensor)
        )
        constant = next(constants, None)
        used = None if constant is None or constant.all() else constant != 0
        return self._to_operand(call, used)

    def _product(self, call: Call) -> Any:
        """A product of operands, each with its share."""
        shares = product_shares(
            {position: id(call.leaves[position]) in self._gates for position in call.operands}
        )
        signals = [position for position, share in shares.items() if share]
        return self._by_terms(call, signals, share=shares[signals[0]])

    def _first_order(self, call: Call) -> Any:
        """R_i = x_i sum_j (dy_j/dx_i) R_j / y_j, where x_i is finite."""
        operands = tuple(call.leaves[position] for position in call.operands)
        values = tuple(operand.detach().requires_grad_() for operand in operands)
        with torch.enable_grad():
            z = call.run(dict(zip(call.operands, values, strict=True)))
        if not isinstance(z, Tensor):
            # Several results are parts of the operand, moved.
            return call.run()
        return self._redistribute(FirstOrder(self, call, operands, values, z, z.detach()))

    def _norm(self, call: Call) -> Any:
        """A linear map and a shift, with the standard deviation a constant."""
        return self._affine(call, lambda x: NORMS[call.op](call, x))

    def _batch_norm(self, call: Call) -> Any:
        """A batch norm joined to the weighted operation before it, or a scale and a shift alone."""
        x = call.leaves[call.operands[0]]
        before = self._operation_of.get(id(x))
        scale = norm_scale(call)
        if before is None or before.weight is None or not scales_output_channels(before.call):
            return self._affine(call, lambda x: x * per_channel(scale, x))
        with torch.no_grad():
            y = call.run()
        shift, own = norm_shift(call, scale), bias_of(before.call)
        shift = per_channel(shift if own is None else shift + own * scale, y)
        bias = shift if self._bias == "share" else None
        joined = replace(before, y=y, shift=shift, bias=bias, scale=scale, passages=[])
        # A sum may have several batch norms behind it, and is joined to each of them anew.
        if before in self.operations:
            self.operations.remove(before)
        return self._redistribute(joined)
