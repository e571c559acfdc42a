"""One number of the output for each row: a class, an entry, or a box of a detector."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import take_rows

# Which rows of the batch an output belongs to: one index each, or a run of them.
Rows: TypeAlias = Tensor | slice


@dataclass(frozen=True, eq=False)
class Box:
    """The score of one box of a detector, such as DETR: output (B, Q, C), C class logits of Q boxes.

    `index` is the number of the box, 0 to Q - 1, or a list of one a row. `of` is the class, a number
    or a name, by default the one that wins in that box at the input (in DETR the last class means "no
    object"). With `output="pred_boxes"`, (B, Q, 4), `of` is a coordinate of the box: 0 and 1 its
    centre, 2 and 3 its width and height. `Probability`, `LogOdds` and `Contrast` take boxes.
    """

    index: int | list[int] | Tensor
    of: int | str | None = None


Index: TypeAlias = "int | str | tuple[int | str, ...] | list[Any] | Tensor | Box | None"


class Entry(ABC):
    """Abstract. One number of the output for each row of the batch."""

    index: Tensor | None = None

    @abstractmethod
    def bind(self, output: Tensor, rows: Rows) -> None:
        """Check this against the output at these rows of the input, and settle what depends on it."""

    @abstractmethod
    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        """(n,) numbers of an output of n rows."""

    @abstractmethod
    def label(self, row: int) -> str:
        """The number's name for readers."""


class IndexEntry(Entry):
    """An entry by its place: (B,) a class, or (B, k) one index for each axis of a row's output."""

    def __init__(self, index: Index, rows: int, names: Sequence[str] | None, name: str) -> None:
        self.rows, self.names, self.name = rows, list(names or ()), name
        self.box = isinstance(index, Box)
        self.predicted = index is None
        if isinstance(index, Box):
            boxes = class_index(index.index, rows, None, "Box index")
            self.predicted = index.of is None
            # The class that wins is settled by `bind`.
            classes = class_index(-1 if index.of is None else index.of, rows, names, "Box of")
            self.index = torch.stack([boxes, classes], 1)
        elif index is not None:
            self.index = class_index(index, rows, names, name)
        # Both are settled by the shape of the output.
        self._single = self._named = False

    def bind(self, output: Tensor, rows: Rows) -> None:
        axes = output.shape[1:]
        self._single = math.prod(axes) == 1
        # A detector has a class "no object" after those that have names.
        self._named = len(axes) > 0 and 0 <= axes[-1] - len(self.names) <= self.box
        if len(axes) == 1:
            require_names(self.names, axes[0])
        if self.box and len(axes) != 2:
            raise BadInput(
                f"Box needs an output (B, boxes, classes) and this one has shape {tuple(output.shape)}"
                f"{advice(axes)}"
            )
        if self.predicted:
            self._settle(output, rows)
        if self.index is not None:
            self._require_range(take_rows(self.index, rows), axes)

    def _settle(self, output: Tensor, rows: Rows) -> None:
        """The class, or the class of a box, that wins in these rows."""
        axes = output.shape[1:]
        if self.box:
            assert self.index is not None
            self._require_range(take_rows(self.index, rows)[:, :1], axes[:1])
            boxes = take_rows(self.index, rows)[:, 0].to(output.device)
            winners = output[torch.arange(len(output), device=output.device), boxes].argmax(1)
            self.index[rows, 1] = winners.cpu()
        elif len(axes) == 1:
            if self.index is None:
                self.index = torch.full((self.rows,), -1)
            self.index[rows] = output.argmax(1).cpu()
        elif self._single:
            self.index = torch.zeros(self.rows, len(axes), dtype=torch.long)
        elif len(axes):
            raise BadInput(
                f"target is missing: the output has shape {tuple(output.shape)}{advice(axes)}"
            )

    def _require_range(self, index: Tensor, axes: torch.Size) -> None:
        columns = (index,) if index.dim() == 1 else index.unbind(1)
        if len(columns) != len(axes):
            raise BadInput(
                f"target {tuple(int(c[0]) for c in columns)} names {len(columns)} axes and an output "
                f"row has shape {tuple(axes)}"
                + (advice(axes) if len(axes) else ": leave target out, it is one number a row")
            )
        for column, size in zip(columns, axes, strict=True):
            low, high = map(int, column.aminmax())
            if low < 0 or high >= size:
                raise BadInput(
                    f"target {high if high >= size else low} is out of range: the output has "
                    f"{size} entries, 0 to {size - 1}"
                )

    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        if self.index is None:
            if output.dim() == 1:
                return output
            raise BadInput(f"target is missing for an output of shape {tuple(output.shape)}")
        chosen = take_rows(self.index, rows).to(output.device)
        if output.dim() == 2:
            return output.gather(1, chosen.reshape(-1, 1)).squeeze(1)
        chosen = chosen.reshape(len(output), -1)
        return output[(torch.arange(len(output), device=output.device), *chosen.unbind(1))]

    def label(self, row: int) -> str:
        if self.index is None or self._single:
            # The second of two names for one logit is that of a positive one.
            return self.names[-1] if 1 <= len(self.names) <= 2 else "output"
        position = [int(part) for part in self.index[row].reshape(-1)]
        last = str(position[-1])
        if self._named:
            last = self.names[position[-1]] if position[-1] < len(self.names) else "no object"
        if self.box:
            return f"{last} in box {position[0]}"
        return ", ".join([*map(str, position[:-1]), last])


def class_index(index: Any, rows: int, names: Sequence[str] | None, name: str) -> Tensor:
    """(B,) for a class, (B, k) for an entry of an output with k axes after the batch."""
    if isinstance(index, np.ndarray | np.integer):
        index = index.tolist()
    if isinstance(index, bool | float):
        raise BadInput(f"{name} {index!r} must be an integer, not {type(index).__name__}")
    if isinstance(index, int | str):
        return torch.full((rows,), _number(index, names, name))
    if isinstance(index, tuple):
        parts = [_number(part, names, name) for part in cast("tuple[Any, ...]", index)]
        return torch.tensor(parts, dtype=torch.long).expand(rows, -1)
    if isinstance(index, list):
        entries = [
            [_number(part, names, name) for part in entry]
            if isinstance(entry, tuple | list)
            else _number(entry, names, name)
            for entry in cast("list[Any]", index)
        ]
        try:
            index = torch.tensor(entries, dtype=torch.long)
        except (TypeError, ValueError) as error:
            raise BadInput(f"{name} {index[:5]!r} must hold one entry a row, all alike") from error
    if not isinstance(index, Tensor):
        raise BadInput(
            f"{name} of type {type(index).__name__} is not a target; see help(whyglass.core.target)"
        )
    if index.is_floating_point() or index.dtype == torch.bool:
        raise BadInput(f"{name} holds {index.dtype}: classes are integers, so use .long()")
    index = index.detach().long().cpu()
    if index.dim() == 0:
        return index.expand(rows)
    if len(index) != rows:
        raise BadInput(
            f"{name} has {len(index)} entries and the batch {rows} rows: "
            "give one class a row, one integer for all, or Several(...) for many targets a row"
        )
    return index


def _number(entry: Any, names: Sequence[str] | None, name: str) -> int:
    """An integer, or the number of the class that has this name."""
    if isinstance(entry, bool) or not isinstance(entry, int | str | np.integer):
        raise BadInput(
            f"{name} holds {entry!r}, which is no integer and no class name: give one class a row, or "
            "Several(...) for many targets a row"
        )
    if not isinstance(entry, str):
        return int(entry)
    known = list(names or ())
    if not known:
        raise BadInput(
            f"{name} {entry!r} is a class name, but no names are known: "
            "pass legend=Legend(class_names=[...])"
        )
    matches = [index for index, known_name in enumerate(known) if known_name == entry]
    if len(matches) > 1:
        raise BadInput(f"{name} {entry!r} is the name of classes {matches}: give the number")
    if matches:
        return matches[0]
    near = difflib.get_close_matches(entry, known, 3, 0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise BadInput(f"{name} {entry!r} is not among the {len(known)} class names{hint}")


def require_names(names: Sequence[str], classes: int) -> None:
    """Refuse class names that are not as many as the classes; one logit may have two names."""
    if names and len(names) != classes and not (classes == 1 and len(names) == 2):
        raise BadInput(
            f"legend has {len(names)} class_names and the output {classes} classes: give one name a "
            "class, in the output's order"
        )


def advice(axes: torch.Size) -> str:
    """How to name one number of an output row of this shape."""
    zeros = tuple([0] * len(axes))
    if len(axes) == 1:
        return ": give the number of one entry, for example target=0"
    if len(axes) == 2:
        return (
            ": give Box(number) for a box of a detector, or one entry, for example a position and a "
            f"class, target={zeros}"
        )
    return (
        ": give Region(class) for a class where it wins, Region(class, mask) for it over a mask, or "
        f"one entry as {len(axes)} integers, for example target={zeros}"
    )
