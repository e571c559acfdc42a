"""Counterfactual Grad-CAM: the regions whose removal would make the network surer."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.cam.activation_map import ActivationMap, channel_weights
from whyglass.cam.grad_cam import PAPER
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class CounterfactualGradCAM(ActivationMap):
    r"""Grad-CAM of the negated gradient: what speaks against the target.

    .. math:: L = ReLU(\sum_k \alpha_k A^k), \quad
        \alpha_k = \frac{1}{Z} \sum_{ij} -\frac{\partial S}{\partial A^k_{ij}}

    Units: as `GradCAM`. Source: Selvaraju et al. (2017), section 3.3, equation 3.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.CounterfactualGradCAM()(lambda x: (-2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[0.5000, 0.0000],
            [0.0000, 1.5000]])
    """

    name: ClassVar[str] = "counterfactual-grad-cam"
    shows: ClassVar[str] = (
        "Which coarse regions speak against the answer: without them the network would be surer."
    )
    paper: ClassVar[Paper] = PAPER

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return (channel_weights(-gradients) * activations).sum(1).relu()
