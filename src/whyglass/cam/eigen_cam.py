"""Eigen-CAM: the first principal component of the channels, whatever the class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.cam.activation_map import ActivationMap
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class EigenCAM(ActivationMap):
    r"""Activations projected on the first right singular vector of the matrix positions x channels.

    .. math:: A = U \Sigma V^T, \quad L = A v_1

    The map does not depend on the target: it shows what is there, not what decides. A singular
    vector's sign is arbitrary; it is taken so that the map's sum is not negative. Units: those of
    the activations. Source: Muhammad & Yeasin (2020), equations 2 and 3.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.EigenCAM()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[2.0000, 0.0000],
            [0.0000, 6.0000]])
    """

    name: ClassVar[str] = "eigen-cam"
    shows: ClassVar[str] = "What stands out in the last layer, whatever the answer."
    paper: ClassVar[Paper] = Paper(
        "Mohammed Bany Muhammad and Mohammed Yeasin",
        "Eigen-CAM: Class Activation Map using Principal Components",
        "IJCNN",
        2020,
        "https://arxiv.org/abs/2008.00299",
    )

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        matrix = activations.flatten(2).transpose(1, 2)
        left, singular, _ = torch.linalg.svd(matrix, full_matrices=False)
        heat = left[:, :, 0] * singular[:, :1]
        heat = torch.where(heat.sum(1, keepdim=True) < 0, -heat, heat)
        return heat.reshape(len(heat), *activations.shape[2:])
