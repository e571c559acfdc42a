"""Low-order SHAP: exact Shapley values of a score whose interactions are of few players each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch

from whyglass.coalition.coalition_method import WITHOUT_COMPLETENESS, CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.shapley.exact_shapley import MOST
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, positive_integer
from whyglass.core.paper import Paper

MEMBERSHIPS = 2**23


@dataclass(frozen=True, kw_only=True)
class LowOrderSHAP(CoalitionMethod):
    r"""Shares of the interactions of at most `order` players, found from the coalitions that small.

    .. math:: \phi_i = \sum_{T \ni i, |T| \le d} \frac{a_T}{|T|}, \quad
        a_T = \sum_{S \subseteq T} (-1)^{|T| - |S|} v(S)

    Exact, with standard errors of zero, if no more than d players interact at once; otherwise the
    values miss the change of score, and the check "completeness" fails. With d as large as the number
    of players this is the paper's enumeration of all coalitions. Units: score. Source: Lundberg & Lee
    (2017), section 4.2, "Low-Order SHAP"; the dividends a: Harsanyi (1963).

    Args:
        order: d, the most players that interact.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> e = whyglass.LowOrderSHAP()(model, torch.tensor([[2.0, 3.0, 1.0]]))
    >>> e.values, e.evaluations
    (tensor([[3., 3., 1.]]), 8)
    """

    order: int = 2

    name: ClassVar[str] = "low-order-shap"
    shows: ClassVar[str] = (
        "What each feature adds where few act together; the parts sum to the score if they do."
    )
    cost: ClassVar[str] = "one evaluation a coalition up to the order"
    axioms: ClassVar[tuple[Axiom, ...]] = WITHOUT_COMPLETENESS
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def __post_init__(self) -> None:
        positive_integer("order", self.order)

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        total = sum(math.comb(groups.count, size) for size in range(self.order + 1))
        if total > 2**MOST:
            raise BadInput(
                f"order {self.order} asks for {total} coalitions of {groups.count} players, more than "
                f"2^{MOST}: lower it, or group features with players="
            )

    def estimate(self, game: Game) -> Estimate:
        n, order = game.n, min(self.order, game.n)
        values = game.full.new_zeros(game.rows, n, game.full.shape[1])
        for size in range(order + 1):
            of_members, of_others = _coefficients(n, size, order)
            combinations = itertools.combinations(range(n), size)
            while batch := list(itertools.islice(combinations, max(1, MEMBERSHIPS // n))):
                chosen = torch.tensor(batch, dtype=torch.long).reshape(len(batch), size)
                members = torch.zeros(len(batch), n, dtype=torch.bool)
                members.scatter_(1, chosen, True)
                # The score of everybody is taken off: coefficients add up to zero for each player.
                gains = game.value(members) - game.full[:, None]
                values += of_others * gains.sum(1, keepdim=True)
                values += (of_members - of_others) * (members.T.double() @ gains)
        return Estimate(values, torch.zeros_like(values))


def _coefficients(n: int, size: int, order: int) -> tuple[float, float]:
    """What v(S), S of this size, counts for a player in S and for one that is not.

    The dividends of all T of at most `order` players that contain S and the player, divided by |T|:
    their signs and numbers depend on sizes alone.
    """
    of_members = sum(
        Fraction((-1) ** (t - size) * math.comb(n - size, t - size), t)
        for t in range(max(size, 1), order + 1)
    )
    of_others = sum(
        Fraction((-1) ** (t - size) * math.comb(n - size - 1, t - size - 1), t)
        for t in range(size + 1, order + 1)
        if size < n
    )
    return float(of_members), float(of_others)
