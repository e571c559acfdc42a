"""DASP: Shapley values without sampling, from means and variances of a random coalition."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import both_ends
from whyglass.core.checks import completeness
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import Attribution, Axiom, Method, Need, integer, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Rows, Scorer
from whyglass.propagation.engine.passes import require_visible_operations
from whyglass.propagation.moments.moments import Moments
from whyglass.propagation.moments.random_coalitions import Players, antithetic_values, bias_check
from whyglass.propagation.moments.rules import RULES

TOLERANCE = 0.1
LEAST_PAIRS = 4
MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class DASP(Method):
    r"""Shapley values by passing means and variances through the network in place of coalitions.

    .. math:: R_i = \frac{1}{K} \sum_k E_{|C| = k} [S(x_{C \cup i})] - E_{|C| = k} [S(x_C)]

    C is a random coalition of k other features, the rest being at the baseline. The first layer's
    output then has a known mean and variance, and each operation after it passes both on as if its
    input were Gaussian. That is an approximation, with a bias that no budget makes smaller: the check
    "bias" compares the values with antithetic permutations for the same number of evaluations, and
    warns where those are surely closer. For the same time sampling is often the better bargain, since
    a pass counts as one evaluation and costs two or more. Exact where the score is linear in the
    features. Softmax is passed to first order. Units: score. Source: Ancona, Oztireli & Gross (2019);
    the variance of a draw without replacement is exact in a first convolution too.

    Args:
        sizes: how many coalition sizes K are evaluated, evenly over 0 to n - 1, of n
            features; None is all n.
        covariance: "none" passes variances, as published; "full" passes the covariance that each
            feature causes as well, one more pass a feature: for a few dozen features.
        compare: whether to run the check against sampling, which doubles the evaluations.
        seed: of the permutations that the check draws; the values do not depend on it.

    >>> import torch, whyglass
    >>> model = lambda x: torch.relu(x @ torch.tensor([[1.0], [1.0], [-2.0]]))
    >>> e = whyglass.DASP()(model, torch.tensor([[2.0, 1.0, 1.0]]))
    >>> e.values  # the Shapley values are 1.3333, 0.8333, -1.1667
    tensor([[ 1.4145,  0.8659, -1.1528]])
    """

    sizes: int | None = 8
    covariance: Literal["none", "full"] = "none"
    compare: bool = True
    seed: int = 0

    name: ClassVar[str] = "dasp"
    shows: ClassVar[str] = (
        "What each feature adds to a random coalition of the others, without drawing any."
    )
    family: ClassVar[str] = "propagation"
    cost: ClassVar[str] = "4 evaluations a feature and size"
    needs: ClassVar[tuple[Need, ...]] = ("layer",)
    axioms: ClassVar[tuple[Axiom, ...]] = ("linearity", "dummy")
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Marco Ancona, Cengiz Oztireli and Markus Gross",
        "Explaining Deep Neural Networks with a Polynomial Time Algorithm for Shapley Value "
        "Approximation",
        "ICML",
        2019,
        "https://arxiv.org/abs/1903.10992",
    )

    def __post_init__(self) -> None:
        if self.sizes is not None:
            positive_integer("sizes", self.sizes)
        if self.covariance not in {"none", "full"}:
            raise BadInput(f'covariance must be "none" or "full", not {self.covariance!r}')
        if not isinstance(self.compare, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass anything
            raise BadInput(f"compare must be True or False, not {self.compare!r}")
        integer("seed", self.seed)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        require_visible_operations(scorer.model)

        def prepare(starts: Leaves) -> Leaves:
            if not all(map(differentiable, scorer.points)):
                raise BadInput(
                    "dasp makes every input random, so all must be floats: wrap the model in a "
                    "callable that holds the others fixed, or explain at= a layer"
                )
            return starts

        starts, here = both_ends(baseline, scorer, False, prepare)
        players = Players(scorer.points, starts)
        passes = 2 * players.count * len(self._sizes(players.count))
        if passes > MOST:
            raise BadInput(
                f"dasp takes {passes:.2g} passes a row for {players.count} features, and stops at "
                f"{MOST:,}: fewer sizes=, at= a small layer, or kernel-shap with players= that group "
                "features"
            )
        every = torch.arange(scorer.rows)
        before = scorer.scores(lambda piece: tuple(start[piece] for start in starts), every)
        values = self._values(scorer, players)
        sums = completeness(players.leaves(values), here.scores, before, TOLERANCE)
        # The gap measures the approximation, which is no fault of the network or the call.
        checks = [replace(sums, verdict="pass" if sums.verdict == "pass" else "warn")]
        if self.compare:
            pairs = max(LEAST_PAIRS, len(self._sizes(players.count)))
            generator = torch.Generator().manual_seed(self.seed)
            sampled = antithetic_values(scorer, players, (before, here.scores), pairs, generator)
            checks.append(bias_check(values, sampled))
        return Attribution(players.leaves(values), here.scores, before, starts, checks=checks)

    def _sizes(self, count: int) -> list[int]:
        """Coalition sizes: the middle of each of K even parts of 0 .. n - 1."""
        parts = min(self.sizes or count, count)
        return [int(part[len(part) // 2]) for part in torch.arange(count).tensor_split(parts)]

    def _values(self, scorer: Scorer, players: Players) -> Tensor:
        """The mean over sizes of what feature i adds: (B, n) or (B, n, K)."""
        sizes = torch.tensor(self._sizes(players.count))
        # Row, feature, size, and whether the feature is in.
        form = (scorer.rows, players.count, len(sizes), 2)
        full = self.covariance == "full"

        def parts(piece: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            row, who, size, inside = torch.unravel_index(
                torch.arange(piece.start, piece.stop), form
            )
            return row, who, sizes[size], inside

        class CoalitionMoments(Moments):
            def __init__(self, piece: slice) -> None:
                super().__init__(RULES)
                self._piece = piece

            def begin(self, leaves: Leaves, first: int = 0) -> None:
                row, who, size, _ = parts(self._piece)
                covariances = players.covariance(row, who, size, full)
                for leaf, covariance in zip(leaves, covariances[first:], strict=False):
                    self.start(leaf, covariance)

            def end(self, scores: Tensor) -> Tensor:
                return scores

        def around(piece: slice, _rows: Rows) -> CoalitionMoments:
            return CoalitionMoments(piece)

        rows = torch.arange(scorer.rows).repeat_interleave(math.prod(form[1:]))
        scorer.interception, scorer.intercepts_scores = around, True
        scores = scorer.scores(lambda piece: players.mean(*parts(piece)), rows).double()
        scorer.interception, scorer.intercepts_scores = None, False
        scores = scores.reshape(*form, *scores.shape[1:])
        return (scores[:, :, :, 1] - scores[:, :, :, 0]).mean(2)
