"""Means and variances passed forwards: the output of a network at a random input, to second order.

The tensors that the model computes are means. Each one that descends from the input has a
`Covariance`. Calls are seen as in the engine, so that modules, functions and in-place calls are alike,
and an operation without a rule is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import Form, packed
from whyglass.propagation.engine.calls import Call, Table
from whyglass.propagation.engine.functions import Function
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.operations import COMPARISONS

CHOICES = COMPARISONS | {"argmax", "argmin", "argsort"}


@dataclass(frozen=True)
class Covariance:
    """The covariance of a random tensor (I, ...), one distribution for each of I items.

    It is diag(d) + sign * sum_r f_r f_r', of a `diagonal` d (I, ...) and `factors` f (r, I, ...). Draws
    without replacement have a negative sign, until entries are mixed.
    """

    diagonal: Tensor
    factors: Tensor | None = None
    sign: int = 1

    def variance(self) -> Tensor:
        """The variance of each entry, never negative."""
        if self.factors is None:
            return self.diagonal
        return (self.diagonal + self.sign * self.factors.square().sum(0)).clamp_min(0)

    def without_subtraction(self) -> Covariance:
        """The same variances; factors that are subtracted are dropped."""
        return self if self.factors is None or self.sign > 0 else Covariance(self.variance())


@dataclass(frozen=True)
class RandomOperand:
    """A tracked operand: its position among the leaves of the call, its mean and its covariance."""

    position: int
    mean: Tensor
    covariance: Covariance


Result = tuple[Tensor, Covariance] | None
Rule = Callable[[Call, "list[RandomOperand]"], Result]


class Moments(Propagation):
    """One forward pass of means with their covariances.

    A rule that returns None does not cover the call, which is refused.
    """

    needs_gradient: ClassVar[bool] = False
    ways_out: ClassVar[str] = (
        "at= starts behind it, or a method that samples coalitions and needs no rules"
    )

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__(Table(None, None, decompose=False), with_baseline=False)
        self._rules = rules
        # Every operation needs a rule.
        self._records_all = True
        self._covariances: dict[int, Covariance] = self.per_tensor()

    def start(self, mean: Tensor, covariance: Covariance) -> None:
        """From here on follow this mean."""
        self.track(mean, None)
        self._covariances[id(mean)] = covariance

    def _apply(self, op: str, function: Any, leaves: list[Any], form: Form) -> Any:
        operands = [
            RandomOperand(position, leaf, self._covariances[id(leaf)])
            for position, leaf in enumerate(leaves)
            if id(leaf) in self._covariances
        ]
        call = Call(op, function, tuple(leaves), tuple(o.position for o in operands), form)
        rule = self._rules.get(op)
        result = None if rule is None else rule(call, operands)
        if result is None:
            form_of = "" if rule is None else " in this form"
            self._refuse(op, f"has no rule for means and variances{form_of}, so")
        assert result is not None
        self.start(*result)
        return result[0]

    def _query(
        self, known: Function, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if known.op in CHOICES:
            self._refuse(known.op, "asks which of random numbers is larger, so")
        return function(*args, **kwargs)

    def _constant(
        self, known: Function, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if known.op not in {"detach", "data"}:
            self._refuse(known.op, "takes a random number for a constant, so")
        return self._dispatch("clone", torch.clone, args, {}, *packed(args, {}))


def combined_factors(
    operands: list[RandomOperand], run: Callable[[list[Tensor]], Tensor]
) -> tuple[Tensor | None, int]:
    """The factors of a call's result, and their sign; operands without factors count as zero."""
    known = [o.covariance.factors for o in operands if o.covariance.factors is not None]
    if not known:
        return None, 1
    parts = [
        o.covariance.factors
        if o.covariance.factors is not None
        else torch.zeros_like(o.mean).expand(len(known[0]), *o.mean.shape)
        for o in operands
    ]
    made = [run([part[r] for part in parts]) for r in range(len(known[0]))]
    return torch.stack(made), max(
        o.covariance.sign for o in operands if o.covariance.factors is not None
    )


def linear_part(call: Call, operands: list[RandomOperand]) -> Callable[[list[Tensor]], Tensor]:
    """The linear part of an affine call f, as a function of the operands: f(operands) - f(0)."""
    positions = [operand.position for operand in operands]
    at_zero = call.run({o.position: torch.zeros_like(o.mean) for o in operands})
    # The linear part of a constant, which can be infinite, is zero.
    finite = None if torch.isfinite(at_zero).all() else torch.isfinite(at_zero)

    def apply(replaced: list[Tensor]) -> Tensor:
        made = call.run(dict(zip(positions, replaced, strict=True))) - at_zero
        return made if finite is None else torch.where(finite, made, 0.0)

    return apply
