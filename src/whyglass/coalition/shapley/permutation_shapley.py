"""Shapley values by permutations: random orders used both ways, background rows in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.evaluations import cached_plan
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.shapley.permutation_sampler import Permutations, affordable, mean_gains
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class PermutationShapley(SampledCoalitions):
    r"""Shapley values as means over random orders of the players, each walked both ways.

    .. math:: \hat\phi_i = \frac{1}{2P} \sum_{p} \sum_{\pi \in \{\pi_p, \bar\pi_p\}}
        v_p(\pi^{<i} \cup i) - v_p(\pi^{<i})

    with :math:`\pi^{<i}` who stands before i, :math:`\bar\pi` the order reversed, and :math:`v_p` the
    score with one background row. Background rows are taken in turn and count the same: the mean is
    first over the orders of each. Where the budget pays for one walk with each of them but not for
    two, some go one way only; where it does not pay for one, a line in a player's own features, fitted
    to what it gains from row to row, stands for the rows left out. The values add up to the change of
    score exactly. Standard errors are those of the mean over orders; with a background they are too
    large until the budget pays for two orders with each row of it. Units: score. Source: Castro, Gómez
    & Tejada (2009); walks both ways, "antithetic sampling": Mitchell et al. (2022).

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> method = whyglass.PermutationShapley(budget=400)
    >>> method(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    name: ClassVar[str] = "permutation-shapley"
    shows: ClassVar[str] = (
        "What each feature adds to the score, averaged over random orders of adding them; the parts "
        "sum to it."
    )
    paper: ClassVar[Paper] = Paper(
        "Rory Mitchell, Joshua Cooper, Eibe Frank and Geoffrey Holmes",
        "Sampling Permutations for Shapley Value Estimation",
        "Journal of Machine Learning Research",
        2022,
        "https://arxiv.org/abs/2104.12199",
    )

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        affordable(self, groups.count, absent)

    def estimate(self, game: Game) -> Estimate:
        orders, both = affordable(self, game.n, game.masker)
        n, stops = game.n, self.tol is not None
        return mean_gains(
            self,
            game,
            permutations(
                2 * n * n * orders, n, game.background_size, orders, both, self.seed, stops
            ),
        )


@cached_plan
def permutations(
    n: int, background_size: int, count: int, both: int, seed: int, stops: bool
) -> Permutations:
    """Random orders of the players."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])
    return Permutations(orders, both, background_size, generator, stops)
