"""Feature permutation: how far the score falls when a feature is taken from other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whyglass.coalition.coalition_method import CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game
from whyglass.core.method import Axiom, BaselineIs
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class FeaturePermutation(CoalitionMethod):
    r"""Mean fall of the score when a player's features are taken from each row of a data set in turn.

    .. math:: R_i = \frac{1}{|D|} \sum_{x' \in D} S(x) - S(x_{-i} x'_i)

    Every row of the data is used once, instead of random permutations of it. With the data itself as
    inputs and background, and the probability of each row's own class as target, the mean over rows is
    the importance of a feature to the model: how far its trust in the right answers falls. Standard
    errors are those of the mean over D, as if drawn from a population. Units: score. Source: Fisher,
    Rudin & Dominici (2019), who do not pair a row with itself; Breiman (2001).

    >>> import torch, whyglass
    >>> rows = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> model = lambda x: 3 * x[:, 0] * x[:, 1]
    >>> data = whyglass.Background(rows)
    >>> whyglass.FeaturePermutation()(model, torch.tensor([[2.0, 3.0]]), baseline=data).values
    tensor([[13.5000, 15.0000]])
    """

    name: ClassVar[str] = "feature-permutation"
    shows: ClassVar[str] = "How far the score falls when a feature is taken from other rows."
    cost: ClassVar[str] = "one evaluation a player and background row"
    adds_up: ClassVar[bool] = False
    errors_over_background: ClassVar[bool] = True
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "sensitivity",
        "implementation invariance",
        "linearity",
        "dummy",
    )
    baseline_is: ClassVar[BaselineIs] = "background"
    paper: ClassVar[Paper] = Paper(
        "Aaron Fisher, Cynthia Rudin and Francesca Dominici",
        "All Models are Wrong, but Many are Useful: Learning a Variable's Importance by Studying an "
        "Entire Class of Prediction Models Simultaneously",
        "Journal of Machine Learning Research",
        2019,
        "https://arxiv.org/abs/1801.01489",
    )

    def estimate(self, game: Game) -> Estimate:
        falls = game.without()
        return Estimate(falls.values, falls.errors)
