"""Why the first pass of a model failed: inputs without a batch axis, or a function of numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from whyglass.core.inputs import Leaves, Structure
from whyglass.core.numpy_model import BlackBox


def batch_axis_missing(
    output: Callable[[Leaves], object], leaves: Leaves, structure: Structure
) -> str | None:
    """The hint for inputs on which `output` fails, and does not where they are a batch of one."""
    if _runs(output, leaves) or not _runs(output, tuple(leaf[None] for leaf in leaves)):
        return None
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
    way = "inputs[None]" if structure.names is None else "leaf[None] of each input"
    return (
        f"inputs of shape {shapes} seem to be one row without its batch axis, for the model runs on a "
        f"batch of one: pass {way}"
    )


def _runs(output: Callable[[Leaves], object], leaves: Leaves) -> bool:
    try:
        output(tuple(leaf.clone() for leaf in leaves))
    except Exception:
        return False
    return True


def takes_arrays(model: Callable[..., Any], leaves: Leaves, structure: Structure) -> bool:
    """Whether the model is a function that runs on a numpy array, and returns no tensor of a tensor."""
    if isinstance(model, nn.Module | BlackBox) or structure.names is not None:
        return False
    row = leaves[0][:1].detach().cpu()
    if isinstance(_result(model, row.clone()), Tensor):
        return False
    return isinstance(_result(model, row.numpy().copy()), np.ndarray | list)


def _result(model: Callable[..., Any], row: Any) -> Any:
    try:
        return model(row)
    except Exception:
        return None
