"""The base of every method of coalitions: it makes the game and spreads values over features."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.coalition.game.game import Game, wide
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.maskers import masker
from whyglass.coalition.game.players import FeatureGroups, Players, feature_groups, to_result_dtype
from whyglass.core.baseline import Baseline
from whyglass.core.checks import (
    PRECISION,
    Check,
    completeness,
    enough_background,
    precision,
    relative_error,
    together,
    worst_target,
)
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
from whyglass.core.scorer import Evaluated, Scorer
from whyglass.core.standard_errors import LEAST_FREEDOM, Sampled, freedom_check

TOLERANCE = 1e-4
# A regression in float64 loses a few thousand roundings of the scores.
ROUNDING = 1e-12
# The most numbers that the estimates of several rows hold at once.
MOST_HELD = 2**24
SHAPLEY_AXIOMS: tuple[Axiom, ...] = (
    "completeness",
    "sensitivity",
    "implementation invariance",
    "linearity",
    "dummy",
)
# The axioms of methods that are exact only for models of the supposed kind.
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
    takes_missing: ClassVar[bool] = True
    axioms: ClassVar[tuple[Axiom, ...]] = SHAPLEY_AXIOMS
    baseline_is: ClassVar[BaselineIs] = "either"
    # Whether values are meant to add up to the change of score, so that it is checked.
    adds_up: ClassVar[bool] = True
    # Whether players that never change are left out of a row's game, or only set to zero in the end.
    drops_unchanged: ClassVar[bool] = False
    # Whether standard errors are already those over another background.
    errors_over_background: ClassVar[bool] = False

    @abstractmethod
    def estimate(self, game: Game) -> Estimate:
        """The values of the players, from values of coalitions alone."""

    def absence(self, baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
        """The masker that stands for absent players."""
        return masker(baseline, scorer, groups)

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        """Refuse settings that do not suit the players, before the model runs."""

    def held(self, players: int) -> int:
        """How many numbers an estimate holds for one row and one target."""
        return players

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
        unchanged = absent.unchanged(scorer.rows, groups.count)
        estimate, empty, deviation = self._over_rows(scorer, absent, groups, here, unchanged)
        many, point = scorer.many, scorer.points[0]
        values, errors = (
            to_result_dtype(part if many else part[..., 0], point)
            for part in (estimate.values, estimate.errors)
        )
        empty = (empty if many else empty[:, 0]).to(here.scores)
        checks = [*estimate.checks, *absent.checks(scorer.rows)]
        notes = list(estimate.notes)
        if self.adds_up:
            exact, score = estimate.values if many else estimate.values[..., 0], here.scores.cpu()
            rounding = ROUNDING * torch.maximum(score.abs(), empty.cpu().abs())
            checks.insert(0, completeness((exact,), score, empty.cpu(), TOLERANCE, rounding))
        if (size := absent.sample_size) > 1 or (size and self.errors_over_background):
            of_score, of_values = deviation / size**0.5, estimate.errors.norm(dim=1)
            error = of_values if self.errors_over_background else of_score
            checks.append(enough_background((estimate.values,), error, size, True))
        elif size == 1:
            notes.append("one background row: nothing tells how far another would move the values")
        if unchanged.all(1).any():
            equal = int(unchanged.all(1).sum())
            notes.append(f"rows that equal what stands for absence, with values of zero: {equal}")
        return Attribution(
            groups.spread_over_features(estimate.values, scorer.points, many),
            here.scores,
            empty,
            absent.start,
            groups.spread_over_features(estimate.errors, scorer.points, many),
            checks=checks,
            notes=notes,
            players=groups.masks,
            player_values=values.to(here.scores.device),
            player_std_error=errors.to(here.scores.device),
        )

    def _over_rows(
        self,
        scorer: Scorer,
        absent: Masker,
        groups: FeatureGroups,
        here: Evaluated,
        unchanged: Tensor,
    ) -> tuple[Estimate, Tensor, Tensor]:
        """The estimate of all rows, and (B, K) the mean and the deviation of the scores of nobody."""
        full = wide(here.scores, scorer.many)
        empty, deviation = full.clone(), torch.zeros_like(full)
        values = full.new_zeros(*unchanged.shape, full.shape[1])
        errors = torch.zeros_like(values)
        parts: list[tuple[Tensor, Estimate]] = []
        for alike, players in self._games(unchanged):
            held = self.held(len(players)) * full.shape[1]
            for rows in alike.split(max(1, MOST_HELD // held)):
                game = Game(scorer, absent, groups, here, rows, players)
                estimate = self.estimate(game)
                values[rows[:, None], players] = estimate.values
                errors[rows[:, None], players] = estimate.errors
                empty[rows] = game.empty
                if game.scores_of_nobody.shape[1] > 1:
                    # The score of everybody is taken off: equal scores then deviate by exactly nothing.
                    deviation[rows] = (game.scores_of_nobody - game.full[:, None]).std(1)
                parts.append((rows, estimate))
        values[unchanged], errors[unchanged] = 0.0, 0.0
        checks = together([(rows, part.checks) for rows, part in parts], scorer.rows)
        notes = tuple(dict.fromkeys(note for _, part in parts for note in part.notes))
        return Estimate(values, errors, checks, notes), empty, deviation

    def _games(self, unchanged: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Rows that play one game, and its players, at least one."""
        rows, players = torch.arange(len(unchanged)), torch.arange(unchanged.shape[1])
        if not self.drops_unchanged:
            return [(rows, players)]
        patterns, pattern = unchanged.unique(dim=0, return_inverse=True)
        # Games of the same size come one after the other: they share a plan.
        order = (~patterns).sum(1).argsort(stable=True).tolist()
        games = [(rows[pattern == number], players[~patterns[number]]) for number in order]
        return [(own_rows, own_players) for own_rows, own_players in games if len(own_players)]


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
    # The degrees of freedom that variances need for standard errors to be believed.
    least_freedom: ClassVar[float] = LEAST_FREEDOM

    def __post_init__(self) -> None:
        positive_integer("budget", self.budget)
        integer("seed", self.seed)
        if self.tol is not None:
            positive("tol", self.tol)

    def generator(self) -> torch.Generator:
        """A new random generator, at its start."""
        return torch.Generator().manual_seed(self.seed)

    def held(self, players: int) -> int:
        return max(players, self.budget)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        attribution = super().attribute(scorer, baseline)
        each = scorer.cost.evaluations / scorer.rows
        if each <= self.budget:
            return attribution
        note = f"tied background rows are all used: {each:.0f} evaluations a row, beyond the budget"
        return replace(attribution, notes=(*attribution.notes, note))

    def sampling_checks(self, sampled: Sampled) -> tuple[Check, Check]:
        """The checks "sampling error" and "degrees of freedom" of (B, n, K)."""
        values, errors, freedom = ((part,) for part in sampled)
        return (
            precision(values, errors, True, self.tol or PRECISION),
            freedom_check(
                values, errors, freedom, True, "a larger budget= raises them", self.least_freedom
            ),
        )

    def unfinished(self, values: Tensor, errors: Tensor, active: Tensor) -> Tensor:
        """The active rows (R,), with values (R, n, K), whose errors are larger than `tol` allows."""
        if self.tol is None:
            return active
        error = worst_target(relative_error((values,), (errors,), True))
        return active[torch.tensor(error) > self.tol]
