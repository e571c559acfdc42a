"""Linear SHAP: the Shapley values of a score that is linear in its inputs, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from whyglass.coalition.coalition_method import WITHOUT_COMPLETENESS, CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class LinearSHAP(CoalitionMethod):
    r"""What each player adds when it joins alone: exact where players do not interact.

    .. math:: \phi_i = w_i \, (x_i - E[x_i]), \quad \phi_0 = b + w^\top E[x]

    for a score b + w'x, found from n + 1 coalitions without looking at the weights; the same holds for
    any sum of functions of one player each. Where players do interact, the values miss the change of
    score, and the check "completeness" fails. Units: score. Source: Lundberg & Lee (2017), corollary
    1, whose phi_0 = b lacks the term in E[x] that makes the values add up.

    >>> import torch, whyglass
    >>> model = lambda x: 2 * x[:, 0] - x[:, 1] + 7
    >>> rows = whyglass.Background(torch.tensor([[0.0, 0.0], [2.0, 4.0]]))
    >>> e = whyglass.LinearSHAP()(model, torch.tensor([[3.0, 1.0]]), baseline=rows)
    >>> e.values, e.baseline_score
    (tensor([[4., 1.]]), tensor([7.]))
    """

    name: ClassVar[str] = "linear-shap"
    shows: ClassVar[str] = (
        "What each feature adds to the score of a linear model; the parts sum to it."
    )
    cost: ClassVar[str] = "one evaluation a player"
    axioms: ClassVar[tuple[Axiom, ...]] = WITHOUT_COMPLETENESS
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def estimate(self, game: Game) -> Estimate:
        values = game.value(torch.eye(game.n, dtype=torch.bool)) - game.empty[:, None]
        return Estimate(values, torch.zeros_like(values))
