"""Which tensors of a forward pass are attention weights, and what comes back to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import leaves_of
from whyglass.propagation.engine.calls import Call
from whyglass.propagation.engine.operations import BILINEAR

# These take the form of their second tensor alone.
FORMS = frozenset({"view_as", "reshape_as", "expand_as", "type_as"})
MULTIPLICATIONS = frozenset({"mul", "multiply"})


def content(call: Call) -> list[Tensor]:
    """The tracked tensors that the result is computed from."""
    positions = [p for p in call.operands if not p or call.op not in FORMS]
    return [call.leaves[position] for position in positions]


class AttentionWeights:
    """The attention weights of one pass: the results of softmax, and what is made of them alone.

    An attention is a product of weights with something else, in whatever shape: tokens x tokens,
    windows, reduced keys, queries of another sequence. `count` numbers the attentions so far.
    """

    def __init__(self, per_tensor: dict[int, Any]) -> None:
        self._weights = per_tensor
        self.count = 0

    def position(self, call: Call) -> int | None:
        """The position of the weights among the leaves of a product of two; None if there is none."""
        if call.op not in BILINEAR or len(call.operands) != 2:
            return None
        positions = [p for p in call.operands if id(call.leaves[p]) in self._weights]
        return positions[0] if len(positions) == 1 else None

    def is_attention(self, call: Call) -> bool:
        """Whether the call sums over tokens, each weighed by its attention weight."""
        return call.op not in MULTIPLICATIONS and self.position(call) is not None

    def follow(self, call: Call, result: Any) -> None:
        """Called with each operation and its result."""
        self.count += self.is_attention(call)
        weights = [id(operand) in self._weights for operand in content(call)]
        if call.op == "softmax" or (weights and all(weights)):
            for tensor in leaves_of(result):
                self._weights[id(tensor)] = True


class TargetMark(torch.autograd.Function):
    """The scores as they are; backwards it tells the number of the target that is differentiated."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, tell: Callable[[int], None], start: float) -> Tensor:
        ctx.tell, ctx.start = tell, start
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.tell(int(gradient[0][0].argmax()) if gradient[0].dim() > 1 else 0)
        return gradient[0] * ctx.start, None, None


class AttentionRecord:
    """What comes back to the weights of each attention of one pass: `arrived[attention, target]`."""

    def __init__(self, per_tensor: dict[int, Any]) -> None:
        self.weights = AttentionWeights(per_tensor)
        self.arrived: dict[tuple[int, int], Tensor] = {}
        self._target = 0

    def begin_target(self, target: int) -> None:
        """Called before each backward pass with the number of its target."""
        self._target = target

    def follow(self, call: Call, result: Any) -> None:
        """Called with each operation and its result."""
        number = self.weights.count
        self.weights.follow(call, result)
        if self.weights.count == number:
            return
        position = self.weights.position(call)
        assert position is not None

        def record(gradient: Tensor) -> None:
            self.arrived[number, self._target] = gradient

        # Nothing comes back to weights that were made without a gradient.
        if call.leaves[position].requires_grad:
            call.leaves[position].register_hook(record)
