"""Means and variances passed forwards: what a network makes of a random input, to second order.

The tensors that the model computes are means; beside each that descends from the input stands its
`Spread`. Calls are seen as in the engine, so that modules, functions and in-place calls are alike, and
an operation without a rule is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import Form
from whyglass.propagation.engine.calls import Call, Table
from whyglass.propagation.engine.interception import Propagation

COMPARISONS = frozenset(
    "gt lt ge le eq ne greater less greater_equal less_equal not_equal argmax argmin argsort".split()
)


@dataclass(frozen=True)
class Spread:
    """The covariance of a random tensor (I, ...), one distribution for each of I items.

    `own` (I, ...) are variances that entries have for themselves, `shared` (r, I, ...) factors: the
    covariance is diag(own) + sign * sum_r f_r f_r'. A negative sign is that of draws without
    replacement, before anything was mixed.
    """

    own: Tensor
    shared: Tensor | None = None
    sign: int = 1

    def variance(self) -> Tensor:
        """Of each entry, never negative."""
        if self.shared is None:
            return self.own
        return (self.own + self.sign * self.shared.square().sum(0)).clamp_min(0)

    def alone(self) -> Spread:
        """Without covariances between entries."""
        return self if self.shared is None or self.sign > 0 else Spread(self.variance())


@dataclass(frozen=True)
class Random:
    """A tracked operand: its place among the leaves of the call, its mean and its spread."""

    place: int
    mean: Tensor
    spread: Spread


Found = tuple[Tensor, Spread] | None
Rule = Callable[[Call, "list[Random]"], Found]


class Moments(Propagation):
    """One forward pass of means with their spreads.

    A rule that returns None does not cover the call, which is refused.
    """

    ways_out: ClassVar[str] = (
        "at= starts behind it, or a method that samples coalitions and needs no rules"
    )

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__(Table(None, None, decompose=False), with_baseline=False)
        self._rules = rules
        # No operation takes its plain course.
        self._records_all = True
        self._spreads: dict[int, Spread] = self.per_tensor()

    def start(self, mean: Tensor, spread: Spread) -> None:
        """From here on follow this mean."""
        self.track(mean, None)
        self._spreads[id(mean)] = spread

    def _apply(self, op: str, function: Any, leaves: list[Any], form: Form) -> Any:
        operands = [
            Random(place, leaf, self._spreads[id(leaf)])
            for place, leaf in enumerate(leaves)
            if id(leaf) in self._spreads
        ]
        call = Call(op, function, tuple(leaves), tuple(o.place for o in operands), form)
        rule = self._rules.get(op)
        found = None if rule is None else rule(call, operands)
        if found is None:
            form_of = "" if rule is None else " in this form"
            self._refuse(op, f"has no rule for means and variances{form_of}, so")
        assert found is not None
        self.start(*found)
        return found[0]

    def _follow(self, result: Any, at_baseline: Any) -> None:
        raise NotImplementedError

    def _query(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if getattr(function, "__name__", "").strip("_") in COMPARISONS:
            self._refuse(function.__name__, "asks which of random numbers is larger, so")
        return function(*args, **kwargs)

    def _set_item(self, args: tuple[Any, ...]) -> None:
        self._refuse("setitem", "has no rule for means and variances, so")


def shared(
    operands: list[Random], run: Callable[[list[Tensor]], Tensor]
) -> tuple[Tensor | None, int]:
    """Factors of what a call makes, and their sign: all operands have them, or those count as zero."""
    known = [o.spread.shared for o in operands if o.spread.shared is not None]
    if not known:
        return None, 1
    parts = [
        o.spread.shared
        if o.spread.shared is not None
        else torch.zeros_like(o.mean).expand(len(known[0]), *o.mean.shape)
        for o in operands
    ]
    made = [run([part[r] for part in parts]) for r in range(len(known[0]))]
    return torch.stack(made), max(o.spread.sign for o in operands if o.spread.shared is not None)


def changes(call: Call, operands: list[Random]) -> Callable[[list[Tensor]], Tensor]:
    """What an affine call makes of changes of its operands: f(changes) - f(0)."""
    places = [operand.place for operand in operands]
    at_zero = call.run({o.place: torch.zeros_like(o.mean) for o in operands})
    # Constants that fill, infinite ones too, do not change.
    filled = None if torch.isfinite(at_zero).all() else torch.isfinite(at_zero)

    def change(replaced: list[Tensor]) -> Tensor:
        made = call.run(dict(zip(places, replaced, strict=True))) - at_zero
        return made if filled is None else torch.where(filled, made, 0.0)

    return change
