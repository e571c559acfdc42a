"""The terms u_p(x) v_p(w) of a flow at one operation, and what they hand back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from whyglass.propagation.engine.linear_operations import scale_output_channels, unbiased
from whyglass.propagation.lrp.rules import Flow, identity

if TYPE_CHECKING:
    from whyglass.propagation.lrp.redistribution import Redistribution


class Terms:
    """The pairs of a flow at an operation: a graph for each pair, and z, the sum of all terms.

    z includes the bias where the bias shares.
    """

    def __init__(self, operation: Redistribution, flow: Flow) -> None:
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._operation = operation
        if operation.weight is None:
            self._build_sum(flow)
        else:
            self._build_weighted(flow, operation.weight)
        parts = [output.detach() for output in self._outputs]
        cancels = len(parts) > 1 and flow.pairs[0][0] is identity
        size = sum(part.abs() for part in parts) if cancels else None
        self.z = parts[0] if parts else torch.zeros_like(operation.y)
        for part in parts[1:]:
            self.z += part
        if size is not None:
            # The later parts are subtracted from the first: a remainder within rounding is zero.
            self.z[self.z.abs() <= 8 * torch.finfo(self.z.dtype).eps * size] = 0
        if operation.bias is not None and flow.biased:
            one = torch.ones((), dtype=operation.y.dtype, device=operation.y.device)
            for on_input, on_weight in flow.pairs:
                self.z += on_input(one) * on_weight(operation.bias)

    def _build_sum(self, flow: Flow) -> None:
        """A sum has the signs of its operands for weights."""
        operation = self._operation
        assert operation.signs is not None
        ((on_input, on_weight),) = flow.pairs
        for value, sign in zip(operation.values, operation.signs, strict=True):
            x = value.detach()
            weight = torch.full((), float(sign), dtype=x.dtype, device=x.device)
            self._inputs.append((on_input(x) * on_weight(weight) * sign).requires_grad_())
        with torch.enable_grad():
            self._outputs.append(operation.sum_of(self._inputs))

    def _build_weighted(self, flow: Flow, weight: int) -> None:
        """A weighted operation has one operand, and one output for each pair."""
        call = self._operation.call
        w = scale_output_channels(call.leaves[weight].detach(), self._operation.scale)
        for on_input, on_weight in flow.pairs:
            u = self._operation.transformed(on_input)
            if u is None:
                continue
            with torch.enable_grad():
                u = u.detach().requires_grad_()
                self._outputs.append(unbiased(call, {call.operands[0]: u}, on_weight(w)))
            self._inputs.append(u)

    def pass_back(self, quotient: Tensor) -> tuple[Tensor, ...]:
        """sum_p u_p v_p^T (R / z), one tensor for each operand."""
        if not self._outputs:
            return (torch.zeros_like(self._operation.values[0]),)
        quotients = [quotient] * len(self._outputs)
        slopes = torch.autograd.grad(self._outputs, self._inputs, quotients)
        if self._operation.weight is None:
            return tuple(slope * u.detach() for u, slope in zip(self._inputs, slopes, strict=True))
        relevance = slopes[0].mul_(self._inputs[0].detach())
        for u, slope in zip(self._inputs[1:], slopes[1:], strict=True):
            relevance.addcmul_(u.detach(), slope)
        return (relevance,)
