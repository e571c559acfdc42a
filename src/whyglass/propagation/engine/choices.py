"""Masks, indices and answers to Python that would be others at the baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import leaves_of, mapped
from whyglass.propagation.engine.functions import Function
from whyglass.propagation.engine.operations import ANSWERS, CREATIONS
from whyglass.propagation.engine.tensor_memory import Reference, TensorMemory


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, tensor by tensor."""
    ours, theirs = leaves_of(one), leaves_of(other)
    return len(ours) == len(theirs) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(ours, theirs, strict=True)
    )


class Choices:
    """Choices that would be others at the baseline. A choice that is used counts as constant.

    `held` names the operations whose choices were used.
    """

    def __init__(self, memory: TensorMemory, at_baseline: Callable[[Any], Any]) -> None:
        self._memory, self._at_baseline = memory, at_baseline
        # The operation that chose, and its choice at the baseline.
        self._entries: dict[int, tuple[Reference, str, Any]] = memory.per_tensor()
        self.held: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, tensor: Tensor, op: str, at_baseline: Any) -> None:
        """Remember a choice, and the choice at the baseline."""
        self._entries[id(tensor)] = (self._memory.reference(tensor), op, at_baseline)

    def at_baseline(self, value: Any) -> Any:
        """A choice or a tensor at the baseline."""
        entry = self._entries.get(id(value))
        return self._at_baseline(value) if entry is None else entry[2]

    def constant(
        self,
        op: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        with_baseline: bool,
    ) -> Any:
        """Run a call whose result has no gradient, and so is a constant of the network."""
        result = function(*args, **kwargs)
        if not with_baseline:
            self.held.add(op)
            return result
        with torch.no_grad():
            args, kwargs = mapped(self._at_baseline, args), mapped(self._at_baseline, kwargs)
            at_baseline = function(*args, **kwargs)
        if not same(result, at_baseline):
            self.held.add(op)
        return result

    def use(self, leaves: Iterable[Any]) -> None:
        """Note that a rule takes these leaves: choices among them are constants."""
        self.held |= {self._entries[id(leaf)][1] for leaf in leaves if id(leaf) in self._entries}

    def compare(
        self,
        known: Function,
        function: Callable[..., Any],
        result: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> bool:
        """Remember a result without a gradient if it is another one at the baseline; whether it is."""
        tensors = [leaf for leaf in leaves_of(result) if isinstance(leaf, Tensor)]
        if known.op in CREATIONS or not (tensors or known.op in ANSWERS):
            return False
        operands = leaves_of((args, kwargs))
        origins = [self._entries[id(leaf)][1] for leaf in operands if id(leaf) in self._entries]
        op = origins[0] if origins else known.op
        if known.writes:
            if origins:
                self.add(result, op, result.clone())
            return bool(origins)
        with torch.no_grad():
            at_baseline = function(
                *mapped(self.at_baseline, args), **mapped(self.at_baseline, kwargs)
            )
        if same(result, at_baseline):
            return False
        ours, theirs = leaves_of(result), leaves_of(at_baseline)
        if not tensors or len(ours) != len(theirs):
            # Python may branch on it, or run through as many entries as there are.
            self.held.add(op)
            return True
        for tensor, other in zip(ours, theirs, strict=True):
            if isinstance(tensor, Tensor):
                self.add(tensor, op, other)
        return True
