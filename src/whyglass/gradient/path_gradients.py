"""Path gradients: the change of score from the baseline, shared out along any path."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import both_ends
from whyglass.core.checks import Check, completeness, worst_target
from whyglass.core.inputs import Leaves, flat_rows, per_row
from whyglass.core.method import Attribution, Axiom, Method, positive, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.gradient.adaptive import refine
from whyglass.gradient.path_integral import Curve, Path, integrate, straight
from whyglass.gradient.quadrature import Rule, check
from whyglass.gradient.sampling import relative_error
from whyglass.gradient.smoothing import gradient_type

MAP_TOLERANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class PathMethod(Method):
    """Abstract: the integral of the gradient over a curve from baseline to input."""

    steps: int = 64
    rule: Rule = "adaptive"
    tol: float = 0.01

    family: ClassVar[str] = "gradient"
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "completeness",
        "sensitivity",
        "implementation invariance",
        "linearity",
        "dummy",
    )
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"

    def __post_init__(self) -> None:
        positive_integer("steps", self.steps)
        positive("tol", self.tol)
        check(self.rule, self.steps)

    @abstractmethod
    def curve(self) -> Curve:
        """Where the path runs."""

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        path, here = both_ends(
            baseline,
            scorer,
            self.rule == "adaptive",
            lambda starts: Path(starts, scorer.points, self.curve()),
        )
        starts = path.starts
        checks: list[Check] = []
        errors: Leaves | None = None
        same = _at_baseline(starts, scorer.points)
        count = int(same.sum())
        # In another batch the same input may score some roundings more or less.
        same = per_row(same.to(here.scores.device), here.scores)
        if self.rule == "adaptive":
            refined = refine(scorer, path, here, self.steps, self.tol)
            values, errors = refined.values, refined.std_error
            start_scores = torch.where(same, here.scores, refined.start_scores)
            change = (here.scores - start_scores).cpu().double().abs()
            raw = worst_target(torch.where(change > 0, refined.gap.abs() / change, 0.0))
            checks.append(completeness(values, here.scores, start_scores, self.tol))
            checks.append(_map_error(values, errors, scorer.many, max(raw)))
        else:
            every = torch.arange(scorer.rows)
            start_scores = scorer.scores(lambda piece: tuple(s[piece] for s in starts), every)
            start_scores = torch.where(same, here.scores, start_scores)
            values = integrate(scorer, path, self.rule, self.steps)
            checks.append(completeness(values, here.scores, start_scores, self.tol))
        kinds = [gradient_type(point) for point in scorer.points]
        return Attribution(
            tuple(value.to(kind) for value, kind in zip(values, kinds, strict=True)),
            here.scores,
            start_scores.to(here.scores),
            starts,
            None
            if errors is None
            else tuple(error.to(kind) for error, kind in zip(errors, kinds, strict=True)),
            checks,
            [f"{count} rows equal their baseline: their values are zero"] if count else [],
        )


@dataclass(frozen=True, kw_only=True)
class PathGradients(PathMethod):
    r"""The gradient integrated over a path gamma with gamma(0) = x' and gamma(1) = x.

    .. math:: R_i = \int_0^1 \frac{\partial S(\gamma(\alpha))}{\partial \gamma_i}
        \, \frac{d \gamma_i}{d \alpha} \, d\alpha

    The values add up to S(x) - S(x') on every path; how they are shared depends on it. Units: score.
    Source: Sundararajan, Taly & Yan (2017), equation 2.

    Args:
        path: `(start, end, alpha) -> point` for one tensor: start and end (n, ...), alpha
            (n, 1, ..., 1). It must be at the start for 0 and at the end for 1.
        steps, rule, tol: as for `IntegratedGradients`.

    >>> import torch, whyglass
    >>> def first_then_second(start, end, alpha):
    ...     order = torch.tensor([0.0, 1.0])
    ...     return start + (end - start) * (2 * alpha - order).clamp(0, 1)
    >>> product = lambda x: x[:, 0] * x[:, 1]
    >>> method = whyglass.PathGradients(path=first_then_second)
    >>> method(product, torch.tensor([[2.0, 3.0]])).values
    tensor([[0., 6.]])
    """

    path: Curve = straight

    name: ClassVar[str] = "path-gradients"
    shows: ClassVar[str] = (
        "What each feature added along a chosen path from the baseline to this input."
    )
    cost: ClassVar[str] = "steps gradients"
    paper: ClassVar[Paper] = Paper(
        "Mukund Sundararajan, Ankur Taly and Qiqi Yan",
        "Axiomatic Attribution for Deep Networks",
        "ICML",
        2017,
        "https://arxiv.org/abs/1703.01365",
    )

    def curve(self) -> Curve:
        return self.path


def _map_error(values: Leaves, errors: Leaves, many: bool, raw: float) -> Check:
    """The estimated error of the map itself, which completeness alone does not bound."""
    rows = worst_target(relative_error(values, errors, many))
    worst = max(rows)
    return Check(
        "quadrature error",
        worst,
        MAP_TOLERANCE,
        "pass" if worst <= MAP_TOLERANCE else "warn",
        f"the map is off by an estimated {worst:.1%} (Euclidean norm); its sum missed the change of "
        f"score by {raw:.1%} before the weights were adjusted; more steps lower both",
        rows,
    )


def _at_baseline(starts: Leaves, points: Leaves) -> Tensor:
    """(B,) whether a row equals its baseline."""
    parts = [flat_rows(s == p).all(1).cpu() for s, p in zip(starts, points, strict=True)]
    return torch.stack(parts).all(0)
