"""Layer-wise relevance propagation."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.propagation.lrp.composites import Composite
from whyglass.propagation.lrp.relevance import Bias
from whyglass.propagation.lrp.relevance_method import RelevanceMethod
from whyglass.propagation.lrp.rules import Rule


@dataclass(frozen=True, kw_only=True)
class LRP(RelevanceMethod):
    r"""The score, passed back layer by layer in shares, until it lies on the features.

    .. math:: R_j = \sum_k \frac{z_{jk}}{\sum_i z_{ik}} R_k, \quad z_{jk} = x_j w_{jk} \; \text{(LRP-0)}

    Each weighted operation follows a rule: `Zero`, `Epsilon`, `Gamma`, `AlphaBeta`, `ZPlus`,
    `WSquare`, `Flat`, `ZBox`, or different ones by place in a `Composite`. Presets: "gamma" (the
    default, which cannot grow without bound), "zero", "epsilon", "z-plus", "alpha2-beta1", "w-square",
    "gamma-epsilon-zero" (from the input to the output), and, for images, "epsilon-plus",
    "epsilon-plus-flat", "epsilon-alpha2-beta1", "epsilon-alpha2-beta1-flat", "epsilon-gamma-box". A
    function of one number passes all relevance to it, max-pooling to the winner, sums and averages in
    shares. In a product with a gate (sigmoid, softmax) the other factor takes all, in another product
    each takes half. The standard deviation in a norm counts as a constant; batch norm is joined to the
    layer before it.
    Units: score. Source: Bach et al. (2015), equations 56 to 60; Hagan et al., "Neural Network Design
    2", chapter 9, equations 9.18 to 9.29.

    >>> import torch, whyglass
    >>> model = lambda x: torch.relu(x @ torch.tensor([[1.0, -1.0], [2.0, 1.0]])).sum(1)
    >>> whyglass.LRP(rule="zero")(model, torch.tensor([[1.0, 2.0]])).values
    tensor([[0., 6.]])
    """

    rule: str | Rule | Composite = "gamma"
    bias: Bias = "ignore"

    name: ClassVar[str] = "lrp"
    shows: ClassVar[str] = "How much of the score each feature carries, by shares layer by layer."
    axioms: ClassVar[tuple[Axiom, ...]] = ("dummy",)
    paper: ClassVar[Paper] = Paper(
        "Sebastian Bach, Alexander Binder, Grégoire Montavon, Frederick Klauschen, Klaus-Robert "
        "Müller and Wojciech Samek",
        "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance "
        "Propagation",
        "PLOS ONE",
        2015,
        "https://doi.org/10.1371/journal.pone.0130140",
    )
