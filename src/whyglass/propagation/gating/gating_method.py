"""Rules for the nonlinearities that gate, and what guided backprop and deconvolution share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.method import Attribution, Method
from whyglass.core.scorer import Scorer
from whyglass.propagation.engine.calls import Call, Rule, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.operations import GATES
from whyglass.propagation.engine.passes import intercepted, notes_on

RISING = frozenset({"relu", "relu6", "hardtanh", "elu", "selu", "celu", "softplus", "threshold"})


class _Positive(torch.autograd.Function):
    """Forwards y is unchanged; backwards the source of y gets the positive part of the gradient."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].clamp_min(0), None


class _PositiveAfter(torch.autograd.Function):
    """Forwards x is unchanged; backwards it gets the positive part of the gradient, in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].clamp_min_(0)


def guided(call: Call) -> Tensor:
    """The gradient m_x = f'(x) max(m_y, 0): for ReLU, input and gradient must both be positive."""
    if call.op in RISING:
        # f' is not negative, so the cut can follow it, in memory that nothing else reads.
        position = call.operands[0]
        return call.run({position: _PositiveAfter.apply(call.leaves[position])})
    y = call.run()
    return _Positive.apply(y, y.detach())


def deconvolved(call: Call) -> Tensor:
    """The signal m_x = max(m_y, 0), whatever the input was."""
    x = call.leaves[call.operands[0]]
    with torch.no_grad():
        y = call.run()
    return _Positive.apply(x, y)


@dataclass(frozen=True, kw_only=True)
class GatedMethod(Method):
    """Abstract: the gradient with another backward pass through every gating nonlinearity.

    Gates are relu, relu6, hardtanh, leaky relu, prelu, elu, celu, selu, gelu, silu, mish, hardswish,
    softplus and threshold, as modules, functions or methods, in place or not. Every other operation
    passes its own gradient.
    """

    family: ClassVar[str] = "propagation"
    cost: ClassVar[str] = "1 gradient"
    gate: ClassVar[Rule]

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        table = Table(
            None, None, by_name=dict.fromkeys(GATES, type(self).gate), decompose=False, total=True
        )
        here, passes = intercepted(scorer, lambda _: Propagation(table, with_baseline=False))
        met = sorted(set().union(*(done.with_rule for done in passes)))
        note = (
            f"changed at {', '.join(met)}" if met else "no gate was met: this is the plain gradient"
        )
        checks = (not_flat(here.gradients, scorer.many),)
        notes = (note, *notes_on(passes, "plain gradient"))
        return Attribution(here.gradients, here.scores, checks=checks, notes=notes)
