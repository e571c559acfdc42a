"""Deep SHAP: DeepLIFT averaged over a background set of baselines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import background
from whyglass.core.checks import completeness, enough_background
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable, flat_sum, multiply
from whyglass.core.method import Attribution
from whyglass.core.paper import Paper
from whyglass.core.scorer import Rows, Scorer
from whyglass.core.standard_errors import SampledFeatures, mean_check
from whyglass.propagation.deeplift.difference_method import (
    TOLERANCE,
    DifferenceMethod,
    DifferencePass,
)
from whyglass.propagation.deeplift.rounding import rounding_bound
from whyglass.propagation.engine.passes import notes_on, require_visible_operations


@dataclass(frozen=True, kw_only=True)
class DeepSHAP(DifferenceMethod):
    r"""Mean of DeepLIFT's values over the rows x' of a background set.

    .. math:: R_i = \frac{1}{|D|} \sum_{x' \in D} m_i(x') (x_i - x'_i)

    The values add up to S(x) minus the mean score of the background, to rounding. The standard error
    is that of the mean over background rows, as if they were drawn from a population. Units: score.
    Source: Lundberg & Lee (2017), section 4.2.

    >>> import torch, whyglass
    >>> model = lambda x: torch.relu(x[:, 0]) * x[:, 1]
    >>> rows = whyglass.Background(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    >>> whyglass.DeepSHAP()(model, torch.tensor([[2.0, 3.0]]), baseline=rows).values
    tensor([[2.5000, 3.0000]])
    """

    name: ClassVar[str] = "deep-shap"
    shows: ClassVar[str] = (
        "What each feature's difference from typical inputs did to the score; the parts sum to it."
    )
    cost: ClassVar[str] = "1 gradient + 1 evaluation a background row"
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "background"
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        require_visible_operations(scorer.model)
        if scorer.layer is None and not all(map(differentiable, scorer.inputs)):
            raise BadInput(
                "deep SHAP replaces every input by the background's, so all must be floats: wrap the "
                "model in a callable that holds the others fixed, or explain at= a layer"
            )
        rows_of_background = background(baseline, scorer)
        here = scorer.at_inputs(gradient=False)
        baselines = scorer.activations(rows_of_background)
        count = len(baselines[0])
        features = SampledFeatures(scorer.points, math.prod(here.scores.shape[1:]), count)
        sums, baseline_scores, noted, ended = self._sums(scorer, baselines, here.scores, features)
        eps = max(done.rounding.eps for done in ended)
        scorer.cost.evaluations += scorer.rows * count
        values = tuple(total / count for total in sums[0])
        variances = [
            (square / count - value**2).clamp_min(0)
            for square, value in zip(sums[1], values, strict=True)
        ]
        errors = tuple((variance / max(count - 1, 1)).sqrt() for variance in variances)
        error = flat_sum([part**2 for part in errors], scorer.many).sqrt()
        expected = (baseline_scores / count).to(here.scores)
        notes = notes_on(ended, "plain gradient")
        return Attribution(
            tuple(_narrow(value, p) for value, p in zip(values, scorer.points, strict=True)),
            here.scores,
            expected,
            tuple(row.mean(0, keepdim=True) for row in baselines),
            tuple(_narrow(part, p) for part, p in zip(errors, scorer.points, strict=True)),
            checks=(
                completeness(
                    values,
                    here.scores,
                    expected,
                    TOLERANCE,
                    rounding_bound(noted / count, eps, values, here.scores, expected),
                    eps,
                ),
                enough_background(values, error, count, scorer.many),
                mean_check(features.draws, "more background rows raise them"),
            ),
            notes=notes,
        )

    def _sums(
        self, scorer: Scorer, baselines: Leaves, scores: Tensor, features: SampledFeatures
    ) -> tuple[list[list[Tensor]], Tensor, Tensor, list[DifferencePass]]:
        """Sums over the background of values, squares, scores and rounding, and the passes.

        `features` gets the values themselves.
        """
        width, count = scorer.rows, len(baselines[0])
        rows = torch.arange(width).repeat(count)
        which = torch.arange(count).repeat_interleave(width)
        passes: list[DifferencePass] = []

        def around(piece: slice, _rows: Rows) -> DifferencePass:
            start = tuple(row[which[piece]] for row in baselines)
            passes.append(DifferencePass(start, self.rule, self.unsupported))
            return passes[-1]

        def points(piece: slice) -> Leaves:
            return tuple(point[rows[piece]] for point in scorer.points)

        sums = [
            [
                torch.zeros((*p.shape, *scores.shape[1:]), dtype=torch.float64, device=p.device)
                for p in scorer.points
            ]
            for _ in range(2)
        ]
        baseline_scores = torch.zeros(scores.shape, dtype=torch.float64)
        noted = torch.zeros(width, dtype=torch.float64)
        scorer.interception = around
        for part in scorer.gradients_at(points, rows):
            differences = tuple(
                p - row[which[part.piece]] for p, row in zip(part.points, baselines, strict=True)
            )
            values = multiply(part.gradients, differences, scorer.many)
            features.add(which[part.piece], rows[part.piece], values)
            for leaf, value in enumerate(values):
                position = rows[part.piece].to(value.device)
                for power, total in enumerate(sums, 1):
                    total[leaf].index_add_(0, position, value.double() ** power)
            done = passes[-1]
            assert done.baseline_scores is not None
            baseline_scores.index_add_(0, rows[part.piece], done.baseline_scores.double().cpu())
            noted.index_add_(0, rows[part.piece], done.rounding.noted())
        scorer.interception = None
        return sums, baseline_scores, noted, passes


def _narrow(value: Tensor, point: Tensor) -> Tensor:
    return value if point.dtype == torch.float64 else value.float()
