"""Which inputs describe the tokens in another one: masks, token types, positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from whyglass.core.inputs import Leaves, differentiable

BESIDE_TOKENS = {"attention_mask", "token_type_ids", "position_ids", "special_tokens_mask"}


def describing_tokens(leaves: Leaves, names: Sequence[str | int]) -> set[int]:
    """Which leaves say something of the tokens in another one, by their names or by their values."""
    if all(map(differentiable, leaves)):
        return set()
    every = range(len(leaves))
    named = {i for i, name in enumerate(names) if name in BESIDE_TOKENS}
    binary = {i for i in every if bool(((leaves[i] == 0) | (leaves[i] == 1)).all())}
    counting = {i for i in every if _counts(leaves[i])}
    for describing in (named | binary | counting, named | binary, named):
        tokens = {i for i in every if not differentiable(leaves[i])} - describing
        if tokens:
            shapes = {leaves[i].shape for i in tokens}
            return {i for i in describing if leaves[i].shape in shapes}
    return set()


def _counts(leaf: Tensor) -> bool:
    """Whether every row is 0, 1, 2, ..."""
    if differentiable(leaf) or leaf.dim() != 2:
        return False
    return bool((leaf == torch.arange(leaf.shape[1], device=leaf.device)).all())
