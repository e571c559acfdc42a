"""VarGrad: how much the gradient varies between noisy copies of the input."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.core.inputs import Leaves
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing


@dataclass(frozen=True, kw_only=True)
class VarGrad(Smoothing):
    r"""Unbiased variance of the gradient under Gaussian noise.

    .. math:: R_i = \frac{1}{n-1} \sum_s (g_{s,i} - \bar g_i)^2

    Its standard error is the jackknife's, n sqrt((m4 - m2^2) / (n - 1)) / (n - 2), from the central
    moments m2 and m4: Efron & Stein (1981), who show that it is not too small on average.
    Units: (score per unit of the feature) squared; never negative.
    Source: Adebayo et al. (2018), section 2.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, :1] - 3 * x[:, 1:]
    >>> whyglass.VarGrad()(model, torch.tensor([[2.0, 5.0]])).values
    tensor([[0., 0.]])
    """

    name: ClassVar[str] = "vargrad"
    shows: ClassVar[str] = "Where the score's sensitivity is unstable under noise."
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "dummy")
    powers: ClassVar[int] = 4
    never_flat: ClassVar[bool] = False
    fitted: ClassVar[int] = 2
    paper: ClassVar[Paper] = Paper(
        "Julius Adebayo, Justin Gilmer, Ian Goodfellow and Been Kim",
        "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter Values",
        "ICLR Workshop",
        2018,
        "https://arxiv.org/abs/1810.03307",
    )

    def averaged(self, draws: Tensor) -> Tensor:
        return (draws - draws.nanmean(0)).square()

    def finish(self, moments: Moments) -> tuple[Leaves, Leaves]:
        variances: list[Tensor] = []
        errors: list[Tensor] = []
        for m1, m2, m3, m4 in zip(*map(moments.around_shift, (1, 2, 3, 4)), strict=True):
            n = moments.samples(m1)
            second = (m2 - m1**2).clamp_min(0)
            fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
            variances.append(second * n / (n - 1))
            square = (fourth - second**2).clamp_min(0) / (n - 1)
            errors.append(square.sqrt() * n / (n - 2).clamp_min(1))
        return tuple(variances), tuple(errors)
