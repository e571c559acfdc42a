"""Attention through a whole network: what flows back from the score to each token of the input.

Rollout and its kin are defined as products of matrices tokens x tokens. This pass computes the same
product as a backward pass, and so follows tokens wherever the network puts them: into windows and
back, rolled, padded, merged, reduced, into another sequence. Backwards each tensor carries a flow:

- an attention sum_j A_ij v_j passes the flow of i to each j, A_ij times;
- an addition of an attention to the tokens before it, a residual connection, passes `residual` times
  its flow to either; any other addition passes half to either;
- a linear operation passes the flow in equal shares to all inputs that its weights reach, or in the
  shares of its weights where none is negative, as in pooling and dispatch;
- a multiplication by a gate passes it to what is gated;
- what acts on each token alone, norms included, passes it unchanged; moves and copies move it.

The flow that reaches a product of two activations of which neither is attention weights, or an
operation without a rule, is refused: no part of the answer can be missing without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from whyglass.core.calling_module import calling_module
from whyglass.core.errors import Unsupported
from whyglass.core.inputs import Leaves
from whyglass.propagation.attention.attention_weights import (
    MULTIPLICATIONS,
    AttentionWeights,
    TargetMark,
    content,
)
from whyglass.propagation.attention.flow_rules import Linear, Refusal, Shares, Sizes
from whyglass.propagation.attention.hidden_paths import HiddenPaths
from whyglass.propagation.engine.arguments import leaves_of
from whyglass.propagation.engine.calls import Call, StraightThrough, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.linear_operations import unbiased, weight_position
from whyglass.propagation.engine.operations import MAX_POOLS

NORMS = (
    "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm", "softmax",
    "log_softmax", "normalize",
)  # fmt: skip
WAYS_OUT = (
    "use a method that explains any network, such as integrated-gradients (for token ids with at= "
    "their embedding)"
)
# (attention, target, weights) -> the matrix that the flow passes through.
Matrix = Callable[[int, int, Tensor], Tensor]


class TokenFlow(Propagation):
    """One forward pass whose backward pass carries the flow from each score.

    `matrix` makes of the weights of an attention what the flow is multiplied with. `reached` holds the
    numbers of the attentions that any flow came through, and `start` the flow that a score begins with.
    """

    ways_out: ClassVar[str] = WAYS_OUT

    def __init__(self, names: dict[int, str], residual: float, matrix: Matrix) -> None:
        table = Table(
            elementwise=_unchanged,
            bilinear=self._product,
            linear=self._linear,
            additive=self._add,
            accepted=self._unknown,
            by_name={
                **dict.fromkeys(NORMS, _unchanged),
                "quotient": _unchanged,
                **dict.fromkeys(("scatter_add", "index_add"), _accumulate),
                **dict.fromkeys(("maximum", "minimum", *MAX_POOLS)),
                **dict.fromkeys(MULTIPLICATIONS, self._multiply),
            },
        )
        super().__init__(table, with_baseline=False, unsupported="gradient")
        self._names, self._residual, self._matrix = names, residual, matrix
        self._weights = AttentionWeights(self.per_tensor())
        self._depths: dict[int, tuple[int, bool]] = self.per_tensor()
        self._factors: dict[int, Tensor] = self.per_tensor()
        self._without_gradient: dict[int, bool] = self.per_tensor()
        self._target = 0
        self._hidden = HiddenPaths()
        self.reached: set[int] = set()
        self.start = 1.0

    def begin(self, leaves: Leaves, first: int = 0) -> None:
        """Follow the leaves."""
        super().begin(leaves, first)
        self._hidden.begin(leaves)
        for leaf in leaves:
            self._depths[id(leaf)] = (0, True)

    def end(self, scores: Tensor) -> Tensor:
        """The flow begins at each score. Half precision has no room for shares of 1."""
        self._refuse_hidden(scores)
        self.start = 1024.0 if scores.dtype == torch.float16 else 1.0
        return TargetMark.apply(scores, self._begin_target, self.start)

    def _begin_target(self, target: int) -> None:
        self._target = target

    def after_call(self, call: Call, result: Any) -> None:
        """The depth of a tensor: its last attention, and whether its residual connection is added."""
        for leaf in call.leaves:
            if isinstance(leaf, Tensor):
                self._refuse_hidden(leaf)
        depths = [self._depths[id(x)] for x in content(call) if id(x) in self._depths]
        attends = self._weights.is_attention(call)
        self._weights.follow(call, result)
        if not depths:
            return
        deepest = max(level for level, _ in depths)
        joined = any(has_residual for level, has_residual in depths if level == deepest)
        if call.op in {"add", "sub"}:
            joined = joined or any(level < deepest for level, _ in depths)
        depth = (deepest + 1, False) if attends else (deepest, joined)
        for tensor in leaves_of(result):
            self._depths[id(tensor)] = depth
            if not torch.is_grad_enabled():
                self._without_gradient[id(tensor)] = True

    def _refuse_hidden(self, tensor: Tensor) -> None:
        # The forward method of a Function runs without gradient; what it returns has one.
        tracked = id(tensor) in self._tracked and id(tensor) not in self._without_gradient
        if not tracked and self._hidden.leads_to(tensor):
            raise Unsupported(
                f"{self._where()}a tensor of shape {tuple(tensor.shape)} comes from the input by an "
                "operation that cannot be seen, such as an extension in C++, so tokens cannot "
                f"be followed: {self.ways_out}"
            )

    def _where(self) -> str:
        module = calling_module(self._names)
        return f"in layer {module!r} " if module else ""

    def _carriers(self, call: Call) -> list[int]:
        """Positions of the operands that are computed from the input, and not only in its form."""
        return [p for p in call.operands if id(call.leaves[p]) in self._depths]

    def _add(self, call: Call) -> Any:
        operands = [call.leaves[position] for position in self._carriers(call)]
        shares = self._shares(operands) if len(operands) == 2 else (1.0,) * len(operands)
        return Shares.apply(_value(call), shares, *operands)

    def _shares(self, operands: Sequence[Tensor]) -> tuple[float, ...]:
        """Shares of the flow that the terms of an addition get."""
        (one, one_joined), (other, other_joined) = (self._depths[id(x)] for x in operands)
        if one == other:
            return 0.5, 0.5
        if not (one_joined if one > other else other_joined):
            return self._residual, self._residual
        if abs(one - other) == 1:
            # Attention and a feed-forward network in parallel: their tokens were added to it already.
            return float(one > other), float(other > one)
        return 0.5, 0.5

    def _linear(self, call: Call) -> Any:
        """Equal shares to the inputs that the weights reach, or the shares of weights of one sign."""
        (position,) = call.operands
        x = call.leaves[position]
        at = weight_position(call)
        weight = None if at is None else _connections(call.leaves[at].detach())
        factor = self._factors.get(id(x))

        def run(u: Tensor) -> Tensor:
            return unbiased(call, {position: u}, weight)

        return Linear.apply(_value(call), x, factor, run)

    def _multiply(self, call: Call) -> Any:
        """The flow goes to the factor that is no gate, to either half if both are alike."""
        y = _value(call)
        gate = self._weights.position(call)
        carriers = self._carriers(call)
        if len(carriers) == 1:
            x = call.leaves[carriers[0]]
            result = StraightThrough.apply(x.expand_as(y), y)
            other = [leaf for leaf in call.leaves if isinstance(leaf, Tensor) and leaf is not x]
            self._remember(result, other[0] if other else None)
            return result
        receivers = [p for p in carriers if p != gate and call.leaves[p].shape == y.shape]
        receivers = receivers or [p for p in carriers if p != gate]
        if not receivers:
            return self._unknown(call)
        operands = [call.leaves[position] for position in receivers]
        share = 1 / len(operands)
        result = Shares.apply(y, (share,) * len(operands), *operands)
        if len(receivers) == 1:
            (position,) = (p for p in call.operands if p not in receivers)
            self._remember(result, call.leaves[position])
        return result

    def _remember(self, result: Tensor, factor: Tensor | None) -> None:
        """Keep what entries were multiplied by, for the sum over them that may follow."""
        if factor is not None and factor.dtype != torch.bool and bool((factor >= 0).all()):
            self._factors[id(result)] = factor.detach().expand_as(result)

    def _product(self, call: Call) -> Any:
        """An attention, or a product that no flow may reach."""
        y, at = _value(call), self._weights.position(call)
        operands = [call.leaves[position] for position in call.operands]
        if at is None or bool((call.leaves[at] < 0).any()):
            return Refusal.apply(y, self._refusal(call), *operands)
        (position,) = (p for p in call.operands if p != at)
        attention = _Attention(self, self._weights.count, call, at, position)
        return _Attended.apply(y, attention, call.leaves[position])

    def _unknown(self, call: Call) -> Any:
        operands = [x for x in call.leaves if isinstance(x, Tensor) and x.requires_grad]
        refusal = self._refusal(call)

        def refused(made: Any) -> Any:
            numbers = isinstance(made, Tensor) and (made.is_floating_point() or made.is_complex())
            return Refusal.apply(made, refusal, *operands) if numbers and operands else made

        value = _value(call)
        if isinstance(value, tuple):
            # Pairs with names, such as those of `cummax`, are made of one list.
            parts = [refused(part) for part in value]
            return type(value)(parts)
        return refused(value)

    def _refusal(self, call: Call) -> Unsupported:
        shapes = " and ".join(str(tuple(call.leaves[p].shape)) for p in call.operands)
        return Unsupported(
            f"{self._where()}{call.op!r} of shape {shapes} is no attention by softmax and has no rule "
            f"that follows tokens through it: {self.ways_out}"
        )

    def pass_attention(self, attention: _Attention, flow: Tensor) -> Tensor:
        """The flow of the tokens that are attended to."""
        if bool((flow != 0).any()):
            self.reached.add(attention.number)
        call = attention.call
        weights = call.leaves[attention.weights].detach()
        matrix = self._matrix(attention.number, self._target, weights)
        with torch.enable_grad():
            values = torch.zeros_like(call.leaves[attention.values]).requires_grad_()
            sums = call.run({attention.weights: matrix.to(values.dtype), attention.values: values})
        return torch.autograd.grad(sums, values, flow)[0]


class _Attention:
    """One attention: its number in the pass, and where its weights and values are in the call."""

    def __init__(
        self, owner: TokenFlow, number: int, call: Call, weights: int, values: int
    ) -> None:
        self.owner, self.number, self.call = owner, number, call
        self.weights, self.values = weights, values


def _value(call: Call) -> Any:
    with torch.no_grad():
        return call.run()


def _unchanged(call: Call) -> Any:
    """The flow passes to the one operand, or the numerator."""
    x, y = call.leaves[call.operands[0]], _value(call)
    return StraightThrough.apply(x if x.shape == y.shape else x.expand_as(y), y)


def _accumulate(call: Call) -> Any:
    """Entries added into a tensor: shares in proportion to their sizes."""
    operands = [call.leaves[position] for position in call.operands]
    return Sizes.apply(_value(call), call, *operands)


def _connections(weight: Tensor) -> Tensor:
    """Weights of which none is negative as they are; of others, which are not zero."""
    return weight if bool((weight >= 0).all()) else (weight != 0).to(weight.dtype)


class _Attended(torch.autograd.Function):
    """The result of an attention; backwards the flow to what it attends to."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, attention: _Attention, values: Tensor) -> Tensor:
        ctx.attention = attention
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *flow: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, ctx.attention.owner.pass_attention(ctx.attention, flow[0])
