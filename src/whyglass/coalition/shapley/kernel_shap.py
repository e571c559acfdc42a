"""Kernel SHAP: Shapley values as a weighted regression on coalitions and their complements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.coalition.background_covariates import as_key, covariates
from whyglass.coalition.coalition_method import Estimate
from whyglass.coalition.game.evaluations import Evaluations, cached_plan
from whyglass.coalition.game.game import Game
from whyglass.coalition.lasso_path import first_on_lasso_path
from whyglass.coalition.shapley.pair_regression import PairRegression, from_rows, triples
from whyglass.coalition.shapley.paired_coalitions import PairedCoalitions
from whyglass.coalition.shapley.paired_sampling import Sample, sampled, strata
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.standard_errors import Sampled

Weights = Literal["leverage", "kernel"]
MOST_UNKNOWN = 1000


@dataclass(frozen=True, kw_only=True)
class KernelSHAP(PairedCoalitions):
    r"""Shapley values as the solution of a weighted least squares problem over coalitions.

    .. math:: \min_\phi \sum_S \pi(S) \Bigl[v(S) - v(\emptyset) - \sum_{i \in S} \phi_i\Bigr]^2,
        \quad \pi(S) = \frac{n - 1}{\binom{n}{|S|} |S| (n - |S|)}, \quad
        \sum_i \phi_i = v(N) - v(\emptyset)

    The constraint is solved exactly. A coalition is evaluated with its complement; pairs are drawn
    without replacement, size by size, so that a budget for all of them gives the exact values with
    standard errors of zero. Each pair uses one background row, in turn, and where the sample allows it
    the regression also has, for each player, what it is in that row and which quantiles of the
    background that is above: the change of score with the row's own features, which has no part in the
    values. Against one baseline row, where the sample allows it, products of three players are fitted
    beside. Either takes up noise, is used for a row of inputs if that lowers the error, and leaves in
    the limit the Shapley values of the game. Standard errors are those of the linearised regression;
    with further columns, of the difference to the regression on all pairs, without linearising. Units:
    score. Source: Lundberg & Lee (2017), theorem 2; pairs: Covert & Lee (2021), "paired sampling";
    leverage: Musco & Witter (2025), algorithm 1; residuals: MacKinnon & White (1985), HC2.

    Args:
        weights: how often each size is drawn: all equally ("leverage"), or as the kernel weighs them
            ("kernel"). Either way the regression is weighted to the same solution.
        features: at most this many players get a value, those that enter the lasso's path of the same
            problem first; the regression is then theirs, the others get zero, and the values still add
            up. They are Shapley values only where the others have none, and standard errors take the
            choice as given. None, the default, is for all players.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.KernelSHAP()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    weights: Weights = "leverage"
    features: int | None = None

    fits: ClassVar[str] = "a regression"
    least: ClassVar[int] = 1

    name: ClassVar[str] = "kernel-shap"
    shows: ClassVar[str] = (
        "What each feature adds to the score, from a regression on random coalitions; the parts sum "
        "to it."
    )
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "completeness",
        "sensitivity",
        "implementation invariance",
    )
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in {"leverage", "kernel"}:
            raise BadInput(f'weights must be "leverage" or "kernel", not {self.weights!r}')
        if self.features is not None:
            positive_integer("features", self.features)

    def estimate(self, game: Game) -> Estimate:
        n = game.n
        values = (game.change / n)[:, None].repeat(1, n, 1)
        sampled_values = Sampled(values, torch.zeros_like(values), values + torch.inf)
        active = torch.arange(game.rows)
        for pairs in self.stages(n, game.masker):
            solution = self._solve(game, pairs, active)
            for whole, part in zip(sampled_values, solution, strict=True):
                whole[active] = part
            active = self.unfinished(solution.values, solution.errors, active)
            if not len(active):
                break
        return Estimate(*sampled_values[:2], self.sampling_checks(sampled_values))

    def _solve(self, game: Game, pairs: int, active: Tensor) -> Sampled:
        """The active rows' values (R, n, K) from this many pairs."""
        n = game.n
        weights = tuple(
            1.0 if self.weights == "leverage" else one.mass
            for one in strata(n, game.background_size)
        )
        plan = (n, game.background_size, pairs, weights, self.seed)
        drawn, evaluations = sampled(n * pairs, *plan)
        background = as_key(game.coordinates_of_background())
        half, change = _half_differences(game, evaluations, active), game.change[active]
        changes = _changes(game, drawn, active)
        responses = half - _uneven(drawn.members) * changes
        most = pairs * min(pairs, MOST_UNKNOWN)
        if self.features is None or self.features >= n:
            solution = _least_error(regressions(most, *plan, background), responses)
            return solution._replace(values=solution.values + (change / n)[:, None])
        fitted = regressions(most, *plan, background) if background else []
        if len(fitted) > 1:
            # The regression on few players has no room for the background's covariates.
            changes = change[:, None]
            half = fitted[-1].without_further(responses) + _uneven(drawn.members) * changes
        return _of_chosen_players(drawn, half, change, changes, self.features)


@cached_plan
def regressions(
    n: int,
    count: int,
    pairs: int,
    weights: tuple[float, ...],
    seed: int,
    background: bytes | None,
) -> list[PairRegression]:
    """The regression on memberships, and those with further columns that the sample allows.

    `background` holds the coordinates of the background rows, if there are several.
    """
    drawn, _ = sampled(n * pairs, n, count, pairs, weights, seed)
    size, whole = len(drawn.members), sum(layer.total for layer in drawn.layers)
    most = min(2 * size // 3, MOST_UNKNOWN) if size < whole else 0
    fitted = [PairRegression(drawn)]
    if count == 1 and n - 1 + math.comb(n, 3) <= most:
        fitted.append(PairRegression(drawn, triples(drawn)))
    kinds = covariates(background, n, most - n)
    return fitted + [PairRegression(drawn, from_rows(drawn, kind)) for kind in kinds]


def _least_error(regressions: list[PairRegression], responses: Tensor) -> Sampled:
    """(R, n, K) deviations by the regression that errs least in a row."""
    best = regressions[0].solve(responses)
    for regression in regressions[1:]:
        other = regression.solve(responses)
        better = (other.errors.norm(dim=1) < best.errors.norm(dim=1))[:, None]
        best = Sampled(*(torch.where(better, a, b) for a, b in zip(other, best, strict=True)))
    return best


def _half_differences(game: Game, evaluations: Evaluations, active: Tensor) -> Tensor:
    """(R, D, K): half of v(S) - v(complement)."""
    one, other = game.scores(evaluations, active).chunk(2, 1)
    return (one - other) / 2


def _uneven(members: Tensor) -> Tensor:
    """(D, 1): the half difference to the complement where every player adds the same, in all one."""
    return members.double().mean(1, keepdim=True) - 0.5


def _changes(game: Game, drawn: Sample, active: Tensor) -> Tensor:
    """(R, D, K): the change of score with each pair's background row."""
    return game.full[active][:, None] - game.empties[active][:, drawn.background_rows]


def _of_chosen_players(
    drawn: Sample, half: Tensor, change: Tensor, changes: Tensor, features: int
) -> Sampled:
    """(R, n, K): the regression on the players that a lasso chooses, from half differences (R, D, K).

    The values add up to `change` (R, K). `changes` (R, D, K) or (R, 1, K) are those of the pairs.
    """
    rows, _, targets = half.shape
    # What rounding leaves of nothing must not choose.
    half = torch.where(half.abs() > 1e-12 * change.abs()[:, None], half, 0.0)
    # A pair is its two coalitions, with opposite halves of their difference.
    both = torch.cat([half, -half], 1).transpose(0, 1).flatten(1)
    members = torch.cat([drawn.members, ~drawn.members])
    chosen = first_on_lasso_path(members, drawn.share[:, 0].repeat(2), both, features)
    # Where no coalition differs from its complement, nobody is to be preferred.
    chosen |= ~chosen.any(1, keepdim=True)
    zeros = half.new_zeros(rows * targets, chosen.shape[1])
    solution = Sampled(zeros, zeros.clone(), zeros + torch.inf)
    choices, which = chosen.unique(dim=0, return_inverse=True)
    half, change, changes = (
        part.movedim(-1, 1).flatten(0, 1)[..., None]
        for part in (half, change[:, None], changes.expand_as(half))
    )
    for number, players in enumerate(choices):
        own = which == number
        subset = drawn.only(players)
        part = PairRegression(subset).solve(half[own] - _uneven(subset.members) * changes[own])
        part = part._replace(values=part.values + change[own] / int(players.sum()))
        position = own.nonzero(), players.nonzero()[:, 0]
        for whole, own_part in zip(solution, part, strict=True):
            whole[position] = own_part[..., 0]
    return Sampled(*(part.unflatten(0, (rows, targets)).transpose(1, 2) for part in solution))
