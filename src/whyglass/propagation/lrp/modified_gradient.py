"""Relevance by a changed gradient: LRP where all rules share out by the terms as they are.

With LRP-0 or epsilon everywhere and biases that share, the relevance of a tensor x is x c, and the
coefficient c passes back much as a gradient does (Ancona et al., 2018, proposition 1). Sums, linear
operations, softmax to first order and max-pooling pass c by their own backward pass. The rest differ:

- epsilon: c z / (z + epsilon sign z) at an output z, behind the batch norm that is joined to it;
- a function y of one number x: c y / x, nothing where x is zero;
- a product of two: half to each, or none to a factor that is a gate;
- a norm: its spread is a constant; a division: its denominator is.

Nothing is divided by sums, so there is no zero to divide by. `Relevance` gives the same numbers, by
carrying R itself, and any other rule; where an operation has one, `OtherRule` says so.
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
from whyglass.propagation.lrp.relevance import GATES, NORMALISERS, Products, stays
from whyglass.propagation.lrp.rules import Epsilon, Gamma, Rule, Zero

# f(x) / x is f'(x).
HOMOGENEOUS = ("relu", "leaky_relu", "prelu", "rrelu", "abs", "absolute")
AS_GRADIENT = (
    *HOMOGENEOUS, "softmax", "log_softmax", "logsumexp", "maximum", "minimum", *MAX_POOLS,
)  # fmt: skip
ATTENTION = ("query", "key", "value", "attn_mask")


class OtherRule(Exception):
    """An operation follows a rule that is neither LRP-0 nor epsilon."""


def fits(composite: Composite) -> bool:
    """Whether rules do not depend on depth, and sums share out by their terms as they are."""
    return all(
        clause.depth is None and not clause.first for clause in composite.clauses
    ) and not isinstance(composite.sums, Gamma)


class _Damped(torch.autograd.Function):
    """z, made from x, as it is; backwards c z / (z + epsilon), a batch norm's scale times it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor, rule: Rule, scale: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, scale)
        ctx.rule = rule
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor) -> tuple[Tensor | None, ...]:
        z, scale = ctx.saved_tensors
        found = coefficients[0]
        if isinstance(ctx.rule, Epsilon):
            size = z if ctx.rule.plain else z.abs()
            found = torch.add(size, ctx.rule.epsilon).reciprocal_().mul_(size).mul_(found)
        return found if scale is None else found * per_channel(scale, found), None, None, None


class _OverInput(torch.autograd.Function):
    """y as it is; backwards c y / x, nothing where x is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *coefficients: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        return torch.div(y, x).nan_to_num_(0.0, 0.0, 0.0).mul_(coefficients[0]), None


class _Share(torch.autograd.Function):
    """y as it is; backwards a share of c."""

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
        gates = NORMALISERS | (GATES if products == "signal" else frozenset())
        table = Table(
            elementwise=_over_input,
            bilinear=self._split,
            linear=self._weigh,
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
        self._sums: dict[int, tuple[Call, Rule, Tensor]] = self.per_tensor()
        # Until there is a gate nobody asks what descends from one.
        self._records_all = False

    def after_call(self, call: Call, result: Any) -> None:
        """What moves a gate, or adds a constant to it, is one."""
        if stays(call) and any(id(call.leaves[place]) in self._gates for place in call.operands):
            self._mark(result)

    def _mark(self, result: Any) -> None:
        self._gates |= dict.fromkeys(map(id, leaves_of(result)), True)
        self._records_all = True

    def _gate(self, call: Call) -> Tensor:
        result = call.run() if call.op in AS_GRADIENT else _over_input(call)
        self._mark(result)
        return result

    def _weigh(self, call: Call) -> Any:
        """Linear in its one operand: damped if there are weights with an epsilon."""
        rule = self._composite.rule(call.op, call.layer, 1, 1)
        if isinstance(rule, Zero) or weight_position(call) is None:
            return call.run()
        if not isinstance(rule, Epsilon):
            raise OtherRule
        z = call.run()
        result: Tensor = _Damped.apply(z, z.detach(), rule, None)
        self._sums[id(result)] = (call, rule, z)
        return result

    def _batch_norm(self, call: Call) -> Tensor:
        """A scale; joined to the weighted operation before it, whose sum is then its own."""
        place = call.operands[0]
        x, rule = call.leaves[place], Zero()
        before = self._sums.get(id(x))
        if before is not None and scales_output_channels(before[0]):
            _, rule, x = before
        with torch.no_grad():
            y = call.run({place: x.detach()})
        return _Damped.apply(x, y, rule, norm_scale(call))

    def _split(self, call: Call) -> Tensor:
        """A product of two: to the signal if the other is a gate, else half to each."""
        gates = [place for place in call.operands if id(call.leaves[place]) in self._gates]
        if len(gates) == 1:
            return call.run({gates[0]: call.leaves[gates[0]].detach()})
        return _Share.apply(call.run(), 0.5)

    def _attention(self, call: Call) -> Tensor:
        """softmax(q k^T) v: two products by `_split`, and between them the softmax by its gradient."""
        count, names = call.form[:2]
        role = (*ATTENTION[:count], *names)
        given = {role[place]: place for place in call.operands}
        scores = {"query", "key", "attn_mask"} & set(given)
        value = given.get("value")
        signal = value is not None and id(call.leaves[value]) not in self._gates
        if self._products == "signal" and signal:
            return call.run({given[name]: call.leaves[given[name]].detach() for name in scores})
        half = 0.5 if scores and "value" in given else 1.0
        shares = dict.fromkeys(given, half)
        if {"query", "key"} <= scores:
            shares["query"] = shares["key"] = half / 2
        return call.run(
            {
                place: _Share.apply(call.leaves[place], shares[name])
                for name, place in given.items()
                if shares[name] != 1
            }
        )

    def _quotient(self, call: Call) -> Tensor:
        """All to the numerator; without one that is explained, to the denominator."""
        if 0 in call.operands:
            below = call.leaves[1]
            return call.run({1: below.detach()} if isinstance(below, Tensor) else None)
        result = _over_input(call)
        self._mark(result)
        return result


def _over_input(call: Call) -> Tensor:
    x = call.leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run()
    return _OverInput.apply(x if x.shape == y.shape else x.expand_as(y), y)


def _norm(call: Call) -> Tensor:
    """A linear map and a bias, once the spread is a constant."""
    x = call.leaves[call.operands[0]]
    if call.op == "layer_norm":
        return layer_norm(call, x, call.argument(3, "bias"))
    with torch.no_grad():
        y = call.run()
    return StraightThrough.apply(NORMS[call.op](call, x), y)
