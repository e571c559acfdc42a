"""Layer, RMS, group and instance norm as linear maps, once their spread counts as a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call


def _given(call: Call, names: tuple[str, ...]) -> dict[str, Any]:
    args, kwargs = call.arguments()
    return dict(zip(names, args, strict=False)) | kwargs


def _standardised(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred * torch.rsqrt(centred.detach().square().mean(axes, keepdim=True) + eps)


def _channels(weight: Tensor | None, x: Tensor) -> Tensor:
    return x if weight is None else x * weight.detach().reshape(1, -1, *[1] * (x.dim() - 2))


class _LayerNorm(torch.autograd.Function):
    """torch's own layer norm; backwards the spread is a constant."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: tuple[int, ...], weight: Any, bias: Any, eps: float
    ) -> Tensor:
        y, _, per_spread = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(weight, per_spread)
        ctx.axes = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, per_spread = ctx.saved_tensors
        found = gradients[0] * per_spread
        found = found if weight is None else found.mul_(weight)
        return found.sub_(found.mean(ctx.axes, keepdim=True)), None, None, None, None


def layer_norm(call: Call, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Layer norm with the spread a constant, and another bias than its own."""
    given = _given(call, ("input", "normalized_shape", "weight", "bias", "eps"))
    weight, shape = given.get("weight"), tuple(given["normalized_shape"])
    weight, bias = (None if part is None else part.detach() for part in (weight, bias))
    return _LayerNorm.apply(x, shape, weight, bias, given.get("eps", 1e-5))


def _rms_norm(call: Call, x: Tensor) -> Tensor:
    given = _given(call, ("input", "normalized_shape", "weight", "eps"))
    axes = tuple(range(-len(tuple(given["normalized_shape"])), 0))
    eps = given.get("eps")
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    found = x * torch.rsqrt(x.detach().square().mean(axes, keepdim=True) + eps)
    return found if given.get("weight") is None else found * given["weight"].detach()


def _group_norm(call: Call, x: Tensor) -> Tensor:
    given = _given(call, ("input", "num_groups", "weight", "bias", "eps"))
    groups = x.reshape(len(x), given["num_groups"], -1)
    found = _standardised(groups, (-1,), given.get("eps", 1e-5)).reshape(x.shape)
    return _channels(given.get("weight"), found)


def _instance_norm(call: Call, x: Tensor) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats")
    given = _given(call, (*names, "momentum", "eps"))
    eps = given.get("eps", 1e-5)
    if given.get("use_input_stats", True) or given.get("running_var") is None:
        found = _standardised(x, tuple(range(2, x.dim())), eps)
    else:
        found = _channels(torch.rsqrt(given["running_var"] + eps), x)
    return _channels(given.get("weight"), found)


NORMS: dict[str, Callable[[Call, Tensor], Tensor]] = {
    "layer_norm": layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
