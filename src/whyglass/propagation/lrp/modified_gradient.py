"""Relevance by a modified gradient: LRP where every rule shares relevance by untransformed terms.

With LRP-0 or epsilon everywhere and biases that share, the relevance of a tensor x is x c, and the
coefficient c passes back much as a gradient does (Ancona et al., 2018, proposition 1). Sums, linear
operations, softmax to first order and max-pooling pass c by their own backward pass. The others differ:

- the epsilon rule passes c z / (z + epsilon sign z) at an output z, behind the batch norm joined to it;
- a function y of one number x passes c y / x, and nothing where x is zero;
- a product passes to each factor its share of c, none to a gate;
- a norm has a constant standard deviation, a division a constant denominator.

Nothing is divided by sums, so no sum has to be kept from zero. `Relevance` gives the same numbers by
carrying R itself, and any other rule; `OtherRule` says that an operation has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import leaves_of
from whyglass.propagation.engine.calls import Call, Policy, StraightThrough, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.linear_operations import (
    norm_scale,
    per_channel,
    scales_output_channels,
    weight_position,
)
from whyglass.propagation.engine.operations import MAX_POOLS
from whyglass.propagation.lrp.composites import Composite
from whyglass.propagation.lrp.normalisation import NORMS, layer_norm
from whyglass.propagation.lrp.products import (
    NORMALISERS,
    SQUASHING,
    Products,
    product_shares,
    remains_gate,
)
from whyglass.propagation.lrp.rules import Epsilon, Gamma, Rule, Zero

# For these f(x) / x is f'(x).
HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "rrelu", "abs", "absolute")
AS_GRADIENT = (
    *HOMOGENEOUS, "softmax", "log_softmax", "logsumexp", "maximum", "minimum", *MAX_POOLS,
)  # fmt: skip
_ATTENTION = ("query", "key", "value", "attn_mask")


class OtherRule(Exception):
    """An operation follows a rule that is neither LRP-0 nor epsilon."""


def fits(composite: Composite) -> bool:
    """Whether no rule depends on depth, and sums share relevance by untransformed terms."""
    return all(
        clause.depth is None and not clause.first for clause in composite.clauses
    ) and not isinstance(composite.sums, Gamma)


class _EpsilonRule(torch.autograd.Function):
    """Forwards z is unchanged; backwards x gets c z / (z + epsilon), times a batch norm's scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, rule: Rule, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, scale)
        ctx.rule = rule
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor) -> tuple[Tensor | None, ...]:
        z, scale = ctx.saved_tensors
        c = coefficients[0]
        if isinstance(ctx.rule, Epsilon):
            size = z if ctx.rule.plain else z.abs()
            c = torch.add(size, ctx.rule.epsilon).reciprocal_().mul_(size).mul_(c)
        return c if scale is None else c * per_channel(scale, c), None, None, None


class _OutputOverInput(torch.autograd.Function):
    """Forwards y is unchanged; backwards x gets c y / x, nothing where x is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        return torch.div(y, x).nan_to_num_(0.0, 0.0, 0.0).mul_(coefficients[0]), None


class _Share(torch.autograd.Function):
    """Forwards y is unchanged; backwards it passes a share of c."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, share: float) -> Tensor:
        ctx.share = share
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor) -> tuple[Tensor, None]:
        return coefficients[0] * ctx.share, None


class Coefficients(Propagation):
    """A forward pass whose backward pass carries relevance over value."""

    def __init__(
        self,
        composite: Composite,
        products: Products,
        unsupported: Policy,
        layers: Mapping[int, str],
    ) -> None:
        gates = NORMALISERS | (SQUASHING if products == "signal" else frozenset())
        table = Table(
            elementwise=_over_input,
            bilinear=self._product,
            linear=self._linear,
            by_name={
                **dict.fromkeys(AS_GRADIENT),
                **dict.fromkeys(NORMS, _norm),
                **dict.fromkeys(gates, self._gate),
                "batch_norm": self._batch_norm,
                "quotient": self._quotient,
                "scaled_dot_product_attention": self._attention,
            },
        )
        super().__init__(table, with_baseline=False, unsupported=unsupported, layers=layers)
        self._composite, self._products = composite, products
        self._gates: dict[int, bool] = self.per_tensor()
        self._weighted_sums: dict[int, tuple[Call, Rule, Tensor]] = self.per_tensor()
        # Before the first gate, descent from gates needs no record.
        self._records_all = False

    def after_call(self, call: Call, result: Any) -> None:
        """A gate that is moved, or that a constant is added to, remains a gate."""
        operands = (id(call.leaves[position]) for position in call.operands)
        if remains_gate(call) and any(operand in self._gates for operand in operands):
            self._mark(result)

    def _mark(self, result: Any) -> None:
        self._gates |= dict.fromkeys(map(id, leaves_of(result)), True)
        self._records_all = True

    def _gate(self, call: Call) -> Tensor:
        result = call.run() if call.op in AS_GRADIENT else _over_input(call)
        self._mark(result)
        return result

    def _linear(self, call: Call) -> Any:
        """An operation linear in its one operand, by the epsilon rule if it has weights."""
        rule = self._composite.rule(call.op, call.layer, 1, 1)
        if isinstance(rule, Zero) or weight_position(call) is None:
            return call.run()
        if not isinstance(rule, Epsilon):
            raise OtherRule
        z = call.run()
        result: Tensor = _EpsilonRule.apply(z, z.detach(), rule, None)
        self._weighted_sums[id(result)] = (call, rule, z)
        return result

    def _batch_norm(self, call: Call) -> Tensor:
        """A scale, joined to the weighted operation before it: its output is then their sum."""
        position = call.operands[0]
        x, rule = call.leaves[position], Zero()
        before = self._weighted_sums.get(id(x))
        if before is not None and scales_output_channels(before[0]):
            _, rule, x = before
        with torch.no_grad():
            y = call.run({position: x.detach()})
        return _EpsilonRule.apply(x, y, rule, norm_scale(call))

    def _product(self, call: Call) -> Tensor:
        """A product of operands, each with its share."""
        shares = product_shares(
            {position: self._is_gate(call, position) for position in call.operands}
        )
        if set(shares.values()) == {shares[call.operands[0]]}:
            return _Share.apply(call.run(), shares[call.operands[0]])
        return _with_shares(call, shares)

    def _attention(self, call: Call) -> Tensor:
        """softmax(q k^T + mask) v: two products, and between them the softmax by its gradient."""
        count, names = call.form[:2]
        roles = (*_ATTENTION[:count], *names)
        positions = {roles[position]: position for position in call.operands}
        gates = {role: self._is_gate(call, position) for role, position in positions.items()}
        scores = {role: gate for role, gate in gates.items() if role in {"query", "key"}}
        mixed = {role: gate for role, gate in gates.items() if role == "value"}
        if len(gates) > len(mixed):
            mixed["softmax"] = self._products == "signal"
        outer, inner = product_shares(mixed), product_shares(scores)
        shares = {
            position: outer["value"] if role == "value" else outer["softmax"] * inner.get(role, 1)
            for role, position in positions.items()
        }
        return _with_shares(call, shares)

    def _is_gate(self, call: Call, position: int) -> bool:
        return id(call.leaves[position]) in self._gates

    def _quotient(self, call: Call) -> Tensor:
        """A division gives all to the numerator, or to the denominator if that alone is explained."""
        if 0 in call.operands:
            below = call.leaves[1]
            return call.run({1: below.detach()} if isinstance(below, Tensor) else None)
        result = _over_input(call)
        self._mark(result)
        return result


def _with_shares(call: Call, shares: dict[int, float]) -> Tensor:
    """The operation, with each operand's share of the coefficient."""
    operands = {position: call.leaves[position] for position in shares}
    return call.run(
        {
            position: _Share.apply(operand, shares[position])
            if shares[position]
            else operand.detach()
            for position, operand in operands.items()
            if shares[position] != 1
        }
    )


def _over_input(call: Call) -> Tensor:
    x = call.leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run()
    return _OutputOverInput.apply(x if x.shape == y.shape else x.expand_as(y), y)


def _norm(call: Call) -> Tensor:
    """A linear map and a shift, with the standard deviation a constant."""
    x = call.leaves[call.operands[0]]
    if call.op == "layer_norm":
        return layer_norm(call, x, call.argument("bias"))
    with torch.no_grad():
        y = call.run()
    return StraightThrough.apply(NORMS[call.op](call, x), y)
