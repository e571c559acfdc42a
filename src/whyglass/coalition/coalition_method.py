"""The base of every method of coalitions: it makes the game and spreads values over features."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.coalition.game.game import Game
from whyglass.coalition.game.maskers import Masker, masker
from whyglass.coalition.game.players import FeatureGroups, Players, feature_groups, to_result_dtype
from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check, completeness, precision, relative_error, worst_target
from whyglass.core.method import (
    Attribution,
    Axiom,
    BaselineIs,
    Method,
    Need,
    integer,
    positive,
    positive_integer,
)
from whyglass.core.scorer import Scorer
from whyglass.core.standard_errors import Sampled, freedom_check

TOLERANCE = 1e-4
SHAPLEY_AXIOMS: tuple[Axiom, ...] = (
    "completeness",
    "sensitivity",
    "implementation invariance",
    "linearity",
    "dummy",
)
# Of methods that are exact where a model is as they suppose, and miss its score where it is not.
WITHOUT_COMPLETENESS: tuple[Axiom, ...] = ("implementation invariance", "linearity", "dummy")


@dataclass(frozen=True)
class Estimate:
    """(B, n, K) values of the players and their standard errors, float64."""

    values: Tensor
    errors: Tensor
    checks: tuple[Check, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class CoalitionMethod(Method):
    """Abstract. A player's value is in `player_values`; `values` spreads it over its features.

    Args:
        players: which features stand or fall together; see `whyglass.coalition.game.players`.
    """

    players: Players = None

    family: ClassVar[str] = "coalition"
    needs: ClassVar[tuple[Need, ...]] = ()
    axioms: ClassVar[tuple[Axiom, ...]] = SHAPLEY_AXIOMS
    baseline_is: ClassVar[BaselineIs] = "either"
    # Whether values are meant to add up to the change of score, so that it is checked.
    adds_up: ClassVar[bool] = True

    @abstractmethod
    def estimate(self, game: Game) -> Estimate:
        """The values of the players, from values of coalitions alone."""

    def absence(self, baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
        """The masker that stands for absent players."""
        return masker(baseline, scorer, groups)

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        """Refuse settings that do not suit the players, before the model runs."""

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        def prepare() -> tuple[FeatureGroups, Masker]:
            groups = feature_groups(self.players, scorer)
            absent = self.absence(baseline, scorer, groups)
            self.ready(groups, absent)
            return groups, absent

        # Around a layer the points are known only after the model ran.
        early = prepare() if scorer.layer is None else None
        here = scorer.at_inputs(gradient=False)
        groups, absent = early or prepare()
        game = Game(scorer, absent, groups, here)
        estimate = self.estimate(game)
        many, point = scorer.many, scorer.points[0]
        values, errors = (
            to_result_dtype(part if many else part[..., 0], point)
            for part in (estimate.values, estimate.errors)
        )
        empty = (game.empty if many else game.empty[:, 0]).to(here.scores)
        checks = list(estimate.checks)
        if self.adds_up:
            exact = estimate.values if many else estimate.values[..., 0]
            checks.insert(0, completeness((exact,), here.scores.cpu(), empty.cpu(), TOLERANCE))
        return Attribution(
            groups.spread_over_features(estimate.values, scorer.points, many),
            here.scores,
            empty,
            absent.start,
            groups.spread_over_features(estimate.errors, scorer.points, many),
            checks=checks,
            notes=estimate.notes,
            players=groups.masks,
            player_values=values.to(here.scores.device),
            player_std_error=errors.to(here.scores.device),
        )


@dataclass(frozen=True, kw_only=True)
class SampledCoalitions(CoalitionMethod):
    """Abstract. Draws coalitions, the same for every row.

    Args:
        budget: the most evaluations of the model a row, those of the input and of the baseline or
            background included. A coalition met again costs nothing.
        tol: stop a row once its standard errors are this small beside its values.
        seed: of the generator that draws.
    """

    budget: int = 2000
    tol: float | None = None
    seed: int = 0

    cost: ClassVar[str] = "budget evaluations"

    def __post_init__(self) -> None:
        positive_integer("budget", self.budget)
        integer("seed", self.seed)
        if self.tol is not None:
            positive("tol", self.tol)

    def generator(self) -> torch.Generator:
        """A new one, at its start."""
        return torch.Generator().manual_seed(self.seed)

    def sampling_checks(self, sampled: Sampled) -> tuple[Check, Check]:
        """The checks "sampling error" and "degrees of freedom" of (B, n, K)."""
        values, errors, freedom = ((part,) for part in sampled)
        return (
            precision(values, errors, True, self.tol or 0.25),
            freedom_check(values, errors, freedom, True, "a larger budget= raises them"),
        )

    def unfinished(self, values: Tensor, errors: Tensor, active: Tensor) -> Tensor:
        """The active rows (R,), with values (R, n, K), whose errors are larger than `tol` allows."""
        if self.tol is None:
            return active
        error = worst_target(relative_error((values,), (errors,), True))
        return active[torch.tensor(error) > self.tol]
