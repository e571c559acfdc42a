"""What the methods of the LRP family share: the pass, the check of conservation, what was absorbed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from torch import Tensor

from whyglass.baseline import Baseline
from whyglass.checks import Check, completeness_gap, worst_target
from whyglass.inputs import flat_sum, times
from whyglass.method import Attribution, Method
from whyglass.propagation.calls import Policy
from whyglass.propagation.coefficients import Coefficients, fits
from whyglass.propagation.composites import Composite, composite
from whyglass.propagation.engine import Propagation, layers_of, one_of, visible
from whyglass.propagation.lrp_rules import Rule
from whyglass.propagation.relevance import Bias, Products, Relevance
from whyglass.scorer import Rows, Scorer

P = TypeVar("P", bound=Propagation)
TOLERANCE = 0.01
MOST = 100.0
TOLD = 5


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
        rules = composite(self.rule)
        by_gradient = self.bias == "share" and fits(rules)
        passes = self._by_gradient(scorer, rules) if by_gradient else self.intercept(scorer)
        here = scorer.at_inputs(gradient=True)
        scorer.interception = None
        values = here.gradients
        if by_gradient:
            values = times(values, here.points, scorer.many)
        return Attribution(
            values,
            here.scores,
            checks=(conservation(values, here.scores), cancellation(values, here.scores)),
            notes=_notes(passes),
        )

    def _by_gradient(self, scorer: Scorer, rules: Composite) -> Sequence[Propagation]:
        """The scorer's gradients become relevance over value."""
        by_name = any(clause.layers for clause in rules.clauses)
        layers = layers_of(scorer.model) if by_name else {}
        return _around(scorer, lambda: Coefficients(rules, self.products, self.unsupported, layers))

    def intercept(self, scorer: Scorer, keep: bool = False) -> Sequence[Relevance]:
        """From here on the scorer's gradients are relevances; the list fills with its passes."""
        rules, layers = composite(self.rule), layers_of(scorer.model)
        return _around(
            scorer,
            lambda: Relevance(rules, self.bias, self.products, self.unsupported, layers, keep),
        )


def _around(scorer: Scorer, make: Callable[[], P]) -> Sequence[P]:
    """A new pass around each forward pass of the scorer: the list that they fill."""
    visible(scorer.model)
    passes: list[P] = []

    def around(_piece: slice, _rows: Rows) -> P:
        passes.append(make())
        return passes[-1]

    scorer.interception = around
    return passes


def conservation(values: Sequence[Tensor], score: Tensor) -> Check:
    """The relevance that arrived is the score, row by row."""
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
    """How many times the score the sizes of the values add up to, row by row."""
    size = flat_sum([value.abs() for value in values], score.dim() == 2)
    rows = worst_target(size / score.double().abs().clamp_min(1e-30))
    worst = max(rows)
    text = f"the sizes of the values add up to {worst:.3g} times the score"
    if worst > MOST:
        text += ': large values cancel, which rule="gamma" or a larger epsilon keeps down'
    verdict = "pass" if worst <= MOST else "warn"
    return Check("cancellation", worst, MOST, verdict, text, rows)


def _notes(passes: Sequence[Propagation]) -> list[str]:
    told = [made for made in passes if isinstance(made, Relevance)]
    seeded = sum(made.seeded for made in told)
    absorbed: dict[str, float] = {}
    for made in told:
        for name, part in made.absorbed.items():
            absorbed[name] = absorbed.get(name, 0.0) + part
    order = sorted(absorbed, key=lambda name: -abs(absorbed[name]))[:TOLD]
    shares = [(name, absorbed[name] / seeded) for name in order if seeded]
    lost = [f"{name} {share:.1%}" for name, share in shares if abs(share) >= 5e-4]
    accepted = sorted({op for made in passes for op in made.accepted})
    notes = [f"did not pass all of the relevance: {', '.join(lost)}"] if lost else []
    if accepted:
        notes.append(f"passed by their first order: {', '.join(accepted)}")
    return notes
