"""Quantitative input influence: what changes when a feature is drawn anew, alone or with others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import TOLERANCE, Estimate, SampledCoalitions
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.game.replace import Replace
from whyglass.coalition.shapley.permutation_sampler import Permutations, mean_gains
from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import background
from whyglass.core.checks import completeness
from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation
from whyglass.core.inputs import Leaves, flat_rows
from whyglass.core.method import Axiom, BaselineIs
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class QII(SampledCoalitions):
    r"""Influence of features whose values are drawn anew, each from its own distribution.

    .. math:: \iota(S) = S(x) - E[S(x_{-S} u_S)], \quad
        \phi_i = E_\pi[\iota(\pi^{<i} \cup i) - \iota(\pi^{<i})]

    u takes each feature from a background row of its own, so that features drawn anew are independent;
    that is the difference to the Shapley values of the other methods, which take a whole row. "shapley"
    gives the phi, averaged over random orders; "unary" gives iota of each player alone, which is that
    of a set where `players` groups features. Standard errors are those over draws, zero where every
    value of a single feature was used once. For the difference between groups see
    `whyglass.group_disparity`. Units: score. Source: Datta, Sen & Zick (2016), unary and set QII and
    their Shapley value.

    Args:
        influence: "shapley" or "unary".

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1]
    >>> rows = whyglass.Background(torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    >>> whyglass.QII(influence="unary")(model, torch.tensor([[2.0, 3.0]]), baseline=rows).values
    tensor([[4.5000, 5.0000]])
    """

    influence: Literal["shapley", "unary"] = "shapley"

    name: ClassVar[str] = "qii"
    shows: ClassVar[str] = (
        "How far the score changes when a feature is drawn anew, alone or after others."
    )
    adds_up: ClassVar[bool] = False
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "sensitivity",
        "implementation invariance",
        "linearity",
        "dummy",
    )
    baseline_is: ClassVar[BaselineIs] = "background"
    paper: ClassVar[Paper] = Paper(
        "Anupam Datta, Shayak Sen and Yair Zick",
        "Algorithmic Transparency via Quantitative Input Influence",
        "IEEE Symposium on Security and Privacy",
        2016,
        "https://doi.org/10.1109/SP.2016.42",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.influence not in {"shapley", "unary"}:
            raise BadInput(f'influence must be "shapley" or "unary", not {self.influence!r}')
        if self.influence == "unary" and self.tol is not None:
            raise BadInput("unary influences use the whole budget: leave tol out")

    def absence(self, baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
        rows = scorer.activations(background(baseline, scorer))
        step = 1 + (groups.count if self.influence == "unary" else max(1, 2 * (groups.count - 1)))
        draws = (self.budget - 1) // step
        if draws < 2:
            raise BadInput(
                f"budget {self.budget} does not pay for two draws of {groups.count} players, which "
                f"take {1 + 2 * step} evaluations a row: raise it, or group features with players="
            )
        single = _single(groups, scorer.points)
        if self.influence == "unary" and single:
            draws = min(draws, len(rows[0]))
        generator = self.generator()
        drawn = tuple(_independent(leaf, draws, generator) for leaf in rows)
        whole = single and draws == len(rows[0])
        start = tuple(row[:1] for row in rows)
        independent = Independent(groups, scorer.points, drawn, True, start, whole)
        independent.sample_size = len(rows[0])
        return independent

    def estimate(self, game: Game) -> Estimate:
        if self.influence == "unary":
            return self._unary(game)
        # The draws came first from a generator with this seed: the orders come from another.
        generator = torch.Generator().manual_seed(self.seed ^ 0x51)
        orders = torch.stack(
            [torch.randperm(game.n, generator=generator) for _ in range(game.background_size)]
        )
        draws, stops = game.background_size, self.tol is not None
        estimate = mean_gains(self, game, Permutations(orders, draws, draws, generator, stops))
        gap = completeness((estimate.values,), game.full, game.empty, TOLERANCE)
        return replace(estimate, checks=(gap, *estimate.checks))

    def _unary(self, game: Game) -> Estimate:
        assert isinstance(game.masker, Independent)
        mean = game.without()
        if game.masker.whole:
            zeros = torch.zeros_like(mean.values)
            mean = mean._replace(errors=zeros, freedom=zeros + torch.inf)
        return Estimate(mean.values, mean.errors, self.sampling_checks(mean))


@dataclass
class Independent(Replace):
    """Draws of independent features; `whole` if each value of a feature is there once."""

    whole: bool


def _single(groups: FeatureGroups, points: Leaves) -> bool:
    """Whether every player is one feature."""
    whole = [mask.expand(point.shape[1:]) for mask, point in zip(groups.masks, points, strict=True)]
    return sum(int((mask >= 0).sum()) for mask in whole) == groups.count


def _independent(rows: Tensor, draws: int, generator: torch.Generator) -> Tensor:
    """(draws, ...) rows whose features come from rows of their own, all used equally often."""
    flat = flat_rows(rows)
    laps = -(-draws // len(rows))
    order = torch.rand(laps, *flat.shape, generator=generator).argsort(1)
    shuffled = flat.gather(0, order.reshape(-1, flat.shape[1])[:draws].to(flat.device))
    return shuffled.reshape(draws, *rows.shape[1:])


@dataclass(frozen=True, eq=False)
class Disparity:
    """What `group_disparity` returns.

    total: the mean score within the group less that outside, (K,) for many targets.
    values: (n,) or (n, K) what each player's influence makes of it.
    std_error: no more than this; the rows share their draws, so errors are added, not averaged out.
    """

    total: Tensor
    values: Tensor
    std_error: Tensor


def group_disparity(explanation: Explanation, group: Tensor) -> Disparity:
    r"""How much each player contributes to the difference of mean scores between a group and the rest.

    .. math:: \phi_i(\text{disparity}) = E[\phi_i(x) | x \in Y] - E[\phi_i(x) | x \notin Y]

    because the difference is linear in the scores of the rows. Source: Datta, Sen & Zick (2016),
    group disparity, here with its sign.

    Args:
        explanation: of a data set's rows, by a method of coalitions, one target for all rows.
        group: (B,) booleans, which rows belong to the group Y.

    >>> import torch, whyglass
    >>> rows = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> method = whyglass.QII(influence="unary")
    >>> e = method(lambda x: 2 * x[:, 0] + x[:, 1], rows, baseline=whyglass.Background(rows))
    >>> whyglass.group_disparity(e, rows[:, 0] > 0).values
    tensor([2., 0.])
    """
    values, errors = explanation.player_values, explanation.player_std_error
    if values is None or errors is None:
        raise BadInput(f"{explanation.method} has no players: use a method of coalitions, qii say")
    group = torch.as_tensor(group)
    if group.dtype != torch.bool or group.shape != (len(values),):
        raise BadInput(f"group must hold one boolean for each of the {len(values)} rows")
    if group.all() or not group.any():
        raise BadInput("group must hold some of the rows, and not all of them")
    group = group.to(values.device)
    total, shares = (p[group].mean(0) - p[~group].mean(0) for p in (explanation.score, values))
    return Disparity(total, shares, errors[group].mean(0) + errors[~group].mean(0))
