"""Shapley regression values: what a column adds to predictions of an estimator retrained without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from whyglass.coalition.coalition_method import CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game, members
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.game.replace import Replace
from whyglass.coalition.shapley.exact_shapley import shapley
from whyglass.coalition.shapley.retrained import Retrained
from whyglass.core.baseline import Baseline
from whyglass.core.errors import BadInput
from whyglass.core.method import Axiom, BaselineIs, Need
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer

MOST = 15


@dataclass(frozen=True, kw_only=True)
class ShapleyRegression(CoalitionMethod):
    r"""Shapley values of a prediction, the estimator retrained on every subset of the columns.

    .. math:: \phi_i = \sum_{S \subseteq N \setminus i} \frac{|S|! \, (n - |S| - 1)!}{n!}
        \, [f_{S \cup i}(x_{S \cup i}) - f_S(x_S)]

    f_S is fitted on the columns S of the training table alone; without any it is the mean of the
    labels, or the share of each class. So nothing stands for absence, and no row is made up; but the
    values tell what the columns are good for, not what one fitted model does with them: of two columns
    that repeat each other both get a part, even if the model reads one. The model is a
    `whyglass.Retrained`, the rows need not be of its table. 2^n - 1 fits, up to 15 players; a player
    may be a group of columns. The values add up to the prediction minus that mean, to rounding; their
    standard errors are zero, the training table being taken as given. Units: score, that is of the
    labels or a probability. Source: Lundberg & Lee (2017), section 2.4, equation 4; Lipovetsky &
    Conklin (2001), whose shares of R squared are `whyglass.r_squared_shares`.

    >>> import numpy as np, torch, whyglass
    >>> class LeastSquares:
    ...     def fit(self, data, labels):
    ...         self.mean, self.middle = data.mean(0), labels.mean()
    ...         self.slopes = np.linalg.lstsq(data - self.mean, labels - self.middle)[0]
    ...     def predict(self, data):
    ...         return self.middle + (data - self.mean) @ self.slopes
    >>> data = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> model = whyglass.Retrained(LeastSquares(), data, 5 + data @ torch.tensor([2.0, 1.0]))
    >>> why = whyglass.ShapleyRegression()(model, torch.tensor([[3.0, 4.0]]))
    >>> why.values, why.score, why.baseline_score
    (tensor([[6., 4.]]), tensor([15.]), tensor([5.]))
    """

    name: ClassVar[str] = "shapley-regression"
    shows: ClassVar[str] = (
        "What each column adds to the prediction of an estimator retrained on every subset of "
        "columns; the parts sum to it."
    )
    cost: ClassVar[str] = "2^n fits"
    takes_missing: ClassVar[bool] = False
    axioms: ClassVar[tuple[Axiom, ...]] = ("completeness",)
    needs: ClassVar[tuple[Need, ...]] = ("retraining",)
    data: ClassVar[tuple[str, ...]] = ("tables",)
    baseline_is: ClassVar[BaselineIs] = "unused"
    paper: ClassVar[Paper] = Paper(
        "Stan Lipovetsky and Michael Conklin",
        "Analysis of Regression in Game Theory Approach",
        "Applied Stochastic Models in Business and Industry",
        2001,
        "https://doi.org/10.1002/asmb.446",
    )

    def absence(self, baseline: Baseline, scorer: Scorer, groups: FeatureGroups) -> Masker:
        model, points, point = scorer.model, scorer.points, scorer.points[0]
        if not isinstance(model, Retrained):
            raise BadInput(
                f"shapley-regression retrains the model, and {type(model).__name__} does not say how: "
                "give whyglass.Retrained(estimator, data, labels), an estimator like scikit-learn's "
                "with its training table"
            )
        if len(points) > 1 or tuple(point.shape[1:]) != (model.columns,):
            raise BadInput(
                f"inputs have shape {[tuple(p.shape) for p in points]}; the training table has "
                f"{model.columns} columns, so give (B, {model.columns})"
            )
        if not point.is_floating_point():
            raise BadInput(f"inputs are {point.dtype}: give floats, inputs.double()")
        return Replace(groups, points, (torch.full_like(point, torch.nan),), False, None)

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        few_enough(groups.count)

    def held(self, players: int) -> int:
        return 2**players

    def estimate(self, game: Game) -> Estimate:
        values = shapley(game.all_values(), game.n)
        return Estimate(values, torch.zeros_like(values))


def r_squared_shares(model: Retrained) -> Tensor:
    r"""Each column's Shapley value of R squared, the estimator retrained on every subset of columns.

    .. math:: v(S) = 1 - \frac{\sum_j (y_j - f_S(x_j))^2}{\sum_j (y_j - \bar y)^2}

    over the rows of the training table. Returns (columns,), float64, which add up to the R squared with
    all columns. Units: R squared. Source: Lipovetsky & Conklin (2001), "net effects"; Lindeman,
    Merenda & Gold (1980).

    Raises:
        BadInput: a classifier, labels that are all the same, or more than 15 columns.
    """
    if model.classifies:
        raise BadInput("R squared is of a regression, and the estimator is a classifier")
    few_enough(model.columns)
    labels = model.labels.astype(np.float64)
    spread = labels.var()
    if not spread > 0:
        raise BadInput("labels are all the same: there is no variance to share out")
    worth = torch.zeros(1, 2**model.columns, 1, dtype=torch.float64)
    for number in range(1, 2**model.columns):
        columns = members(torch.tensor([number]), model.columns)[0].numpy()
        off = labels - model.predict(model.data[:, columns], columns)
        worth[0, number] = 1 - float((off**2).mean() / spread)
    return shapley(worth, model.columns)[0, :, 0]


def few_enough(players: int) -> None:
    """Refuse more players than an estimator can be retrained on all subsets of."""
    if players > MOST:
        raise BadInput(
            f"shapley-regression retrains on every subset of the columns: {players} of them take "
            f"2^{players} - 1 = {2**players - 1:,} fits, and it stops at {MOST}: group columns with "
            "players=, or choose some"
        )
