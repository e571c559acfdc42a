"""What SmoothGrad, its square and VarGrad share: gradients under Gaussian noise on the input."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat, precision
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable, flat_rows, per_row
from whyglass.core.method import Attribution, Method, integer, positive, positive_integer
from whyglass.core.scorer import Scorer
from whyglass.core.standard_errors import mean_check
from whyglass.gradient.sampling import Draw, Drawn, Moments, average


@dataclass(frozen=True, kw_only=True)
class Smoothing(Method):
    """Abstract. Noise of standard deviation `noise` times the range (max - min) of each row.

    Args:
        samples: noisy copies of each row; with `tol` the most there will be.
        noise: standard deviation of the noise as a share of the row's range.
        tol: stop a row once its standard errors are this small beside its values.
        seed: of the generator that draws the noise.
    """

    samples: int = 32
    noise: float = 0.15
    tol: float | None = None
    seed: int = 0

    family: ClassVar[str] = "gradient"
    cost: ClassVar[str] = "samples gradients"
    powers: ClassVar[int] = 2
    squared: ClassVar[bool] = False
    # Whether zero everywhere says that the score is flat.
    never_flat: ClassVar[bool] = True
    # Unknowns that the values take from the samples of a feature.
    fitted: ClassVar[int] = 1

    def __post_init__(self) -> None:
        positive_integer("samples", self.samples)
        positive("noise", self.noise)
        integer("seed", self.seed)
        if self.tol is not None:
            positive("tol", self.tol)
        if self.samples < 2:
            raise BadInput("samples must be 2 or more: one sample has no standard error")

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        here = scorer.at_inputs(gradient=False)
        moments = average(
            scorer,
            self._noise(scorer.points),
            self.samples,
            self.tol,
            self.finish,
            powers=self.powers,
            squared=self.squared,
        )
        values, errors = self.finish(moments)
        kinds = [gradient_type(point) for point in scorer.points]
        values = tuple(v.to(kind) for v, kind in zip(values, kinds, strict=True))
        errors = tuple(e.to(kind) for e, kind in zip(errors, kinds, strict=True))
        checks = [
            precision(values, errors, scorer.many, self.tol or 0.25),
            mean_check(
                self.averaged(moments.features.draws), "more samples= raise them", self.fitted
            ),
        ]
        if self.never_flat:
            checks.append(not_flat(values, scorer.many))
        return Attribution(values, here.scores, std_error=errors, checks=checks)

    def averaged(self, draws: Tensor) -> Tensor:
        """What the values are means of, from what was drawn (S, B, F)."""
        return draws

    @abstractmethod
    def finish(self, moments: Moments) -> tuple[Leaves, Leaves]:
        """Values and standard errors."""

    def _noise(self, points: Leaves) -> Draw:
        generator = torch.Generator().manual_seed(self.seed)
        scales = [
            self.noise * (flat_rows(point).amax(1) - flat_rows(point).amin(1))
            if differentiable(point)
            else None
            for point in points
        ]

        def draw() -> Drawn:
            noises = [
                torch.randn((1, *point.shape[1:]), generator=generator).to(point)
                if differentiable(point)
                else None
                for point in points
            ]

            def at(rows: Tensor) -> tuple[Leaves, None]:
                made: list[Tensor] = []
                for point, scale, noise in zip(points, scales, noises, strict=True):
                    if len(rows) < len(point):
                        here = rows.to(point.device)
                        point, scale = point[here], None if scale is None else scale[here]
                    if scale is not None and noise is not None:
                        point = torch.addcmul(point, per_row(scale, noise), noise)
                    made.append(point)
                return tuple(made), None

            return at

        return draw


def gradient_type(point: Tensor) -> torch.dtype:
    """float64 stays; everything narrower is answered in float32."""
    return torch.float64 if point.dtype == torch.float64 else torch.float32
