"""SmoothGrad-squared: the mean squared gradient over noisy copies of the input."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing
from whyglass.inputs import Leaves, per_row
from whyglass.method import Axiom
from whyglass.paper import Paper


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
    shows: ClassVar[str] = (
        "Where the score is sensitive, averaged over noisy copies of the input."
    )
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "dummy")
    powers: ClassVar[int] = 4
    paper: ClassVar[Paper] = Paper(
        "Sara Hooker, Dumitru Erhan, Pieter-Jan Kindermans and Been Kim",
        "A Benchmark for Interpretability Methods in Deep Neural Networks",
        "NeurIPS",
        2019,
        "https://arxiv.org/abs/1806.10758",
    )

    def finish(self, moments: Moments) -> tuple[Leaves, Leaves]:
        errors: list[Tensor] = []
        for second, fourth in zip(moments.mean(2), moments.mean(4), strict=True):
            n = per_row(moments.count.to(second.device), second)
            errors.append(((fourth - second**2).clamp_min(0) / (n - 1)).sqrt())
        return moments.mean(2), tuple(errors)
