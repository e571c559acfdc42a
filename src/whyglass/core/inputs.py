"""Model inputs: one tensor, a tuple (positional arguments) or a dict (keyword arguments).

Inside the library they are a flat tuple of tensors, the leaves; a `Structure` remembers the form.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from whyglass.core.errors import BadInput

Inputs: TypeAlias = "Tensor | tuple[Tensor, ...] | dict[str, Tensor]"
Leaves: TypeAlias = tuple[Tensor, ...]


@dataclass(frozen=True)
class Structure:
    """The form of the inputs: `names` is None for one tensor, else it has one label a leaf."""

    names: tuple[str | int, ...] | None = None

    def pack(self, leaves: Sequence[Tensor]) -> Inputs:
        """The leaves in the form of the inputs."""
        if self.names is None:
            return leaves[0]
        if self.names and isinstance(self.names[0], str):
            return {str(name): leaf for name, leaf in zip(self.names, leaves, strict=True)}
        return tuple(leaves)

    def call(self, model: Callable[..., Any], leaves: Sequence[Tensor]) -> Any:
        """The output of the model on these leaves."""
        packed = self.pack(leaves)
        if isinstance(packed, dict):
            return model(**packed)
        return model(*packed) if isinstance(packed, tuple) else model(packed)

    def label(self, leaf: int) -> str:
        """The name of a leaf in a message."""
        return "inputs" if self.names is None else f"inputs[{self.names[leaf]!r}]"


def unpack(inputs: object, of_arrays: torch.dtype | None = None) -> tuple[Leaves, Structure]:
    """Leaves and their structure, after checking types and the batch axis.

    Numpy arrays become tensors, and those of floats of the type `of_arrays`, if there is one.
    """
    if isinstance(inputs, Tensor | np.ndarray):
        parts, structure = (cast("object", inputs),), Structure()
    elif isinstance(inputs, tuple | list) and _holds_tensors(cast("Sequence[object]", inputs)):
        parts = tuple(cast("Sequence[object]", inputs))
        structure = Structure(tuple(range(len(parts))))
    elif isinstance(inputs, Mapping) and inputs:
        named = cast("Mapping[str, object]", inputs)
        parts, structure = tuple(named.values()), Structure(tuple(named))
    else:
        raise BadInput(
            f"inputs must be a tensor, or a tuple or dict of tensors, not {type(inputs).__name__}"
            f"{_way_to_tensor('inputs', inputs)}"
        )
    leaves = tuple(
        _tensor(leaf, structure.label(index), of_arrays) for index, leaf in enumerate(parts)
    )
    for index, leaf in enumerate(leaves):
        label = structure.label(index)
        if leaf.dim() == 0:
            raise BadInput(f"{label} has no batch axis: give it shape (B, ...), B = 1 for one row")
        if len(leaf) == 0:
            raise BadInput(f"{label} is an empty batch, shape {tuple(leaf.shape)}")
        if len(leaf) != len(leaves[0]):
            raise BadInput(
                f"{label} has {len(leaf)} rows and {structure.label(0)} has {len(leaves[0])}: "
                "the first axis of every input is the batch, of one row too (leaf[None])"
            )
    return leaves, structure


def _holds_tensors(parts: Sequence[object]) -> bool:
    return any(isinstance(part, Tensor | np.ndarray) for part in parts)


def _tensor(leaf: object, label: str, of_arrays: torch.dtype | None) -> Tensor:
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        tensor = torch.tensor(cast("np.ndarray[Any, Any]", leaf))
        return tensor.to(of_arrays) if of_arrays and tensor.is_floating_point() else tensor
    raise BadInput(
        f"{label} must be a tensor, not {type(leaf).__name__}{_way_to_tensor(label, leaf)}"
    )


def _way_to_tensor(label: str, value: object) -> str:
    if isinstance(value, list | tuple) and value:
        return (
            f": torch.tensor({label}) makes one, and so does a tokenizer with return_tensors='pt'"
        )
    return f": torch.tensor({label}.to_numpy()) makes one" if hasattr(value, "to_numpy") else ""


def require_finite(tensor: Tensor, label: str, advice: str) -> None:
    """Refuse NaN and infinity, with the way out."""
    if not tensor.is_floating_point():
        return
    # A sum is finite only if every term is; it reads the tensor once and allocates nothing.
    if not math.isfinite(tensor.sum().item()):
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise BadInput(
                f"{label} holds NaN or infinity in {bad} of {tensor.numel()} places, {advice}"
            )


def leaves_of(packed: Inputs) -> Leaves:
    """The tensors of inputs, in order."""
    if isinstance(packed, Tensor):
        return (packed,)
    return tuple(packed.values()) if isinstance(packed, dict) else packed


def differentiable(leaf: Tensor) -> bool:
    """Whether a gradient with respect to this leaf can exist: it holds floats."""
    return leaf.is_floating_point()


def accumulation_dtype(leaf: Tensor) -> torch.dtype:
    """Half precision is accumulated, and held leaves are filled, in float32."""
    return torch.float64 if leaf.dtype == torch.float64 else torch.float32


def take_rows(tensor: Tensor, rows: Tensor | slice) -> Tensor:
    """`tensor[rows]`; all rows give the tensor itself, which saves the time of a view."""
    whole = isinstance(rows, slice) and rows == slice(0, tensor.shape[0])
    return tensor if whole else tensor[rows]


def flat_rows(tensor: Tensor) -> Tensor:
    """(n, features) of a tensor (n, ...); of one without features (n,) the one number is a feature."""
    return tensor.reshape(len(tensor), -1)


def per_row(weights: Tensor, like: Tensor, axes: int = 1) -> Tensor:
    """Weights over the first axes of a tensor (one, the batch), shaped to multiply it."""
    return weights.reshape(*weights.shape[:axes], *[1] * (like.dim() - axes))


def concatenate(parts: Sequence[Leaves]) -> Leaves:
    """Batches of leaves joined along the batch axis."""
    if len(parts) == 1:
        return parts[0]
    return tuple(torch.cat(pieces) for pieces in zip(*parts, strict=True))


def multiply(gradients: Sequence[Tensor], steps: Sequence[Tensor], many: bool) -> Leaves:
    """Gradients (n, ...) or (n, ..., K) times steps (n, ...), leaf by leaf."""
    return tuple(
        gradient * (step.unsqueeze(-1) if many else step)
        for gradient, step in zip(gradients, steps, strict=True)
    )


def flat_sum(leaves: Sequence[Tensor], many: bool) -> Tensor:
    """Sum over everything but the batch (and the last, target axis when there are many): float64."""
    parts = [
        leaf.reshape(len(leaf), -1, leaf.shape[-1] if many else 1).sum(1, dtype=torch.float64)
        for leaf in leaves
    ]
    total = torch.stack(parts).sum(0)
    return total if many else total[:, 0]
