"""Paths from the input that no mode sees: those through an extension in C++, for one."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from whyglass.core.inputs import Leaves


class HiddenPaths:
    """Looks for the leaves of one pass in the graphs of tensors that were not tracked."""

    def __init__(self) -> None:
        self._leaves: list[Tensor] = []
        # Nodes known to lead to none of them; a node that is kept cannot be mistaken for another.
        self._parameters_only: set[Any] = set()

    def begin(self, leaves: Leaves) -> None:
        """Called with leaves before anything uses them."""
        self._leaves += leaves

    def leads_to(self, tensor: Tensor) -> bool:
        """Whether the tensor was computed from a leaf."""
        seen: set[Any] = set()
        ahead: list[Any] = [tensor.grad_fn]
        while ahead:
            node = ahead.pop()
            if node is None or node in seen or node in self._parameters_only:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)
            if any(variable is leaf for leaf in self._leaves):
                return True
            ahead += [before for before, _ in node.next_functions]
        self._parameters_only |= seen
        return False
