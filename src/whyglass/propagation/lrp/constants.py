"""Constants of the network that an operation joins to what is explained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.calls import Call

# Operations that put numbers of several origins into one tensor, constants among them.
_CONCATENATING = frozenset(
    "cat concat concatenate stack hstack vstack dstack column_stack row_stack block_diag".split()
)
_JOINING = _CONCATENATING | frozenset(
    "where masked_fill pad constant_pad_nd scatter index_copy index_fill masked_scatter "
    "setitem with_part slice_scatter select_scatter diagonal_scatter pad_sequence".split()
)


def constant_entries(call: Call, result: Any) -> Tensor | None:
    """The entries of a result that are no operand's, as a mask; None if there are none."""
    if call.op not in _JOINING or not isinstance(result, Tensor) or not result.requires_grad:
        return None
    tensors = [leaf for leaf in call.leaves if isinstance(leaf, Tensor)]
    if call.op in _CONCATENATING and len(tensors) == len(call.operands):
        return None
    with torch.no_grad():
        operands = {position: call.leaves[position] for position in call.operands}
        zeros = call.run({position: torch.zeros_like(leaf) for position, leaf in operands.items()})
        ones = call.run({position: torch.ones_like(leaf) for position, leaf in operands.items()})
        constant = zeros == ones
        return constant if constant.any() else None
