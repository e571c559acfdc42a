"""Autograd functions whose backward pass carries relevance in place of a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from whyglass.propagation.lrp.redistribution import Redistribution


class StartFromScore(torch.autograd.Function):
    """Forwards the scores are unchanged; backwards the relevance starts as the score."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        ctx.save_for_backward(scores)
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Tensor:
        return gradient[0] * ctx.saved_tensors[0]


class Redistribute(torch.autograd.Function):
    """Forwards y is unchanged; backwards each operand gets its relevance by a redistribution.

    The redistribution is dropped after the last target: memory used again is much faster than fresh
    memory.
    """

    @staticmethod
    def forward(ctx: Any, redistribution: Redistribution, y: Tensor, *operands: Tensor) -> Tensor:
        ctx.redistribution, ctx.targets_done = redistribution, 0
        return y

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        redistribution: Redistribution = ctx.redistribution
        ctx.targets_done += 1
        if ctx.targets_done == redistribution.rules.targets:
            ctx.redistribution = None
        return None, None, *redistribution.pass_back(relevance[0])
