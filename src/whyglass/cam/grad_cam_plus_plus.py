"""Grad-CAM++: Grad-CAM whose weights count each position's positive gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.cam.activation_map import ActivationMap
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class GradCAMPlusPlus(ActivationMap):
    r"""Weighted sum of rectified gradients, so that several instances of a class all count.

    .. math:: w_k = \sum_{ij} \alpha^k_{ij} ReLU(g^k_{ij}), \quad
        \alpha^k_{ij} = \frac{(g^k_{ij})^2}{2 (g^k_{ij})^2 + \sum_{ab} A^k_{ab} (g^k_{ij})^3}

    with g = dS/dA and the map ReLU(sum_k w_k A^k), for the score exp(S), whose common positive factor
    is left out. Where the denominator is zero, so is alpha. Units: none.
    Source: Chattopadhyay et al. (2018), equations 5, 10 and 19.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.GradCAMPlusPlus()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[0.5000, 0.0000],
            [0.0000, 1.5000]])
    """

    name: ClassVar[str] = "grad-cam-plus-plus"
    shows: ClassVar[str] = "Which coarse regions hold evidence, each of several objects counted."
    paper: ClassVar[Paper] = Paper(
        "Aditya Chattopadhyay, Anirban Sarkar, Prantik Howlader and Vineeth N. Balasubramanian",
        "Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks",
        "WACV",
        2018,
        "https://arxiv.org/abs/1710.11063",
    )

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        space = tuple(range(2, gradients.dim()))
        total = activations.sum(space, keepdim=True)
        # Both terms of the fraction divided by g^2, which keeps small gradients from underflowing.
        below = 2 + total * gradients
        alpha = torch.where((below == 0) | (gradients == 0), 0.0, 1 / below)
        weights = (alpha * gradients.relu()).sum(space, keepdim=True)
        return (weights * activations).sum(1).relu()
