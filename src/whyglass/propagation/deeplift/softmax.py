r"""DeepLIFT through softmax, log-softmax and log sum exp.

Probabilities p_j = exp(x_j - c) have c = log sum exp x in common. By the Rescale rule of exp a change
of log p_j counts L_j = (p_j - p'_j) / (log p_j - log p'_j), the logarithmic mean of p_j and p'_j.
Since probabilities add up to 1 at both ends,

.. math:: \sum_j L_j (\Delta x_j - \Delta c) = 0, \quad
    \Delta c = \sum_j w_j \Delta x_j, \quad w_j = L_j / \sum_i L_i

and w_j are the multipliers of log sum exp, in economics the weights of Sato and Vartia (1976). They
add up to 1, and those of softmax and log-softmax to 0, so a common shift of all x_j has no effect, as
it has none on probabilities. All of it is computed from log p, in which a common x has cancelled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.deeplift.rounding import Rounding
from whyglass.propagation.engine.calls import Call

Axes = int | tuple[int, ...]


class _Shifted(torch.autograd.Function):
    """Forwards y is unchanged; backwards the multipliers of y = f(x - log sum exp x).

    `slopes` are the mean slopes of f; without them y is log sum exp itself. `largest` is the largest
    change of an input.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, weights: Tensor, slopes: Tensor | None, largest: Tensor,
        axes: Axes, rounding: Rounding,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(weights, slopes, largest)
        ctx.axes, ctx.note = axes, rounding.operation(x.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *multipliers: Tensor) -> tuple[Tensor | None, ...]:
        weights, slopes, largest = ctx.saved_tensors
        if slopes is None:
            terms = m = multipliers[0] * weights
        else:
            terms = multipliers[0] * slopes
            m = torch.addcmul(terms, weights, terms.sum(ctx.axes, keepdim=True), value=-1)
            # Where one probability is nearly 1, m is small and its sum is not, beside it, until now.
            m = m.addcmul_(weights, m.sum(ctx.axes, keepdim=True), value=-1)
        ctx.note(terms.abs().sum(ctx.axes, keepdim=True) * largest)
        return m, None, None, None, None, None, None


def softmax(call: Call, rounding: Rounding) -> Tensor:
    """Softmax: the multiplier of x_j in p_k is L_k ([j = k] - w_j)."""
    y, means, axis = _with_means(call)
    return _shifted(call, y, means, means, axis, rounding)


def log_softmax(call: Call, rounding: Rounding) -> Tensor:
    """Log-softmax: the multiplier of x_j in log p_k is [j = k] - w_j."""
    y, means, axis = _with_means(call)
    return _shifted(call, y, means, torch.ones_like(means), axis, rounding)


def logsumexp(call: Call, rounding: Rounding) -> Tensor:
    """Log sum exp: the multiplier of x_j is w_j."""
    axes = call.argument("dim")
    axes = axes if isinstance(axes, int) else tuple(axes)
    x, x0 = call.leaves[call.operands[0]], call.baseline_leaves[call.operands[0]]
    with torch.no_grad():
        y = torch.logsumexp(x, axes, keepdim=True)
        means = _log_means(x.detach(), x0, axes)
    result = _shifted(call, y, means, None, axes, rounding)
    return result if call.argument("keepdim") else result.squeeze(axes)


def _with_means(call: Call) -> tuple[Tensor, Tensor, int]:
    """The result of a softmax, the logarithmic means of its probabilities, and its axis."""
    axis: int = call.argument("dim")
    x, x0 = call.leaves[call.operands[0]], call.baseline_leaves[call.operands[0]]
    with torch.no_grad():
        y: Tensor = call.run()
        return y, _log_means(x.detach().to(y.dtype), x0.to(y.dtype), axis), axis


def _shifted(
    call: Call, y: Tensor, means: Tensor, slopes: Tensor | None, axes: Axes, rounding: Rounding
) -> Tensor:
    x, x0 = call.leaves[call.operands[0]], call.baseline_leaves[call.operands[0]]
    with torch.no_grad():
        weights = means / means.sum(axes, keepdim=True)
        # Masks of minus infinity have no difference.
        largest = (x - x0).abs_().nan_to_num_(0.0, 0.0).amax(axes, keepdim=True)
    return _Shifted.apply(x, y, weights, slopes, largest, axes, rounding)


def _log_means(x: Tensor, x0: Tensor, axes: Axes) -> Tensor:
    """The logarithmic means L_j of the probabilities at input and baseline."""
    logs, logs0 = (_log_probabilities(at, axes) for at in (x, x0))
    largest = torch.maximum(logs, logs0).exp_()
    means = largest * _mean_decay((logs - logs0).abs_())
    return torch.where(largest == 0, 0.0, means)


def _log_probabilities(x: Tensor, axes: Axes) -> Tensor:
    if isinstance(axes, int):
        return torch.log_softmax(x, axes)
    shifted = x - x.amax(axes, keepdim=True)
    return shifted - shifted.logsumexp(axes, keepdim=True)


def _mean_decay(d: Tensor) -> Tensor:
    """The mean of exp(-t) for t from 0 to d >= 0, which is (1 - exp(-d)) / d, or 1 at d = 0."""
    d = d.clamp_min_(torch.finfo(d.dtype).tiny)
    return torch.expm1(-d).div_(d).neg_()
