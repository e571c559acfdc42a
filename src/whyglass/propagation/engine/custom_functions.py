"""What a `torch.autograd.Function` of the model computes, seen as the calls of its forward method.

Gradients are off in there, as under `torch.no_grad()`, and the node that autograd then puts behind the
output knows nothing of rules. So each call is followed as if gradients were on, and what it returns is
a stand-in: as long as gradients are off, and once autograd has put such a node behind it, it stands for
the value that was followed; after `torch.no_grad()` it is a constant of the network.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from whyglass.propagation.engine.arguments import mapped


class CustomFunctions:
    """Stand-ins of the results of calls that ran while gradients were off."""

    def __init__(self, held: set[str]) -> None:
        # By the id of the stand-in: itself, which keeps the id from being used again, its value, and
        # the operation.
        self._entries: dict[int, tuple[Tensor, Tensor, str]] = {}
        self._held = held

    def __bool__(self) -> bool:
        return bool(self._entries)

    def forget(self) -> None:
        """Let all values go."""
        self._entries.clear()

    def stand_in(self, op: str, value: Any) -> Any:
        """A result without a gradient in the place of one that is followed."""
        return mapped(lambda leaf: self._detached(op, leaf), value)

    def current(self, value: Any) -> Any:
        """What a leaf of a call stands for."""
        entry = self._entries.get(id(value))
        if entry is None:
            return value
        if not torch.is_grad_enabled() or isinstance(value.grad_fn, BackwardCFunction):
            return entry[1]
        self._held.add(entry[2])
        return value

    def _detached(self, op: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]  no other way
            stand_in = value.detach()
        self._entries[id(stand_in)] = (stand_in, value, op)
        return stand_in
