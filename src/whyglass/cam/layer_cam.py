"""LayerCAM: each position weighted by its own positive gradient."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from whyglass.cam.activation_map import ActivationMap
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class LayerCAM(ActivationMap):
    r"""Rectified sum of activations times their own positive gradient; fine in early layers too.

    .. math:: M_{ij} = ReLU(\sum_k ReLU(\partial S / \partial A^k_{ij}) \, A^k_{ij})

    Units: score per pixel of the map. Source: Jiang et al. (2021), equations 5 and 6.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.LayerCAM()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[0.5000, 0.0000],
            [0.0000, 1.5000]])
    """

    name: ClassVar[str] = "layer-cam"
    shows: ClassVar[str] = "Which positions of a layer hold evidence, each on its own."
    paper: ClassVar[Paper] = Paper(
        "Peng-Tao Jiang, Chang-Bin Zhang, Qibin Hou, Ming-Ming Cheng and Yunchao Wei",
        "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
        "IEEE Transactions on Image Processing",
        2021,
        "https://doi.org/10.1109/TIP.2021.3089943",
    )

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        return (gradients.relu() * activations).sum(1).relu()
