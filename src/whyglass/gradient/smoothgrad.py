"""SmoothGrad: the gradient averaged over noisy copies of the input."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.inputs import Leaves
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing


@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Smoothing):
    r"""Mean gradient under Gaussian noise.

    .. math:: R_i = E_\epsilon[\partial S(x + \epsilon) / \partial x_i],
        \quad \epsilon \sim N(0, \sigma^2)

    Units: score per unit of the feature; signed. Source: Smilkov et al. (2017), section 2.1.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, :1] ** 2 - 3 * x[:, 1:]
    >>> whyglass.SmoothGrad(samples=512)(model, torch.tensor([[2.0, 5.0]])).values.round()
    tensor([[ 4., -3.]])
    """

    name: ClassVar[str] = "smoothgrad"
    shows: ClassVar[str] = (
        "Which small changes raise or lower the score, averaged over noisy copies of the input."
    )
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "linearity", "dummy")
    paper: ClassVar[Paper] = Paper(
        "Daniel Smilkov, Nikhil Thorat, Been Kim, Fernanda Viégas and Martin Wattenberg",
        "SmoothGrad: removing noise by adding noise",
        "arXiv",
        2017,
        "https://arxiv.org/abs/1706.03825",
    )

    def finish(self, moments: Moments) -> tuple[Leaves, Leaves]:
        return moments.mean(), moments.std_error()
