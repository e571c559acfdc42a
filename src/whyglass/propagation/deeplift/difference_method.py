"""What DeepLIFT and related methods share: a pass at the inputs and, beside it, at a baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import resolve
from whyglass.core.checks import completeness
from whyglass.core.inputs import Leaves, differentiable, multiply
from whyglass.core.method import Attribution, Axiom, Method
from whyglass.core.scorer import Scorer
from whyglass.propagation.deeplift import norms, rules, softmax
from whyglass.propagation.deeplift.pooling import max_pool
from whyglass.propagation.deeplift.reveal_cancel import WeightedSum, reveal_cancel
from whyglass.propagation.deeplift.rounding import Rounding, rounding_bound
from whyglass.propagation.engine.calls import Call, Policy, Rule, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.engine.linear_operations import (
    norm_scale,
    scales_output_channels,
    weight_position,
)
from whyglass.propagation.engine.operations import MAX_POOLS
from whyglass.propagation.engine.passes import intercepted, notes_on, one_of

NAMED: dict[str, Rule] = dict.fromkeys(MAX_POOLS, max_pool) | {
    "quotient": rules.quotient,
    "batch_norm": rules.batch_norm,
}
# Rules of operations that ignore a shift of their input, and note how far rounding spoils that.
CANCELLING: dict[str, Callable[[Call, Rounding], Tensor]] = {
    "softmax": softmax.softmax,
    "log_softmax": softmax.log_softmax,
    "logsumexp": softmax.logsumexp,
    "layer_norm": norms.layer_norm,
    "rms_norm": norms.rms_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
}
TOLERANCE = 1e-3
Differences = Literal["rescale", "reveal-cancel", "reveal-cancel-dense"]


class DifferencePass(Propagation):
    """A forward pass at the inputs and, beside it, at the baseline."""

    def __init__(self, baselines: Leaves, differences: Differences, unsupported: Policy) -> None:
        self._scratch = rules.Scratch()
        self.rounding = Rounding(len(baselines[0]))
        table = Table(
            self._rescale if differences == "rescale" else self._reveal_cancel,
            rules.product,
            by_name=NAMED | {op: self._cancelling(rule) for op, rule in CANCELLING.items()},
        )
        super().__init__(table, with_baseline=True, unsupported=unsupported)
        self._baselines, self._rule = baselines, differences
        self._records_all = differences != "rescale"
        self._weighted_sums: dict[int, WeightedSum] = self.per_tensor()
        self.baseline_scores: Tensor | None = None

    def begin(self, leaves: Leaves, first: int = 0) -> None:
        """Follow the leaves; integer ones are the same at the baseline."""
        for leaf, at_baseline in zip(leaves, self._baselines[first:], strict=False):
            if differentiable(leaf):
                self.rounding.meet(leaf.dtype)
                self.track(leaf, at_baseline)

    def end(self, scores: Tensor) -> Tensor:
        """The scores at the baseline come with the pass."""
        self.baseline_scores = self.at_baseline(scores).detach()
        return scores

    def after_call(self, call: Call, result: Any) -> None:
        """Remember weighted sums, whose terms RevealCancel needs."""
        if call.op == "batch_norm":
            before = self._weighted_sums.get(id(call.leaves[call.operands[0]]))
            if before is not None and before.scale is None and scales_output_channels(before.call):
                self._weighted_sums[id(result)] = WeightedSum(before.call, norm_scale(call))
        elif weight_position(call) is not None and (
            self._rule == "reveal-cancel" or not call.op.startswith("conv")
        ):
            self._weighted_sums[id(result)] = WeightedSum(call)

    def _reveal_cancel(self, call: Call) -> Tensor:
        x = call.leaves[call.operands[0]]
        self.rounding.meet(x.dtype)
        source = self._weighted_sums.get(id(x))
        return self._rescale(call) if source is None else reveal_cancel(call, source)

    def _cancelling(self, rule: Callable[[Call, Rounding], Tensor]) -> Rule:
        rounding = self.rounding
        return lambda call: rule(call, rounding)

    def _rescale(self, call: Call) -> Tensor:
        self.rounding.meet(call.leaves[call.operands[0]].dtype)
        return rules.rescale(call, self._scratch)


def propagate(
    scorer: Scorer, baseline: Baseline, rule: Differences, unsupported: Policy
) -> tuple[Attribution, list[DifferencePass]]:
    """The values of DeepLIFT with their scores and check, and the passes that made them."""
    if scorer.layer is not None:
        scorer.at_inputs(gradient=False)
    baselines = resolve(baseline, scorer)
    here, passes = intercepted(
        scorer,
        lambda piece: DifferencePass(tuple(row[piece] for row in baselines), rule, unsupported),
    )
    scorer.cost.evaluations += scorer.rows
    baseline_scores = torch.cat(
        [done.baseline_scores for done in passes if done.baseline_scores is not None]
    )
    differences = tuple(
        point - row if differentiable(point) else torch.zeros_like(point, dtype=torch.float32)
        for point, row in zip(scorer.points, baselines, strict=True)
    )
    values = multiply(here.gradients, differences, scorer.many)
    eps = max(done.rounding.eps for done in passes)
    rounding = rounding_bound(
        torch.cat([done.rounding.noted() for done in passes]),
        eps,
        values,
        here.scores,
        baseline_scores,
    )
    notes = notes_on(passes, "plain gradient")
    answer = Attribution(
        values,
        here.scores,
        baseline_scores,
        baselines,
        checks=(completeness(values, here.scores, baseline_scores, TOLERANCE, rounding, eps),),
        notes=notes,
    )
    return answer, passes


@dataclass(frozen=True, kw_only=True)
class DifferenceMethod(Method):
    """Abstract: differences from a baseline passed back by DeepLIFT's rules.

    Args:
        rule: for functions of one number. "rescale" passes the mean slope. "reveal-cancel" gives the
            positive and the negative terms of the weighted sum before it a slope each, which shows
            terms that cancel; where there is no such sum it is the same. "reveal-cancel-dense" keeps
            convolutions to "rescale".
        unsupported: "error" refuses an operation without a rule; "gradient" takes its plain gradient
            and records it in the notes.
    """

    rule: Differences = "rescale"
    unsupported: Policy = "error"

    family: ClassVar[str] = "propagation"
    axioms: ClassVar[tuple[Axiom, ...]] = ("completeness", "sensitivity", "dummy")

    def __post_init__(self) -> None:
        one_of("rule", self.rule, Differences)
        one_of("unsupported", self.unsupported, Policy)
