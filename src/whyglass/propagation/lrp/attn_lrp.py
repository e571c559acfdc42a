"""AttnLRP: relevance through attention, queries and keys included."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.propagation.lrp.composites import Composite
from whyglass.propagation.lrp.products import Products
from whyglass.propagation.lrp.relevance_method import RelevanceMethod
from whyglass.propagation.lrp.rules import Rule


@dataclass(frozen=True, kw_only=True)
class AttnLRP(RelevanceMethod):
    r"""LRP with rules for transformers, in which softmax and both factors of a product take part.

    .. math:: R_i = x_i \Big( R_i^{out} - s_i \sum_j R_j^{out} \Big) \; \text{(softmax } s), \quad
        R_A = A \odot \frac{R}{2 A V} V^T, \; R_V \text{ likewise}

    The standard deviation in a layer norm counts as a constant, functions of one number pass relevance
    unchanged, linear layers follow `rule`. By default that is LRP-0, for which a modified gradient is
    enough and no denominator has to be kept from zero. For a vision transformer rule="gamma" gives less
    noise. Explain tokens at= the embedding, and sum the values over its last axis. Units: score.
    Source: Achtibat et al. (2024), equations 8 to 15.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> attend = lambda x: (torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.AttnLRP()(attend, x).values.sum(-1)
    tensor([[0.2762, 1.2863]])
    """

    rule: str | Rule | Composite = "zero"

    name: ClassVar[str] = "attn-lrp"
    shows: ClassVar[str] = "How much of the score each token carries, attention's choice included."
    axioms: ClassVar[tuple[Axiom, ...]] = ("dummy",)
    products: ClassVar[Products] = "half"
    paper: ClassVar[Paper] = Paper(
        "Reduan Achtibat, Sayed Mohammad Vakilzadeh Hatefi, Maximilian Dreyer, Aakriti Jain, Thomas "
        "Wiegand, Sebastian Lapuschkin and Wojciech Samek",
        "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers",
        "ICML",
        2024,
        "https://arxiv.org/abs/2402.05602",
    )
