"""The model as a scorer calls it: leaves in, one tensor out, whatever form the user's model has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, Structure
from whyglass.core.layer import Layer
from whyglass.core.numpy_model import BlackBox, NumpyModel, as_model, no_gradients
from whyglass.core.output import (
    Selector,
    WrongOutput,
    check_output,
    default_note,
    refuse_crossed_rows,
    select,
)
from whyglass.core.submodule import Submodule

# What models and functions raise on inputs of another shape or type than theirs.
MISFITS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)


class CalledModel:
    """A model, the form of its inputs, and which part of its output is scored.

    `function` is the model, or a `NumpyModel` of it; `notes` tell what was decided for the user.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        structure: Structure,
        selector: Selector,
        gradient: bool,
    ) -> None:
        self.function = as_model(model)
        self._structure, self._selector, self._gradient = structure, selector, gradient
        self._scored = Submodule(model, selector.at) if isinstance(selector, Layer) else None
        self._first_shape: torch.Size | None = None
        self.notes: list[str] = []
        if self.function is not model:
            self.note("the model is a method of an estimator, so it was explained as a NumpyModel")

    def note(self, text: str | None) -> None:
        """Add a note, once."""
        if text is not None and text not in self.notes:
            self.notes.append(text)

    def run(self, leaves: Sequence[Tensor]) -> Any:
        """The output of the model. It gets copies: an in-place first layer must not touch a leaf."""
        try:
            return self._structure.call(self.function, [leaf.clone() for leaf in leaves])
        except RuntimeError as error:
            if str(error).startswith("Can't call numpy() on Tensor that requires grad"):
                raise no_gradients("a model that computes with numpy arrays") from error
            raise

    def output(self, leaves: Sequence[Tensor]) -> Any:
        """The output of the model, or of the layer that is scored in its place."""
        if self._scored is None:
            return self.run(leaves)
        with self._scored.scored() as output:
            self.run(leaves)
        return output()

    def tensor(self, output: Any, rows: int, gradient: bool, *, note: bool = False) -> Tensor:
        """The part of an output that is scored, which has `rows` rows."""
        tensor = select(output, self._selector, self._gradient)
        check_output(tensor, rows, gradient)
        self._first_shape = self._first_shape or tensor.shape
        refuse_crossed_rows(tensor.shape, self._first_shape)
        if note and self._selector is None:
            self.note(default_note(output))
        return tensor

    def recover(self, error: Exception, inputs: Leaves) -> int:
        """After an error of the first pass: raise it or a clearer one, or call with arrays from now on.

        Returns the number of model evaluations that finding out took.
        """
        if isinstance(error, BadInput) and not isinstance(error, WrongOutput):
            raise error
        if self._takes_arrays(inputs):
            if self._gradient:
                raise no_gradients("a function of numpy arrays") from error
            self.function = NumpyModel(self.function)
            self.note("the model takes numpy arrays, so it was explained as a NumpyModel")
            return 1
        if self._runs(inputs) or not self._runs(tuple(leaf[None] for leaf in inputs)):
            raise error
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in inputs)
        one = self._structure.names is None
        hint = (
            f"inputs of shape {shapes} seem to be one row without its batch axis, for the model runs "
            f"on a batch of one: pass {'inputs[None]' if one else 'each input as tensor[None]'}"
        )
        raise BadInput(f"{error}; {hint}" if isinstance(error, BadInput) else hint) from error

    def _runs(self, leaves: Leaves) -> bool:
        try:
            with torch.no_grad():
                self.tensor(self.output(leaves), len(leaves[0]), False)
        except MISFITS:
            return False
        return True

    def _takes_arrays(self, inputs: Leaves) -> bool:
        """Whether the model is a function that runs on an array and makes no tensor of a tensor."""
        if isinstance(self.function, nn.Module | BlackBox) or self._structure.names is not None:
            return False
        row = inputs[0][:1].detach().cpu()
        if isinstance(_result(self.function, row.clone()), Tensor):
            return False
        return isinstance(_result(self.function, row.numpy().copy()), np.ndarray | list)


def _result(function: Callable[..., Any], row: Any) -> Any:
    try:
        return function(row)
    except MISFITS:
        return None
