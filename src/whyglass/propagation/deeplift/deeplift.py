"""DeepLIFT: differences from a baseline, passed back from the score to the features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from whyglass.core.baseline import Baseline
from whyglass.core.method import Attribution
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.propagation.deeplift.difference_method import DifferenceMethod, propagate


@dataclass(frozen=True, kw_only=True)
class DeepLIFT(DifferenceMethod):
    r"""Differences from a baseline x', passed back by multipliers.

    .. math:: R_i = m_i (x_i - x'_i), \quad
        m_x = m_y \frac{f(x) - f(x')}{x - x'} \; \text{(Rescale)}

    Linear operations pass their weights. Functions of one number pass the Rescale rule, the
    derivative where x = x', or RevealCancel. A product of two activations passes to each the mean of
    the other at both ends, which is the Shapley value of two players, and a quotient as the product it
    undoes; norms and attention pass as the elementary operations they are made of; softmax passes so
    that what its inputs have in common has no part; maxima and max-pooling pass their rise and fall to
    the places that made them. The values add up to S(x) - S(x') to rounding on any network whose
    operations have rules. Units: score.
    Source: Shrikumar, Greenside & Kundaje (2017), sections 3.2 to 3.5.

    >>> import torch, whyglass
    >>> model = lambda x: 1 - torch.relu(1 - x[:, 0])
    >>> whyglass.DeepLIFT()(model, torch.tensor([[2.0]])).values
    tensor([[1.]])
    """

    name: ClassVar[str] = "deeplift"
    shows: ClassVar[str] = (
        "What each feature's difference from the baseline did to the score; the parts sum to its "
        "change."
    )
    cost: ClassVar[str] = "1 gradient + 1 evaluation"
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Avanti Shrikumar, Peyton Greenside and Anshul Kundaje",
        "Learning Important Features Through Propagating Activation Differences",
        "ICML",
        2017,
        "https://arxiv.org/abs/1704.02685",
    )

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        return propagate(scorer, baseline, self.rule, self.unsupported)[0]
