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
from whyglass.coalition.game.maskers import coordinates
from whyglass.coalition.shapley.pair_regression import PairRegression, from_rows, triples
from whyglass.coalition.shapley.paired_coalitions import PairedCoalitions
from whyglass.coalition.shapley.paired_sampling import Sample, sampled, strata
from whyglass.coalition.weighted_regression import lasso_path
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, positive_integer
from whyglass.core.paper import Paper

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
        errors = torch.zeros_like(values)
        weights = tuple(
            1.0 if self.weights == "leverage" else layer.mass
            for layer in strata(n, game.background_size)
        )
        absent = as_key(coordinates(game.masker))
        active = torch.arange(game.rows)
        for pairs in self.stages(n, game.masker):
            plan = (n, game.background_size, pairs, weights, self.seed)
            drawn, evaluations = sampled(n * pairs, *plan)
            responses = _halved(game, drawn, evaluations, active)
            most = pairs * min(pairs, MOST_UNKNOWN)
            if self.features is not None and self.features < n:
                change = game.change[active]
                changes = _changes(game, drawn, active)
                kinds = regressions(most, *plan, absent) if absent else []
                if len(kinds) > 1:
                    responses, changes = kinds[-1].without_more(responses), change[:, None]
                values[active], errors[active] = _few(
                    drawn, responses, change, changes, self.features
                )
            else:
                off, errors[active] = _solved(regressions(most, *plan, absent), responses)
                values[active] = (game.change[active] / n)[:, None] + off
            active = self.unfinished(values[active], errors[active], active)
            if not len(active):
                break
        return Estimate(values, errors, (self.precision(values, errors),))


@cached_plan
def regressions(
    n: int,
    count: int,
    pairs: int,
    weights: tuple[float, ...],
    seed: int,
    absent: bytes | None,
) -> list[PairRegression]:
    """That of the memberships, and those with further columns that the sample allows.

    `absent` holds the coordinates of the background rows, if there are several.
    """
    drawn, _ = sampled(n * pairs, n, count, pairs, weights, seed)
    size, whole = len(drawn.members), sum(layer.total for layer in drawn.layers)
    most = min(2 * size // 3, MOST_UNKNOWN) if size < whole else 0
    found = [PairRegression(drawn)]
    if count == 1 and n - 1 + math.comb(n, 3) <= most:
        found.append(PairRegression(drawn, triples(drawn)))
    kinds = covariates(absent, n, most - n)
    return found + [PairRegression(drawn, from_rows(drawn, kind)) for kind in kinds]


def _solved(regressions: list[PairRegression], responses: Tensor) -> tuple[Tensor, Tensor]:
    """(R, n, K) by the regression that errs least in a row."""
    off, error = regressions[0].solve(responses)
    for more in regressions[1:]:
        other, smaller = more.solve(responses)
        better = (smaller.norm(dim=1) < error.norm(dim=1))[:, None]
        off, error = torch.where(better, other, off), torch.where(better, smaller, error)
    return off, error


def _halved(game: Game, drawn: Sample, evaluations: Evaluations, active: Tensor) -> Tensor:
    """(R, D, K): half of v(S) - v(complement), less what an even share of the change makes of it."""
    one, other = game.scores(evaluations, active).chunk(2, 1)
    return (one - other) / 2 - _even(drawn.members) * _changes(game, drawn, active)


def _even(members: Tensor) -> Tensor:
    """(D, 1): what even shares of a change make of half the difference to the complement."""
    return members.double().mean(1, keepdim=True) - 0.5


def _changes(game: Game, drawn: Sample, active: Tensor) -> Tensor:
    """(R, D, K): the change of score with each pair's background row."""
    return game.full[active][:, None] - game.empties[active][:, drawn.background_rows]


def _few(
    drawn: Sample, responses: Tensor, change: Tensor, changes: Tensor, features: int
) -> tuple[Tensor, Tensor]:
    """(R, n, K) values and standard errors of the regression on the players that a lasso chooses.

    `changes` (R, D, K) of score are those that the responses had even shares taken out of.
    """
    response = responses + _even(drawn.members) * changes
    # What rounding leaves of nothing must not choose.
    response[response.abs() <= 1e-12 * change.abs()[:, None]] = 0
    # A pair is its two coalitions, with opposite halves of their difference.
    chosen = lasso_path(
        torch.cat([drawn.members, ~drawn.members]),
        drawn.share[:, 0].repeat(2),
        torch.cat([response, -response], 1),
        features,
    )
    values = torch.zeros_like(chosen, dtype=torch.float64)
    errors = torch.zeros_like(values)
    kinds, kind = (
        chosen.transpose(1, 2).reshape(-1, chosen.shape[1]).unique(dim=0, return_inverse=True)
    )
    kind = kind.reshape(len(change), -1)
    for number, some in enumerate(kinds):
        # Where no coalition differs from its complement, nobody is to be preferred.
        players = some if some.any() else torch.ones_like(some)
        smaller = drawn.only(players)
        regression = PairRegression(smaller)
        off, error = regression.solve(response - _even(smaller.members) * changes)
        mine = (kind == number)[:, None]
        place = mine & players[:, None]
        values[place] = (off + change[:, None] / int(players.sum()))[mine.expand_as(off)]
        errors[place] = error[mine.expand_as(off)]
    return values, errors
