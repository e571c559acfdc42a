"""DeepLIFT: differences from a baseline, passed back from the score to the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.baseline import Baseline, resolve
from whyglass.checks import completeness
from whyglass.errors import BadInput
from whyglass.inputs import Leaves, explained, times
from whyglass.method import Attribution, Axiom, Method
from whyglass.paper import Paper
from whyglass.propagation import deeplift_rules as rules
from whyglass.propagation.engine import Policy, Propagation, Table, visible
from whyglass.scorer import Rows, Scorer

MAX_POOLS = [f"{kind}max_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3)]
NAMED = dict.fromkeys(MAX_POOLS, rules.max_pool) | {
    "logsumexp": rules.logsumexp,
    "quotient": rules.quotient,
}
TABLE = Table(rules.rescale, rules.product, NAMED)
TOLERANCE = 1e-3


class Pass(Propagation):
    """A forward pass at the inputs and, beside it, at the baseline."""

    def __init__(self, starts: Leaves, unsupported: Policy) -> None:
        super().__init__(TABLE, shadows=True, unsupported=unsupported)
        self._starts = starts
        self.start_scores: Tensor | None = None

    def begin(self, leaves: Leaves) -> None:
        """Follow the leaves; integer ones are the same at the baseline."""
        for leaf, start in zip(leaves, self._starts, strict=True):
            if explained(leaf):
                self.track(leaf, start)

    def end(self, scores: Tensor) -> None:
        """The scores at the baseline come with the pass."""
        self.start_scores = self.at_baseline(scores).detach()


@dataclass(frozen=True, kw_only=True)
class DeepLIFT(Method):
    r"""Differences from a baseline x', passed back by multipliers.

    .. math:: R_i = m_i (x_i - x'_i), \quad
        m_x = m_y \frac{f(x) - f(x')}{x - x'} \; \text{(Rescale)}

    Linear operations pass their weights. Elementwise ones pass the Rescale rule, the derivative where
    x = x'. A product of two activations passes to each the mean of the other at both ends, which is
    the Shapley value of two players, and a quotient as the product it undoes; softmax, norms and
    attention pass as the elementary operations they are made of; maxima and max-pooling pass their
    rise and fall to the places that made them. The values add up to S(x) - S(x') to rounding on any
    network whose operations have rules. Units: score.
    Source: Shrikumar, Greenside & Kundaje (2017), sections 3.2 to 3.5.

    Args:
        unsupported: "error" refuses an operation without a rule; "gradient" takes its plain gradient
            and records it in the notes.

    >>> import torch, whyglass
    >>> model = lambda x: 1 - torch.relu(1 - x[:, 0])
    >>> whyglass.DeepLIFT()(model, torch.tensor([[2.0]])).values
    tensor([[1.]])
    """

    unsupported: Policy = "error"

    name: ClassVar[str] = "deeplift"
    shows: ClassVar[str] = (
        "What each feature's difference from the baseline did to the score; the parts sum to its "
        "change."
    )
    family: ClassVar[str] = "propagation"
    cost: ClassVar[str] = "1 gradient + 1 score"
    axioms: ClassVar[tuple[Axiom, ...]] = ("completeness", "sensitivity", "dummy")
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Avanti Shrikumar, Peyton Greenside and Anshul Kundaje",
        "Learning Important Features Through Propagating Activation Differences",
        "ICML",
        2017,
        "https://arxiv.org/abs/1704.02685",
    )

    def __post_init__(self) -> None:
        if self.unsupported not in {"error", "gradient"}:
            raise BadInput(f'unsupported must be "error" or "gradient", not {self.unsupported!r}')

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        visible(scorer.model)
        if scorer.probe is not None:
            scorer.at_inputs(gradient=False)
        starts = resolve(baseline, scorer)
        passes: list[Pass] = []

        def around(piece: slice, _rows: Rows) -> Pass:
            passes.append(Pass(tuple(start[piece] for start in starts), self.unsupported))
            return passes[-1]

        scorer.interception = around
        here = scorer.at_inputs(gradient=True)
        scorer.cost.evaluations += scorer.rows
        found = [p.start_scores for p in passes if p.start_scores is not None]
        start_scores = torch.cat(found)
        steps = tuple(
            point - start if explained(point) else torch.zeros_like(point, dtype=torch.float32)
            for point, start in zip(scorer.points, starts, strict=True)
        )
        values = times(here.gradients, steps, scorer.many)
        accepted = sorted({op for p in passes for op in p.accepted})
        notes = [f"passed by their plain gradient: {', '.join(accepted)}"] if accepted else []
        return Attribution(
            values,
            here.scores,
            start_scores,
            starts,
            checks=(completeness(values, here.scores, start_scores, TOLERANCE),),
            notes=notes,
        )
