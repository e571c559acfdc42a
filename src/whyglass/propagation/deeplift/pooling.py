"""DeepLIFT through max-pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.propagation.engine.calls import Call


class _Routed(torch.autograd.Function):
    """Forwards y is unchanged; backwards each multiplier goes, scaled, to two places of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, positions: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(positions, scales)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor, None, None, None]:
        positions, scales = ctx.saved_tensors
        flat = multipliers[0].new_zeros(ctx.shape).flatten(0, 1).flatten(1)
        routed = (multipliers[0] * scales).flatten(1, 2).flatten(2)
        for multiplier, position in zip(routed, positions.flatten(1, 2).flatten(2), strict=True):
            flat.scatter_add_(1, position, multiplier)
        return flat.reshape(ctx.shape), None, None, None


def max_pool(call: Call) -> Any:
    """The multipliers of y = max over a window, exact for the change of every output.

    With m = max(y, y'), the rise m - y' goes to the input's largest place and the fall y - m to the
    baseline's largest place. Both places changed by at least as much, so no multiplier exceeds 1.
    """
    position = call.operands[0]
    x, before = call.leaves[position], call.baseline_leaves[position]
    dims = int(call.op.rstrip("d")[-1])
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
    if call.op.startswith("adaptive"):
        pool = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[dims]
    batched = x if x.dim() == dims + 2 else x.unsqueeze(0)
    settings = _settings(call)
    with torch.no_grad():
        other = before if before.dim() == dims + 2 else before.unsqueeze(0)
        y, here = pool(batched.detach(), **settings, return_indices=True)
        y0, there = pool(other, **settings, return_indices=True)
        highest = torch.maximum(y, y0)
        step = (batched.detach() - other).flatten(2)
        scales = [
            torch.where(change == 0, 0.0, change / step.gather(2, at.flatten(2)).view_as(change))
            for change, at in ((highest - y0, here), (y - highest, there))
        ]
    pooled = _Routed.apply(batched, y, torch.stack([here, there]), torch.stack(scales))
    return pooled if batched is x else pooled.squeeze(0)


def _settings(call: Call) -> dict[str, Any]:
    """The arguments of a pooling call, by name."""
    names = ("output_size",) if call.op.startswith("adaptive") else (
        "kernel_size", "stride", "padding", "dilation", "ceil_mode",
    )  # fmt: skip
    return {name: call.bound[name] for name in names if call.argument(name) is not None}
