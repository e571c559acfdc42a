"""SmoothGrad-squared: the mean squared gradient over noisy copies of the input."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.inputs import Leaves
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing


@dataclass(frozen=True, kw_only=True)
class SmoothGradSquared(Smoothing):
    r"""Mean squared gradient under Gaussian noise.

    .. math:: R_i = E_\epsilon[(\partial S(x + \epsilon) / \partial x_i)^2]

    Units: (score per unit of the feature) squared; never negative.
    Source: Hooker et al. (2019), section 3.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, :1] - 3 * x[:, 1:]
    >>> whyglass.SmoothGradSquared()(model, torch.tensor([[2.0, 5.0]])).values
    tensor([[1., 9.]])
    """

    name: ClassVar[str] = "smoothgrad-squared"
    shows: ClassVar[str] = "Where the score is sensitive, averaged over noisy copies of the input."
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "dummy")
    squared: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        "Sara Hooker, Dumitru Erhan, Pieter-Jan Kindermans and Been Kim",
        "A Benchmark for Interpretability Methods in Deep Neural Networks",
        "NeurIPS",
        2019,
        "https://arxiv.org/abs/1806.10758",
    )

    def finish(self, moments: Moments) -> tuple[Leaves, Leaves]:
        return moments.mean(), moments.std_error()
