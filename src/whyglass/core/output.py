"""Which tensor of a model's output is scored, and whether it can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
from torch import Size, Tensor

from whyglass.core.errors import BadInput
from whyglass.core.layer import Layer
from whyglass.core.numpy_model import no_gradients, tensor_of

Selector = str | int | Callable[[Any], Tensor] | Layer | None


class WrongOutput(BadInput):
    """The output of the model cannot be scored as it is."""


def select(output: Any, selector: Selector, gradient: bool = False) -> Tensor:
    """The tensor of a model's output; without a selector the one that `sensible_part` names."""
    chosen = output
    if isinstance(selector, Layer):
        selector = None
    if selector is None:
        selector = sensible_part(output)
    if callable(selector):
        chosen = selector(output)
    elif selector is not None:
        fields = _fields(output)
        if isinstance(selector, int) and isinstance(output, tuple):  # a named one, too
            fields = cast("Mapping[Any, Any]", dict(enumerate(cast("tuple[Any, ...]", output))))
        if fields is None or selector not in fields:
            have = "a tensor" if fields is None else ", ".join(map(repr, fields))
            raise BadInput(f"output={selector!r} is not in the model's output, which has {have}")
        chosen = fields[selector]
    if isinstance(chosen, Tensor):
        return chosen
    if isinstance(chosen, np.ndarray):
        if gradient:
            raise no_gradients("a function that returns numpy arrays")
        return tensor_of(cast("np.ndarray[Any, Any]", chosen))
    fields = _fields(chosen)
    if fields is None:
        raise WrongOutput(
            f"the model returned {type(chosen).__name__}, not a tensor: "
            "pass output=callable that picks one"
        )
    raise WrongOutput(
        f"the model returned {type(chosen).__name__}: say which part with output=, "
        f"one of {', '.join(map(repr, fields))}"
    )


def sensible_part(output: Any) -> str | int | None:
    """The part of a composite output that is scored by default: "logits", or the only tensor."""
    fields = None if isinstance(output, Tensor | np.ndarray) else _fields(output)
    if fields is None:
        return None
    tensors = [name for name, part in fields.items() if isinstance(part, Tensor | np.ndarray)]
    if "logits" in tensors:
        return "logits"
    return tensors[0] if len(tensors) == 1 else None


def default_note(output: Any) -> str | None:
    """What an explanation notes where no selector was given and the output is no tensor."""
    if isinstance(output, np.ndarray):
        return "the model returned a numpy array, so it was explained as a NumpyModel"
    part = sensible_part(output)
    fields = _fields(output)
    if part is None or fields is None or len(fields) == 1:
        return None
    return f"the output {part!r} was explained, of {', '.join(map(repr, fields))}"


def _fields(output: Any) -> Mapping[Any, Any] | None:
    if isinstance(output, Mapping):
        return cast("Mapping[Any, Any]", output)
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        return {f.name: getattr(output, f.name) for f in dataclasses.fields(output)}
    if isinstance(output, tuple) and hasattr(output, "_asdict"):
        return cast("Any", output)._asdict()
    if isinstance(output, tuple | list):
        return dict(enumerate(cast("list[Any]", output)))
    return None


def check_output(output: Tensor, rows: int, gradient: bool) -> None:
    """Refuse an output without the batch axis, or one that no gradient reaches."""
    if output.dim() == 0 or len(output) != rows:
        raise WrongOutput(
            f"the output has shape {tuple(output.shape)} for {rows} rows: its first axis must be "
            "the batch"
        )
    if gradient and not output.requires_grad:
        raise detached_output()


def refuse_crossed_rows(shape: Size, first: Size) -> None:
    """Refuse an output whose rows are scored against each other: it has a column for each row."""
    square = all(len(size) > 1 and size[0] == size[1] for size in (shape, first))
    if square and shape[0] != first[0]:
        raise BadInput(
            f"the output has shape {tuple(first)} for {first[0]} rows and {tuple(shape)} for "
            f"{shape[0]}: each row is scored against the others of its batch, as images against texts, "
            "so it has no score of its own; hold one side fixed in a callable of the other, such as "
            "lambda image: model(texts, image), and give a column of its output as the target"
        )


def detached_output() -> BadInput:
    """The error for a score that no gradient leads back from."""
    return BadInput(
        "the output is detached from the input, so it has no gradient: look for .detach(), "
        ".item(), numpy, argmax or torch.no_grad() inside the model"
    )
