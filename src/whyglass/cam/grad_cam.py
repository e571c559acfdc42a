"""Grad-CAM: the channels that raise the score, weighted by their mean gradient."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.cam.activation_map import ActivationMap, channel_weights
from whyglass.core.paper import Paper

PAPER = Paper(
    "Ramprasaath R. Selvaraju, Michael Cogswell, Abhishek Das, Ramakrishna Vedantam, "
    "Devi Parikh and Dhruv Batra",
    "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
    "ICCV",
    2017,
    "https://arxiv.org/abs/1610.02391",
)


@dataclass(frozen=True, kw_only=True)
class GradCAM(ActivationMap):
    r"""Rectified sum of channels A^k, weighted by the spatial mean of their gradient.

    .. math:: L = ReLU(\sum_k \alpha_k A^k), \quad
        \alpha_k = \frac{1}{Z} \sum_{ij} \frac{\partial S}{\partial A^k_{ij}}

    Units: score per pixel of the map, up to the linearisation. On a network that ends in global
    average pooling and one linear layer, L = ReLU(CAM) / Z. Source: Selvaraju et al. (2017),
    equations 1 and 2.

    Args:
        relu: drop what speaks against the target; False keeps both signs.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.GradCAM()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[0.5000, 0.0000],
            [0.0000, 1.5000]])
    """

    relu: bool = True

    name: ClassVar[str] = "grad-cam"
    shows: ClassVar[str] = "Which coarse regions the last layer uses as evidence for the answer."
    paper: ClassVar[Paper] = PAPER

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        heat = (channel_weights(gradients) * activations).sum(1)
        return heat.relu() if self.relu else heat
