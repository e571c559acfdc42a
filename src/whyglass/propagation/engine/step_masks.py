"""Comparisons as step functions, which are 0 or 1: so that `x * (x > 0)` is what ReLU is.

A mask is another one at the baseline where its comparison turned. There a rule for functions of one
number passes through the step as through any function, and `where` is a sum of products,
c a + (1 - c) b with the step c. So nothing is constant, and the sum of all values is complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import leaves_of, mapped
from whyglass.propagation.engine.choices import Choices
from whyglass.propagation.engine.functions import Function
from whyglass.propagation.engine.operations import STRUCTURAL
from whyglass.propagation.engine.tensor_memory import TensorMemory

_NOT = frozenset({"logical_not", "bitwise_not", "invert"})
_AND = frozenset({"logical_and", "bitwise_and", "and"})
_OR = frozenset({"logical_or", "bitwise_or", "or"})
# Arithmetic in which a mask counts as 0 and 1.
_ARITHMETIC = frozenset({
    "mul", "rmul", "add", "sub", "rsub", "div", "to", "type", "type_as", "float", "double", "half",
    "bfloat16", "sum", "mean", "matmul", "bmm", "mm", "einsum", "addcmul", "lerp",
})  # fmt: skip


def step(op: str, a: Any, b: Any) -> Tensor:
    """1 where the comparison holds and 0 where it does not, in functions of one number."""
    sign = torch.sign(a - b)
    if op in {"eq", "ne"}:
        unequal = sign.abs()
        return unequal if op == "ne" else 1 - unequal
    if op == "gt":
        return torch.relu(sign)
    if op == "lt":
        return torch.relu(-sign)
    return 1 - torch.relu(-sign if op == "ge" else sign)


def chosen(step: Tensor, turned: Tensor, mask: Tensor, a: Any, b: Any) -> Tensor:
    """`where(mask, a, b)`, by products where the mask is another one at the baseline."""
    zero = torch.zeros((), dtype=step.dtype, device=step.device)
    left, right = (torch.where(turned, part, zero) for part in (a, b))
    return torch.where(turned, step * left + (1 - step) * right, torch.where(mask, a, b))


def _has_fractions(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point())


class StepMasks:
    """The step function behind each mask that a comparison of tracked numbers made."""

    def __init__(self, memory: TensorMemory, choices: Choices, run: Callable[..., Any]) -> None:
        self._memory, self._choices, self._run = memory, choices, run
        self._steps: dict[int, tuple[Any, Tensor]] = memory.per_tensor()

    def __bool__(self) -> bool:
        return bool(self._steps)

    def follow(self, mask: Any, step: Tensor) -> None:
        """From here on the mask stands for this step function."""
        self._steps[id(mask)] = (self._memory.reference(mask), step)

    def _step(self, value: Any) -> Any:
        entry = self._steps.get(id(value))
        return value if entry is None else entry[1]

    def through(
        self, known: Function, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A call that takes masks as numbers, or NotImplemented for one that does not."""
        op = known.op
        if known.writes or not any(id(leaf) in self._steps for leaf in leaves_of((args, kwargs))):
            return NotImplemented
        if op == "where" and id(args[0]) in self._steps and any(map(_has_fractions, args[1:])):
            return self._where(*args)
        if op == "masked_fill" and id(args[1]) in self._steps and _has_fractions(args[0]):
            return self._where(args[1], args[2], args[0])
        if op in _ARITHMETIC:
            return self._run(func, *mapped(self._step, args), **mapped(self._step, kwargs))
        if op not in STRUCTURAL | _NOT | _AND | _OR or not isinstance(args[0], Tensor):
            return NotImplemented
        if op == "getitem" and id(args[0]) not in self._steps:
            return NotImplemented
        mask = func(*args, **kwargs)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            return NotImplemented
        if self._choices.compare(known, func, mask, args, kwargs):
            self.follow(mask, self._run(self._combined, op, func, args, kwargs))
        return mask

    def _where(self, mask: Tensor, a: Any, b: Any) -> Any:
        turned = mask != self._choices.at_baseline(mask)
        return self._run(chosen, self._step(mask), turned, mask.clone(), a, b)

    def _combined(
        self, op: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The step function of a mask that is made of masks."""
        if op in STRUCTURAL:
            return func(self._step(args[0]), *args[1:], **kwargs)
        first = self._step(args[0])
        if op in _NOT:
            return 1 - first
        second = self._step(args[1])
        return first * second if op in _AND else first + second - first * second
