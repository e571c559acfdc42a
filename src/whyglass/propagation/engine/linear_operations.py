"""Operations with weights on one tensor: where their weights are, and how to run them with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call

BIASED = frozenset(
    ("linear", "batch_norm", *(f"conv{kind}{d}d" for kind in ("", "_transpose") for d in (1, 2, 3)))
)
PRODUCTS = frozenset({"matmul", "rmatmul", "mm", "bmm", "mv", "einsum", "dot", "outer"})


def bias_of(call: Call) -> Tensor | None:
    """The bias, shaped to be added to the output."""
    bias = call.argument("bias") if call.op in BIASED else None
    return None if bias is None else bias.detach()


def weight_position(call: Call) -> int | None:
    """Where the weights are among the leaves of an operation on one tracked tensor; None if none."""
    if len(call.operands) != 1:
        return None
    if call.op in PRODUCTS:
        tensors = (
            position for position, leaf in enumerate(call.leaves) if isinstance(leaf, Tensor)
        )
        return next((position for position in tensors if position not in call.operands), None)
    if call.op not in BIASED or call.op == "batch_norm":
        return None
    weight = call.argument("weight")
    position = next(position for position, leaf in enumerate(call.leaves) if leaf is weight)
    return None if position in call.operands else position


def unbiased(call: Call, replaced: Mapping[int, Tensor], weight: Tensor | None = None) -> Tensor:
    """The operation without its bias, with other operands, and with other weights if there are any."""
    operands = dict(replaced)
    if weight is not None:
        position = weight_position(call)
        assert position is not None
        operands[position] = weight
    if call.op in BIASED:
        bias = call.argument("bias")
        leaves = tuple(None if leaf is bias else leaf for leaf in call.leaves)
        call = replace(call, leaves=leaves)
    return call.run(operands)


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """A number a channel, shaped to meet an output (B, C, ...)."""
    return vector.reshape(-1, *[1] * (like.dim() - 2))


def scale_output_channels(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Weights whose outputs are scaled, a number a channel."""
    return weight if scale is None else weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


def norm_scale(call: Call) -> Tensor:
    """Scale of a batch norm by running statistics, a number a channel."""
    weight = call.argument("weight")
    with torch.no_grad():
        scale = torch.rsqrt(call.argument("running_var") + call.argument("eps", 1e-5))
        return scale if weight is None else scale.mul_(weight)


def norm_shift(call: Call, scale: Tensor) -> Tensor:
    """What such a batch norm with this scale adds."""
    bias = call.argument("bias")
    with torch.no_grad():
        return (0 if bias is None else bias) - call.argument("running_mean") * scale


def scales_output_channels(call: Call) -> bool:
    """Whether a batch norm behind the operation scales one output channel of its weights each.

    Behind a linear layer of sequences it scales their positions instead.
    """
    if call.op == "linear":
        return call.leaves[call.operands[0]].dim() == 2
    return call.op.startswith("conv") and "transpose" not in call.op
