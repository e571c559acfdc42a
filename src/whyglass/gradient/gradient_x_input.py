"""Gradient x input: the first-order share of each feature in the score."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.inputs import multiply
from whyglass.core.method import Attribution, Axiom, Method
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class GradientXInput(Method):
    r"""The gradient times the feature: exact shares where the score is linear without a bias.

    .. math:: R_i = x_i \, \partial S / \partial x_i

    Units: score. Source: Shrikumar et al. (2016); the book chapter calls it "saliency".

    >>> import torch, whyglass
    >>> model = lambda x: x[:, :1] ** 2 - 3 * x[:, 1:]
    >>> whyglass.GradientXInput()(model, torch.tensor([[2.0, 5.0]])).values
    tensor([[  8., -15.]])
    """

    name: ClassVar[str] = "gradient-x-input"
    shows: ClassVar[str] = "How the present features add up to the score, to first order."
    family: ClassVar[str] = "gradient"
    cost: ClassVar[str] = "1 gradient"
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "linearity", "dummy")
    paper: ClassVar[Paper] = Paper(
        "Avanti Shrikumar, Peyton Greenside, Anna Shcherbina and Anshul Kundaje",
        "Not Just a Black Box: Learning Important Features Through Propagating Activation "
        "Differences",
        "arXiv",
        2016,
        "https://arxiv.org/abs/1605.01713",
    )

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        here = scorer.at_inputs(gradient=True)
        values = multiply(here.gradients, here.points, scorer.many)
        return Attribution(values, here.scores, checks=(not_flat(values, scorer.many),))
