"""Saliency: how much the score reacts to each feature."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.method import Attribution, Axiom, Method
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class Saliency(Method):
    r"""Sensitivity of the score to each feature.

    .. math:: R_i = |\partial S / \partial x_i|

    Units: score per unit of the feature. Some texts call gradient x input "saliency"; that is
    `GradientXInput`. Source: Simonyan, Vedaldi & Zisserman (2014), section 3.

    >>> import torch, whyglass
    >>> whyglass.Saliency()(lambda x: x[:, :1] ** 2 - 3 * x[:, 1:], torch.tensor([[2.0, 5.0]])).values
    tensor([[4., 3.]])
    """

    name: ClassVar[str] = "saliency"
    shows: ClassVar[str] = "Which features would change the score most if they changed a little."
    family: ClassVar[str] = "gradient"
    cost: ClassVar[str] = "1 gradient"
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "dummy")
    paper: ClassVar[Paper] = Paper(
        "Karen Simonyan, Andrea Vedaldi and Andrew Zisserman",
        "Deep Inside Convolutional Networks: Visualising Image Classification Models and "
        "Saliency Maps",
        "ICLR Workshop",
        2014,
        "https://arxiv.org/abs/1312.6034",
    )

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        here = scorer.at_inputs(gradient=True)
        values = tuple(gradient.abs() for gradient in here.gradients)
        return Attribution(values, here.scores, checks=(not_flat(values, scorer.many),))
