"""LIME: a linear model of the score around the input, in terms of who is present."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from whyglass.coalition.background_covariates import as_key, covariate_columns, covariates
from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.evaluations import Evaluations, cached_plan
from whyglass.coalition.game.game import Game, members
from whyglass.coalition.game.maskers import Masker, coordinates
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.weighted_regression import Fit, WeightedRegression, fit_chosen
from whyglass.core.checks import Check, worst_target
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, positive, positive_integer
from whyglass.core.paper import Paper

Kernel = Literal["euclidean", "cosine"] | Callable[[Tensor], Tensor]
POOR_FIT = 0.5


@dataclass(frozen=True, kw_only=True)
class LIME(SampledCoalitions):
    r"""Slopes of a linear model fitted to the scores of random coalitions, the near ones weighing more.

    .. math:: \min_{w, w_0} \sum_z \pi(z) \, [v(z) - w_0 - w^\top z]^2 + \Omega(w), \quad
        \pi(z) = \exp\left(-\frac{D(1, z)^2}{2 \sigma^2}\right)

    z in {0, 1}^n says who is present: each coalition is as likely as any other, and where the budget
    pays for all 2^n each is used once. Omega is nothing, alpha times the sum of squares (ridge), or
    the choice of the `features` players that first enter the lasso's path, refitted without penalty.
    Each coalition meets one background row, in turn; where the sample allows it, what that row has in
    place of each player is fitted beside, in a line and in steps at its quantiles, and taken out of the
    scores. The check "fit" is the share of weighted variance that the linear model leaves unexplained.
    Standard errors are those of the regression over draws; with a lasso they take the choice as
    given. Unlike the original for tables, a column is present or absent, never binned. Units: score.
    Source: Ribeiro, Singh & Guestrin (2016), equations 1 and 2, algorithm 1.

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
        """How many coalitions the budget pays for, at most all."""
        ends = 1 + absent.nothing.background_size
        draws = self.budget - ends
        if n < 40 and (2**n - 2) * absent.background_size <= draws:
            return 2**n * absent.background_size
        if draws < 2 * n:
            raise BadInput(
                f"budget {self.budget} is too small for a regression on {n} players, which takes "
                f"{ends + 2 * n} evaluations a row at least: raise it, or group features with "
                "players= (players=8 makes 8 windows along each axis)"
            )
        return draws

    def estimate(self, game: Game) -> Estimate:
        n, most = game.n, self._draws(game.n, game.masker)
        values = torch.zeros(game.rows, n, game.full.shape[1], dtype=torch.float64)
        errors, explained = torch.zeros_like(values), torch.zeros_like(values[:, 0])
        absent = as_key(coordinates(game.masker))
        active = torch.arange(game.rows)
        for draws in self._stages(n, game.background_size, most):
            plan = (n, game.background_size, draws, self.seed)
            scores = game.scores(sampled(n * draws, *plan)[1], active)
            found = self._fit(plan, absent, scores.transpose(0, 1).flatten(1))
            by_row = scores.shape[::2]
            values[active] = found.slopes.unflatten(0, by_row).transpose(1, 2)
            errors[active] = found.errors.unflatten(0, by_row).transpose(1, 2)
            explained[active] = found.explained.unflatten(0, by_row)
            active = self.unfinished(values[active], errors[active], active)
            if not len(active):
                break
        return Estimate(values, errors, (_fits(explained), self.precision(values, errors)))

    def _stages(self, n: int, background_size: int, most: int) -> list[int]:
        """Numbers of draws after which rows may stop: doubling up to what the budget pays for."""
        stages = [most]
        stops = self.tol is not None and not _whole(n, background_size, most)
        while stops and stages[-1] // 2 >= max(4 * n, 16):
            stages.append(stages[-1] // 2)
        return stages[::-1]

    def _fit(self, plan: Plan, absent: bytes | None, scores: Tensor) -> Fit:
        """Of C columns of scores (S, C)."""
        n, background_size, draws, _ = plan
        alpha = self.alpha if self.regulariser == "ridge" else 0.0
        # What a callable returns may change.
        numbers = math.inf if callable(self.kernel) else n * draws
        settings = (self.kernel, self.width, alpha, absent)
        if self.regulariser != "lasso":
            return regression(numbers, plan, *settings).fit(scores)
        if absent:
            scores = regression(numbers, plan, *settings).without_more(scores)
        coalitions, _ = sampled(n * draws, *plan)
        weights = _weights(coalitions, self.kernel, self.width)
        chance = not _whole(n, background_size, draws)
        return fit_chosen(coalitions, weights, scores, chance, self.features)


# Players, background rows, draws, and the seed.
Plan: TypeAlias = tuple[int, int, int, int]


def _whole(n: int, background_size: int, draws: int) -> bool:
    """Whether that many are all, each used once."""
    return n < 40 and draws == 2**n * background_size


@cached_plan
def sampled(n: int, background_size: int, draws: int, seed: int) -> tuple[Tensor, Evaluations]:
    """Coalitions (draws, n) and their evaluations, with background rows in turn.

    Of more draws these come first.
    """
    if _whole(n, background_size, draws):
        drawn = members(torch.arange(2**n), n).repeat_interleave(background_size, 0)
    else:
        drawn = torch.randint(2, (draws, n), generator=torch.Generator().manual_seed(seed)) > 0
    return drawn, Evaluations(drawn, torch.arange(draws) % background_size)


@cached_plan
def regression(
    plan: Plan, kernel: Kernel, width: float | None, alpha: float, absent: bytes | None
) -> WeightedRegression:
    """On the coalitions of a plan; `absent` holds the coordinates of the background rows, if any."""
    n, background_size, draws, _ = plan
    coalitions, _ = sampled(n * draws, *plan)
    weights, background_rows = (
        _weights(coalitions, kernel, width),
        torch.arange(draws) % background_size,
    )
    kinds = covariates(absent, n, draws // 6)
    more = covariate_columns(~coalitions, kinds[-1], background_rows) if kinds else None
    return WeightedRegression(
        coalitions, weights, alpha, not _whole(n, background_size, draws), more
    )


def _weights(coalitions: Tensor, kernel: Kernel, width: float | None) -> Tensor:
    """(S,) how near coalitions (S, n) are to everybody."""
    if callable(kernel):
        weights = kernel(coalitions).double()
        if weights.shape != coalitions.shape[:1] or not bool((weights >= 0).all()):
            raise BadInput("kernel must return one weight a coalition, none negative")
        return weights
    n = coalitions.shape[1]
    present = coalitions.sum(1).double()
    if kernel == "cosine":
        distance, usual = 1 - (present / n).sqrt(), 0.25
    else:
        distance, usual = (n - present).sqrt(), 0.75 * n**0.5
    return torch.exp(-(distance**2) / (2 * (width or usual) ** 2))


def _fits(explained: Tensor) -> Check:
    """How much of the scores' weighted variance the linear model leaves unexplained."""
    rows = worst_target((1 - explained).clamp(0, 1))
    worst = max(rows)
    return Check(
        "fit",
        worst,
        POOR_FIT,
        "pass" if worst <= POOR_FIT else "warn",
        f"the linear model leaves {worst:.0%} of the scores' weighted variance unexplained",
        rows,
    )
