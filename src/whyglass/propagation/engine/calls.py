"""One operation as a rule receives it, and a method's table of rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import Form, unpacked
from whyglass.propagation.engine.operations import (
    ADDITIVE,
    BILINEAR,
    ELEMENTWISE,
    LINEAR,
    STRUCTURAL,
)
from whyglass.propagation.engine.signatures import bind

Policy = Literal["error", "gradient"]


@dataclass(eq=False)
class Call:
    """One operation on tracked tensors, as a rule receives it.

    `function` works out of place; `leaves` are its arguments, flat, and `baseline_leaves` what they are
    at the baseline; `operands` are the positions of the tracked ones. `layer` is the submodule whose
    parameters it uses, empty if none.
    """

    op: str
    function: Callable[..., Any]
    leaves: tuple[Any, ...]
    operands: tuple[int, ...]
    form: Form
    baseline_leaves: tuple[Any, ...] = ()
    layer: str = ""

    def run(self, replaced: Mapping[int, Tensor] | None = None) -> Any:
        """The operation, with other operands in the positions that are named."""
        leaves = list(self.leaves)
        for position, other in (replaced or {}).items():
            leaves[position] = other
        return self._call(leaves)

    @cached_property
    def at_baseline(self) -> Any:
        """The operation's result at the baseline."""
        with torch.no_grad():
            return self._call(list(self.baseline_leaves))

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments."""
        return unpacked(list(self.leaves), self.form)

    @cached_property
    def bound(self) -> dict[str, Any]:
        """The arguments by the names that torch gives them, without those that were left out."""
        return bind(self.function, *self.arguments())

    def argument(self, name: str, default: Any = None) -> Any:
        """One argument by its name, or the default if it was left out."""
        return self.bound.get(name, default)

    def _call(self, leaves: list[Any]) -> Any:
        args, kwargs = unpacked(leaves, self.form)
        return self.function(*args, **kwargs)


Rule = Callable[[Call], Any]


def derivative(call: Call, at: Tensor | None = None) -> Tensor:
    """dy/dx of an elementwise operation, at its operand or another one."""
    position = call.operands[0]
    with torch.enable_grad():
        x = (call.leaves[position] if at is None else at).detach().requires_grad_()
        y = call.run({position: x})
        (slope,) = torch.autograd.grad(y, x, torch.ones_like(y))
    return slope


class StraightThrough(torch.autograd.Function):
    """A value y in place of a proxy: backwards all goes to the proxy unchanged."""

    @staticmethod
    def forward(ctx: Any, proxy: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@dataclass(frozen=True)
class Table:
    """A method's rules: by operation, or by kind of operation. None is the plain gradient.

    `linear` is for what is linear in its one tracked operand, `additive` for sums and differences,
    `accepted` for operations without a rule where those are accepted. A table that is total takes the
    gradient for whatever it does not name, by definition of its method.
    """

    elementwise: Rule | None
    bilinear: Rule | None
    linear: Rule | None = None
    additive: Rule | None = None
    accepted: Rule | None = None
    by_name: Mapping[str, Rule | None] = field(default_factory=dict[str, "Rule | None"])
    decompose: bool = True
    total: bool = False

    def plain(self) -> frozenset[str]:
        """Operations that take their plain gradient, whatever of their operands is tracked."""
        free = STRUCTURAL if self.additive else STRUCTURAL | ADDITIVE
        if self.total:
            free |= ELEMENTWISE
        return (free - self.by_name.keys()) | {
            op for op, rule in self.by_name.items() if rule is None
        }

    def rule(self, op: str, operands: int) -> Rule | None:
        """The rule of an operation on so many tracked tensors; KeyError if there is none."""
        if op in self.by_name:
            return self.by_name[op]
        if op in STRUCTURAL:
            return None
        if op in ADDITIVE:
            return self.additive
        if (op in LINEAR or op in BILINEAR) and operands < 3:
            return self.linear if operands == 1 else self.bilinear
        if self.total:
            return None
        if op in ELEMENTWISE and operands == 1:
            return self.elementwise
        raise KeyError(op)
