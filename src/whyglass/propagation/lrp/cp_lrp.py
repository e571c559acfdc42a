"""CP-LRP: relevance through attention as if its weights were constants."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.propagation.lrp.composites import Composite
from whyglass.propagation.lrp.relevance_method import RelevanceMethod
from whyglass.propagation.lrp.rules import Rule


@dataclass(frozen=True, kw_only=True)
class CPLRP(RelevanceMethod):
    r"""LRP through transformers that keeps to what attention moves: the values take all.

    .. math:: R_{V,j} = \sum_i \frac{A_{ij} V_j}{\sum_k A_{ik} V_k} R_i

    Attention weights A and the standard deviation in a layer norm count as constants, so nothing goes
    to queries and keys, and relevance is conserved but for biases. Explain tokens at= the embedding,
    and sum the values over its last axis. Units: score. Source: Ali et al. (2022), section 4.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    >>> attend = lambda x: (torch.softmax(x @ x.mT, -1) @ x).sum((1, 2))
    >>> whyglass.CPLRP()(attend, x).values.sum(-1)
    tensor([[0.7490, 2.5019]])
    """

    rule: str | Rule | Composite = "zero"

    name: ClassVar[str] = "cp-lrp"
    shows: ClassVar[str] = "How much of the score each token brings, attention held constant."
    axioms: ClassVar[tuple[Axiom, ...]] = ("dummy",)
    paper: ClassVar[Paper] = Paper(
        "Ameen Ali, Thomas Schnake, Oliver Eberle, Grégoire Montavon, Klaus-Robert Müller "
        "and Lior Wolf",
        "XAI for Transformers: Better Explanations through Conservative Propagation",
        "ICML",
        2022,
        "https://arxiv.org/abs/2202.07304",
    )
