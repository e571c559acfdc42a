"""Expected gradients: integrated gradients averaged over a background set of baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import background
from whyglass.core.checks import Check, enough_background, precision, worst_target
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import Attribution, Axiom, Method, integer, positive, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.core.standard_errors import mean_check
from whyglass.gradient.sampling import Draw, Drawn, Moments, average
from whyglass.gradient.smoothing import gradient_type


@dataclass(frozen=True, kw_only=True)
class ExpectedGradients(Method):
    r"""Integrated gradients in expectation over baselines drawn from a background set D.

    .. math:: R_i = E_{x' \sim D,\, \alpha \sim U(0, 1)}
        [(x_i - x'_i) \, \partial S(x' + \alpha (x - x')) / \partial x_i]

    The values add up to S(x) - E[S(x')], within sampling error. Units: score.
    Source: Erion et al. (2021), equation 4; `GradientExplainer` of SHAP is the same sum.

    Args:
        samples: draws of a pair (x', alpha) a row; with `tol` the most there will be.
        tol: stop a row once its standard errors are this small beside its values.
        seed: of the generator.

    >>> import torch, whyglass
    >>> rows = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    >>> method = whyglass.ExpectedGradients(samples=4000)
    >>> e = method(lambda x: x[:, :1] - 3 * x[:, 1:], torch.tensor([[2.0, 5.0]]),
    ...            baseline=whyglass.Background(rows))
    >>> e.values.round()
    tensor([[  1., -12.]])
    """

    samples: int = 200
    tol: float | None = None
    seed: int = 0

    name: ClassVar[str] = "expected-gradients"
    shows: ClassVar[str] = (
        "What each feature added, compared with typical inputs; the parts sum to the "
        "change of score."
    )
    family: ClassVar[str] = "gradient"
    cost: ClassVar[str] = "samples gradients + background evaluations"
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "completeness",
        "sensitivity",
        "implementation invariance",
        "linearity",
        "dummy",
    )
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "background"
    paper: ClassVar[Paper] = Paper(
        "Gabriel Erion, Joseph D. Janizek, Pascal Sturmfels, Scott M. Lundberg and Su-In Lee",
        "Improving performance of deep learning models with axiomatic attribution priors and "
        "expected gradients",
        "Nature Machine Intelligence",
        2021,
        "https://arxiv.org/abs/1906.10670",
    )

    def __post_init__(self) -> None:
        positive_integer("samples", self.samples)
        if self.samples < 2:
            raise BadInput("samples must be 2 or more: one sample has no standard error")
        integer("seed", self.seed)
        if self.tol is not None:
            positive("tol", self.tol)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        if scorer.layer is None and not all(map(differentiable, scorer.inputs)):
            raise BadInput(
                "expected gradients replace every input by the background's, so all must be floats: "
                "wrap the model in a callable that holds the others fixed, or explain at= a layer"
            )
        rows = background(baseline, scorer)
        here = scorer.at_inputs(gradient=False)
        starts = scorer.activations(rows)
        mean, deviation = scorer.scores_over(starts)
        expected, size = mean.to(here.scores), len(starts[0])
        moments = average(
            scorer, self._pairs(scorer.points, starts), self.samples, self.tol, self._estimate
        )
        kinds = [gradient_type(point) for point in scorer.points]
        values = tuple(v.to(kind) for v, kind in zip(moments.mean(), kinds, strict=True))
        errors = tuple(e.to(kind) for e, kind in zip(moments.std_error(), kinds, strict=True))
        return Attribution(
            values,
            here.scores,
            baseline_score=expected,
            baseline=tuple(start.mean(0, keepdim=True) for start in starts),
            std_error=errors,
            checks=(
                _completeness(moments, here.scores, expected),
                precision(values, errors, scorer.many, self.tol or 0.25),
                mean_check(moments.features.draws, "more samples= raise them"),
                enough_background(values, deviation / size**0.5, size, scorer.many),
            ),
        )

    def _estimate(self, moments: Moments) -> tuple[Leaves, Leaves]:
        return moments.mean(), moments.std_error()

    def _pairs(self, points: Leaves, background_rows: Leaves) -> Draw:
        generator = torch.Generator().manual_seed(self.seed)
        count = len(background_rows[0])

        def draw() -> Drawn:
            chosen = int(torch.randint(count, (), generator=generator))
            alpha = float(torch.rand((), generator=generator))

            def at(rows: Tensor) -> tuple[Leaves, Leaves]:
                here = tuple(point[rows.to(point.device)] for point in points)
                start = tuple(
                    leaf[chosen].expand_as(x) for leaf, x in zip(background_rows, here, strict=True)
                )
                steps = tuple(x - b for x, b in zip(here, start, strict=True))
                return tuple(b + alpha * step for b, step in zip(start, steps, strict=True)), steps

            return at

        return draw


def _completeness(moments: Moments, score: Tensor, expected: Tensor) -> Check:
    """The values add up to the change of score, in units of the sum's own standard error."""
    total, error = moments.total()
    gap = (total - (score - expected).cpu().double()).abs()
    rows = worst_target(
        torch.where(gap < 1e-6 * (1 + total.abs()), torch.zeros_like(gap), gap / error)
    )
    worst = max(rows)
    return Check(
        "completeness",
        worst,
        4.0,
        "pass" if worst <= 4 else "fail",
        f"the values add up to the change of score within {worst:.1f} standard errors of their sum",
        rows,
    )
