"""Operations with weights on one tensor: where the weights are, and the operation with others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call

BIASED = {"linear": 2, "batch_norm": 4} | {
    f"conv{kind}{d}d": 2 for kind in ("", "_transpose") for d in (1, 2, 3)
}
PRODUCTS = frozenset({"matmul", "rmatmul", "mm", "bmm", "mv", "einsum", "dot", "outer"})


def bias_of(call: Call) -> Tensor | None:
    """The bias, shaped to be added to the output."""
    position = BIASED.get(call.op)
    bias = None if position is None else call.argument(position, "bias")
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
    weight = call.argument(1, "weight")
    position = next(position for position, leaf in enumerate(call.leaves) if leaf is weight)
    return None if position in call.operands else position


def unbiased(call: Call, replaced: Mapping[int, Tensor], weight: Tensor | None = None) -> Tensor:
    """The operation without its bias, with other operands, and with other weights if given."""
    given = dict(replaced)
    if weight is not None:
        position = weight_position(call)
        assert position is not None
        given[position] = weight
    if call.op in BIASED:
        bias = call.argument(BIASED[call.op], "bias")
        leaves = tuple(None if leaf is bias else leaf for leaf in call.leaves)
        call = replace(call, leaves=leaves)
    return call.run(given)


def per_channel(vector: Tensor, like: Tensor) -> Tensor:
    """A number a channel, shaped to meet an output (B, C, ...)."""
    return vector.reshape(-1, *[1] * (like.dim() - 2))


def scale_output_channels(weight: Tensor, scale: Tensor | None) -> Tensor:
    """Weights whose outputs are scaled, a number a channel."""
    return weight if scale is None else weight * scale.reshape(-1, *[1] * (weight.dim() - 1))


NORM = (
    "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
)  # fmt: skip


def _norm(call: Call) -> dict[str, Any]:
    args, kwargs = call.arguments()
    return dict(zip(NORM, args, strict=False)) | kwargs


def norm_scale(call: Call) -> Tensor:
    """Scale of a batch norm by running statistics, a number a channel."""
    given = _norm(call)
    with torch.no_grad():
        scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5))
        return scale if given.get("weight") is None else scale.mul_(given["weight"])


def norm_shift(call: Call, scale: Tensor) -> Tensor:
    """What such a batch norm with this scale adds."""
    given = _norm(call)
    bias = given.get("bias")
    with torch.no_grad():
        return (0 if bias is None else bias) - given["running_mean"] * scale


def scales_output_channels(call: Call) -> bool:
    """Whether a batch norm behind the operation scales one output channel of its weights each.

    Behind a linear layer of sequences it scales their positions instead.
    """
    if call.op == "linear":
        return call.leaves[call.operands[0]].dim() == 2
    return call.op.startswith("conv") and "transpose" not in call.op
