"""Exact Shapley values: every coalition, so no more than some twenty players."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.core.errors import BadInput
from whyglass.core.paper import Paper

MOST = 20


@dataclass(frozen=True, kw_only=True)
class ExactShapley(CoalitionMethod):
    r"""Shapley values from all 2^n coalitions, up to 20 players.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|! \, (n - |S| - 1)!}{n!}
        \, [v(S \cup i) - v(S)]

    v(S) is the score with the players S present, averaged over a background if there is one. The
    values add up to S(x) minus the baseline's score, to rounding, and their standard errors are zero.
    Units: score. Source: Lundberg & Lee (2017), equation 8; Shapley (1953).

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.ExactShapley()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    name: ClassVar[str] = "exact-shapley"
    shows: ClassVar[str] = (
        "What each feature adds to the score, averaged over every order of adding them; the parts "
        "sum to it."
    )
    cost: ClassVar[str] = "2^n evaluations"
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        few_enough(self.name, groups.count)

    def held(self, players: int) -> int:
        return 2**players

    def estimate(self, game: Game) -> Estimate:
        values = shapley(game.all_values(), game.n)
        return Estimate(values, torch.zeros_like(values))


def few_enough(name: str, players: int) -> None:
    """Refuse players so many that not all their coalitions can be evaluated."""
    if players > MOST:
        raise BadInput(
            f"{name} evaluates all coalitions, 2^{players} of {players} players, and stops at "
            f"{MOST}: group features with players= (players=4 makes 4 windows along each axis), or "
            'sample with method="permutation-shapley"'
        )


def shapley(worth: Tensor, n: int) -> Tensor:
    """(B, n, K) Shapley values of games given by the worth (B, 2^n, K) of every coalition."""
    rows, _, targets = worth.shape
    numbers = torch.arange(2**n)
    sizes = sum(((numbers >> i) & 1 for i in range(n)), torch.zeros_like(numbers))
    weight = worth.new_tensor([1 / (n * math.comb(n - 1, size)) for size in range(n)])
    values: list[Tensor] = []
    for player in range(n):
        halves = worth.reshape(rows, -1, 2, 2**player, targets)
        without = sizes.reshape(-1, 2, 2**player)[:, 0]
        gains = halves[:, :, 1] - halves[:, :, 0]
        values.append(torch.einsum("bhlk,hl->bk", gains, weight[without]))
    return torch.stack(values, 1)
