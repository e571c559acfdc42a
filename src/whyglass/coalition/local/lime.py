"""LIME: a linear model of the score around the input, in terms of who is present."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from whyglass.coalition.background_covariates import as_key, covariate_columns, covariates
from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.evaluations import cached_plan
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.local.kernel_sampling import (
    EVEN,
    Kernel,
    KernelSample,
    kernel_sample,
    log_kernel,
    own_weights,
)
from whyglass.coalition.weighted_regression import Fit, WeightedRegression, fit_chosen
from whyglass.core.checks import Check, worst_target
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, positive, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.standard_errors import Sampled

POOR_FIT = 0.5


@dataclass(frozen=True, kw_only=True)
class LIME(SampledCoalitions):
    r"""Slopes of a linear model fitted to the scores of random coalitions, the near ones weighing more.

    .. math:: \min_{w, w_0} \sum_z \pi(z) \, [v(z) - w_0 - w^\top z]^2 + \Omega(w), \quad
        \pi(z) = \exp\left(-\frac{D(1, z)^2}{2 \sigma^2}\right)

    z in {0, 1}^n says who is present. Coalitions are drawn as often as the kernel weighs their size,
    without replacement; sizes that the budget pays for are used whole, with a budget for all 2^n every
    one. So any width is answered: where it is narrow, by coalitions that lack one or two players.
    Omega is nothing, alpha times the sum of squares (ridge), or the choice of the `features` players
    that first enter the lasso's path, refitted without penalty. Each coalition meets one background
    row, in turn; where the sample allows it, what that row has in place of each player is fitted
    beside, in a line and in steps at its quantiles, and taken out of the scores.

    The check "fit" is the share of weighted variance that the linear model leaves unexplained; "rank"
    fails where the sample leaves slopes open. Standard errors are those of the regression over draws;
    with a lasso they take the choice as given. Unlike the original for tables, a column is present or
    absent, never binned; and the original draws each size by its number of coalitions alone. Units:
    score. Source: Ribeiro, Singh & Guestrin (2016), equations 1 and 2, algorithm 1.

    Args:
        kernel: the distance D: "euclidean", "cosine" (1 minus the cosine), or a callable from
            coalitions (S, n) to weights (S,).
        width: sigma; by default 0.75 sqrt(n) for the Euclidean distance and 0.25 for the cosine.
        regulariser: "none", "ridge" or "lasso".
        alpha: weight of the ridge.
        features: how many players a lasso keeps.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.LIME()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3.4412, 3.4412, 1.0000]])
    """

    kernel: Kernel = "euclidean"
    width: float | None = None
    regulariser: Literal["none", "ridge", "lasso"] = "none"
    alpha: float = 1.0
    features: int = 10

    name: ClassVar[str] = "lime"
    shows: ClassVar[str] = (
        "The slopes of a linear model fitted to the scores of the input's variants."
    )
    adds_up: ClassVar[bool] = False
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "linearity")
    paper: ClassVar[Paper] = Paper(
        "Marco Tulio Ribeiro, Sameer Singh and Carlos Guestrin",
        '"Why Should I Trust You?": Explaining the Predictions of Any Classifier',
        "KDD",
        2016,
        "https://arxiv.org/abs/1602.04938",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.kernel) and self.kernel not in {"euclidean", "cosine"}:
            raise BadInput(
                f'kernel must be "euclidean", "cosine" or a callable, not {self.kernel!r}'
            )
        if self.regulariser not in {"none", "ridge", "lasso"}:
            raise BadInput(f'regulariser must be "none", "ridge" or "lasso": {self.regulariser!r}')
        if self.width is not None:
            positive("width", self.width)
        positive("alpha", self.alpha)
        positive_integer("features", self.features)

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        self._draws(groups.count, absent)

    def _draws(self, n: int, absent: Masker) -> int:
        """How many evaluations the budget pays for beside those of nobody and everybody."""
        draws = absent.affords(self.budget)
        least = min(2 * n, (2**n - 2) * absent.background_size)
        if draws < least:
            raise BadInput(
                f"budget {self.budget} is too small for a regression on {n} players, which takes "
                f"{absent.evaluations(least)} evaluations a row at least: raise it, or group features "
                "with players= (players=8 makes 8 windows along each axis)"
            )
        return draws

    def estimate(self, game: Game) -> Estimate:
        zeros = torch.zeros(game.rows, game.n, game.full.shape[1], dtype=torch.float64)
        estimate, unexplained = Sampled(zeros, zeros.clone(), zeros.clone()), zeros[:, 0].clone()
        background = as_key(game.coordinates_of_background())
        logs = log_kernel(game.n, self.kernel, self.width)
        active, undetermined = torch.arange(game.rows), 0
        for draws in self._stages(game.n, self._draws(game.n, game.masker)):
            plan = (game.n, game.background_size, draws, logs, self._even(), self.seed)
            sample, evaluations = kernel_sample(game.n * draws, *plan)
            # The score of the input is taken off, so that a score that never changes gives zeros.
            scores = game.scores(evaluations, active) - game.full[active][:, None]
            fit, undetermined = self._fit(
                plan, sample, background, scores.transpose(0, 1).flatten(1)
            )
            by_row = scores.shape[::2]
            for whole, part in zip(estimate, (fit.slopes, fit.errors, fit.freedom), strict=True):
                whole[active] = part.unflatten(0, by_row).transpose(1, 2)
            unexplained[active] = 1 - fit.explained.unflatten(0, by_row)
            active = self.unfinished(estimate.values[active], estimate.errors[active], active)
            if not len(active):
                break
        checks = (_fit_check(unexplained), *self.sampling_checks(estimate))
        if undetermined:
            checks = (_rank_check(undetermined, game), *checks)
        return Estimate(*estimate[:2], checks)

    def _even(self) -> float:
        return EVEN if callable(self.kernel) else 0.0

    def _stages(self, n: int, most: int) -> list[int]:
        """Numbers of draws after which rows may stop: doubling up to what the budget pays for."""
        stages = [most]
        while self.tol is not None and stages[-1] // 2 >= max(4 * n, 16):
            stages.append(stages[-1] // 2)
        return stages[::-1]

    def _fit(
        self, plan: Plan, sample: KernelSample, background: bytes | None, scores: Tensor
    ) -> tuple[Fit, int]:
        """The fit to C columns of scores (S, C), and how many slopes the sample leaves open."""
        alpha = self.alpha if self.regulariser == "ridge" else 0.0
        if callable(self.kernel):
            # What a callable returns may change: nothing of it is remembered.
            sample = sample.weighed(own_weights(sample.coalitions, self.kernel), plan[3])
            fitted = regression_on(sample, alpha, background)
        else:
            fitted = regression(sample.coalitions.numel(), plan, alpha, background)
        if self.regulariser != "lasso":
            return fitted.fit(scores), fitted.undetermined
        scores = fitted.without_further(scores)
        fit = fit_chosen(sample.coalitions, sample.weights, scores, sample.chance, self.features)
        return fit, fitted.undetermined


# Players, background rows, draws, the logarithm of the kernel by size, even draws, and the seed.
Plan: TypeAlias = tuple[int, int, int, tuple[float, ...], float, int]


@cached_plan
def regression(plan: Plan, alpha: float, background: bytes | None) -> WeightedRegression:
    """The regression on the sample of a plan, without any scores."""
    sample, _ = kernel_sample(plan[0] * plan[2], *plan)
    return regression_on(sample, alpha, background)


def regression_on(
    sample: KernelSample, alpha: float, background: bytes | None
) -> WeightedRegression:
    """The regression on a sample; `background` holds the coordinates of its rows, if any."""
    n = sample.coalitions.shape[1]
    kinds = covariates(background, n, sample.random // 6)
    further = (
        covariate_columns(~sample.coalitions, kinds[-1], sample.background_rows) if kinds else None
    )
    # The weights sum to one, and alpha stands beside a sum over as many coalitions, all sizes alike.
    alpha = min(alpha / sample.total, 1e100) if alpha else 0.0
    return WeightedRegression(sample.coalitions, sample.weights, alpha, sample.chance, further)


def _rank_check(undetermined: int, game: Game) -> Check:
    """Some slopes are not determined by the sample."""
    return Check(
        "rank",
        undetermined / game.n,
        0.0,
        "fail",
        f"the coalitions do not determine the slopes of {undetermined} of {game.n} players, which are "
        "the smallest that fit: raise the budget, or use a kernel that weighs more coalitions",
        (undetermined / game.n,) * game.rows,
    )


def _fit_check(unexplained: Tensor) -> Check:
    """How much of the scores' weighted variance the linear model leaves unexplained."""
    rows = worst_target(unexplained.clamp(0, 1))
    worst = max(rows)
    return Check(
        "fit",
        worst,
        POOR_FIT,
        "pass" if worst <= POOR_FIT else "warn",
        f"the linear model leaves {worst:.0%} of the scores' weighted variance unexplained",
        rows,
    )
