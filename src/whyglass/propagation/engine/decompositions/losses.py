"""Losses in elementary operations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def mean_squared_error(input: Tensor, target: Tensor, reduction: str = "mean", **_: Any) -> Tensor:
    """The mean of (x - t)^2."""
    return _reduced(torch.square(input - target), reduction)


def mean_absolute_error(input: Tensor, target: Tensor, reduction: str = "mean", **_: Any) -> Tensor:
    """The mean of |x - t|."""
    return _reduced((input - target).abs(), reduction)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    **_: Any,
) -> Any:
    """The log-probability of a class, or a mean over classes by their probabilities, negative."""
    plain = weight is None and not label_smoothing
    if not plain or bool((target == ignore_index).any()):
        return NotImplemented
    axis = int(input.dim() > 1)
    logs = F.log_softmax(input, axis)
    if target.is_floating_point():
        losses = -(target * logs).sum(axis)
    else:
        losses = -logs.gather(axis, target.unsqueeze(axis)).squeeze(axis)
    return _reduced(losses, reduction)


def cross_entropy_of_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
    **_: Any,
) -> Any:
    """softplus(x) - x t, of yes or no."""
    if pos_weight is not None:
        return NotImplemented
    losses = F.softplus(input) - input * target
    return _reduced(losses if weight is None else losses * weight, reduction)
