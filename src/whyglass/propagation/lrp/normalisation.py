"""Layer, RMS, group and instance norm as linear maps whose standard deviation counts as a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.detach().square().mean(axes, keepdim=True) + eps)


def _channels(weight: Tensor | None, x: Tensor) -> Tensor:
    return x if weight is None else x * weight.detach().reshape(1, -1, *[1] * (x.dim() - 2))


class _LayerNorm(torch.autograd.Function):
    """Forwards torch's own layer norm; backwards its standard deviation is a constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: tuple[int, ...], weight: Any, bias: Any, eps: float
    ) -> Tensor:
        y, _, per_deviation = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(weight, per_deviation)
        ctx.axes = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, per_deviation = ctx.saved_tensors
        gradient = gradients[0] * per_deviation
        gradient = gradient if weight is None else gradient.mul_(weight)
        return gradient.sub_(gradient.mean(ctx.axes, keepdim=True)), None, None, None, None


def layer_norm(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Layer norm with a constant standard deviation, and the bias that the caller passes."""
    arguments = call.bound
    weight, shape = arguments.get("weight"), tuple(arguments["normalized_shape"])
    weight, bias = (None if part is None else part.detach() for part in (weight, bias))
    return _LayerNorm.apply(x, shape, weight, bias, arguments.get("eps", 1e-5))


def _rms_norm(call: Call, x: Tensor) -> Tensor:
    arguments = call.bound
    axes = tuple(range(-len(tuple(arguments["normalized_shape"])), 0))
    eps = arguments.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    scaled = x * torch.rsqrt(x.detach().square().mean(axes, keepdim=True) + eps)
    return scaled if arguments.get("weight") is None else scaled * arguments["weight"].detach()


def _group_norm(call: Call, x: Tensor) -> Tensor:
    arguments = call.bound
    groups = x.reshape(len(x), arguments["num_groups"], -1)
    scaled = _standardised(groups, (-1,), arguments.get("eps", 1e-5)).reshape(x.shape)
    return _channels(arguments.get("weight"), scaled)


def _instance_norm(call: Call, x: Tensor) -> Tensor:
    arguments = call.bound
    eps = arguments.get("eps", 1e-5)
    if arguments.get("use_input_stats", True) or arguments.get("running_var") is None:
        scaled = _standardised(x, tuple(range(2, x.dim())), eps)
    else:
        scaled = _channels(torch.rsqrt(arguments["running_var"] + eps), x)
    return _channels(arguments.get("weight"), scaled)


NORMS: dict[str, Callable[[Call, Tensor], Tensor]] = {
    "layer_norm": layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
