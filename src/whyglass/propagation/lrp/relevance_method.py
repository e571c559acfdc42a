"""What the methods of the LRP family share: the pass, its checks, and notes of absorbed relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check, completeness_gap, worst_target
from whyglass.core.inputs import flat_sum, multiply
from whyglass.core.method import Attribution, Method
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.propagation.engine.calls import Policy
from whyglass.propagation.engine.passes import intercepted, layers_of, notes_on, one_of
from whyglass.propagation.lrp.composites import Composite, composite
from whyglass.propagation.lrp.modified_gradient import Coefficients, OtherRule, fits
from whyglass.propagation.lrp.products import Products
from whyglass.propagation.lrp.relevance import Bias, Relevance
from whyglass.propagation.lrp.rules import Rule

TOLERANCE = 0.01
LARGEST_CANCELLATION = 100.0
NAMED_LAYERS = 5


@dataclass(frozen=True, kw_only=True)
class RelevanceMethod(Method):
    """Abstract: relevance passed back from the score by the rules of a composite.

    Args:
        rule: a preset's name, a rule for every weighted operation, or a `Composite`.
        bias: "share" lets biases take their share, as zennit and Captum do; "ignore" leaves them out of
            the denominators, so that relevance is conserved.
        unsupported: "error" refuses an operation without a rule; "gradient" passes it by the first
            order of its expansion and records it in the notes.
    """

    rule: str | Rule | Composite = "epsilon"
    bias: Bias = "share"
    unsupported: Policy = "error"

    family: ClassVar[str] = "propagation"
    cost: ClassVar[str] = "1 gradient"
    products: ClassVar[Products] = "signal"

    def __post_init__(self) -> None:
        composite(self.rule)
        one_of("bias", self.bias, Bias)
        one_of("unsupported", self.unsupported, Policy)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        by_coefficients = self._by_coefficients(scorer)
        if by_coefficients is not None:
            here, passes = by_coefficients
            values = multiply(here.gradients, here.points, scorer.many)
            notes = notes_on(passes, "first order")
        else:
            here, passes = self.by_relevance(scorer)
            values, notes = here.gradients, _absorbed(passes) + notes_on(passes, "first order")
        return Attribution(
            values,
            here.scores,
            checks=(conservation(values, here.scores), cancellation(values, here.scores)),
            notes=notes,
        )

    def _by_coefficients(self, scorer: Scorer) -> tuple[Evaluated, list[Coefficients]] | None:
        """A pass of relevance over value, which takes less time, if all rules met allow it."""
        rules = composite(self.rule)
        if self.bias != "share" or not fits(rules):
            return None
        by_name = any(clause.layers for clause in rules.clauses)
        layers = layers_of(scorer.model) if by_name else {}
        try:
            return intercepted(
                scorer, lambda _: Coefficients(rules, self.products, self.unsupported, layers)
            )
        except OtherRule:
            return None

    def by_relevance(self, scorer: Scorer, keep: bool = False) -> tuple[Evaluated, list[Relevance]]:
        """A pass of relevance itself, by any rule; `keep` records that of every operation."""
        rules, layers = composite(self.rule), layers_of(scorer.model)
        return intercepted(
            scorer,
            lambda _: Relevance(rules, self.bias, self.products, self.unsupported, layers, keep),
        )


def conservation(values: Sequence[Tensor], score: Tensor) -> Check:
    """Whether the values add up to the score, row by row."""
    rows = worst_target(completeness_gap(values, score.double()))
    worst = max(rows)
    return Check(
        "conservation",
        worst,
        TOLERANCE,
        "pass" if worst <= TOLERANCE else "warn",
        f"the relevance that arrived differs from the score by {worst:.2g} of it; biases, epsilons, "
        "softmax and constants, such as a class token, can take some",
        rows,
    )


def cancellation(values: Sequence[Tensor], score: Tensor) -> Check:
    """The sum of the values' sizes over the score, row by row."""
    size = flat_sum([value.abs() for value in values], score.dim() == 2)
    rows = worst_target(size / score.double().abs().clamp_min(1e-30))
    worst = max(rows)
    text = f"the sizes of the values add up to {worst:.3g} times the score"
    if worst > LARGEST_CANCELLATION:
        text += ': large values cancel, which rule="gamma" keeps down'
    verdict = "pass" if worst <= LARGEST_CANCELLATION else "warn"
    return Check("cancellation", worst, LARGEST_CANCELLATION, verdict, text, rows)


def _absorbed(passes: Sequence[Relevance]) -> list[str]:
    initial = sum(done.initial for done in passes)
    absorbed: dict[str, float] = {}
    for done in passes:
        for name, lost in done.absorbed.items():
            absorbed[name] = absorbed.get(name, 0.0) + lost
    if not initial:
        return []
    order = sorted(absorbed, key=lambda name: -abs(absorbed[name]))
    shares = [(name, absorbed[name] / initial) for name in order[:NAMED_LAYERS]]
    shares.append(("others", sum(absorbed[name] for name in order[NAMED_LAYERS:]) / initial))
    named = [f"{name} {share:.1%}" for name, share in shares if abs(share) >= 5e-4]
    return [f"did not pass all of the relevance: {', '.join(named)}"] if named else []
