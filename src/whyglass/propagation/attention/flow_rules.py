"""Operations whose backward pass shares a flow out among their operands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.core.errors import Unsupported
from whyglass.propagation.engine.calls import Call


def _divided(flow: Tensor, total: Tensor) -> Tensor:
    return torch.where(total == 0, 0.0, flow / torch.where(total == 0, 1.0, total))


class Shares(torch.autograd.Function):
    """y as it is; backwards shares of the flow, summed where an operand was broadcast."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, shares: tuple[float, ...], *operands: Tensor) -> Tensor:
        ctx.shares, ctx.shapes = shares, [operand.shape for operand in operands]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *flow: Tensor) -> tuple[Tensor | None, ...]:
        shares = zip(ctx.shares, ctx.shapes, strict=True)
        return None, None, *((flow[0] * share).sum_to_size(shape) for share, shape in shares)


class Linear(torch.autograd.Function):
    """y as it is; backwards the flow in the shares of the operation's own weights."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, x: Tensor, factor: Tensor | None, run: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.shares, ctx.run = torch.ones_like(x) if factor is None else factor.to(x.dtype), run
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *flow: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            u = ctx.shares.clone().requires_grad_()
            total = ctx.run(u)
        (passed,) = torch.autograd.grad(total, u, _divided(flow[0], total.detach()))
        return None, passed * ctx.shares, None, None


class Sizes(torch.autograd.Function):
    """y as it is; backwards the flow in proportion to the sizes of what was added up."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, call: Call, *operands: Tensor) -> Tensor:
        ctx.call, ctx.sizes = call, [operand.detach().abs() for operand in operands]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *flow: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            sizes = [size.clone().requires_grad_() for size in ctx.sizes]
            total = ctx.call.run(dict(zip(ctx.call.operands, sizes, strict=True)))
        passed = torch.autograd.grad(total, sizes, _divided(flow[0], total.detach()))
        return None, None, *(p * size for p, size in zip(passed, ctx.sizes, strict=True))


class Refusal(torch.autograd.Function):
    """y as it is; an error where any flow arrives."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, refusal: Unsupported, *operands: Tensor) -> Tensor:
        ctx.refusal, ctx.operands = refusal, operands
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *flow: Tensor) -> tuple[Tensor | None, ...]:
        if bool((flow[0] != 0).any()):
            raise ctx.refusal
        return None, None, *(torch.zeros_like(operand) for operand in ctx.operands)
