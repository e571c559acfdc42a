"""Rules for nonlinearities that gate: guided backprop's and deconvolution's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine import Call


class _Rectified(torch.autograd.Function):
    """y as it is; backwards the positive part of the gradient, times a slope if there is one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        positive = gradients[0].relu()
        return positive if slope is None else positive * slope, None, None
