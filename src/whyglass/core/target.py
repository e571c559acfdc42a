"""Which scalar of the output is explained, for each row of the batch.

The vocabulary, for an output of shape (B, C) unless said otherwise:

==========================  ======================================================================
``None``                    the class each row is predicted to be; an output (B,) or (B, 1) itself
``3``                       the logit of class 3
``"tabby"``                 the logit of the class of that name (give ``legend=Legend(class_names=)``)
``(4, 17)``                 entry [4, 17] of an output (B, T, V): here token 17 at position 4
tensor or list of (B,)      one class a row
``Probability(t)``          softmax probability of `t`; sigmoid where the output is one logit
``LogOdds(t)``              log p / (1 - p) of `t`
``Contrast(t, against)``    logit of `t` minus logit of `against`
``Several(t, u, ...)``      many at once: values and scores gain a last axis
callable                    ``output -> (B,)``, differentiable for the gradient methods
==========================  ======================================================================
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import take_rows

Index: TypeAlias = "int | str | tuple[int, ...] | list[int] | Tensor | None"


@dataclass(frozen=True)
class Probability:
    """Softmax probability of a class (sigmoid when the output is a single logit)."""

    of: Index = None


@dataclass(frozen=True)
class LogOdds:
    """log p - log(1 - p), with p the softmax probability of a class."""

    of: Index = None


@dataclass(frozen=True)
class Contrast:
    """Logit of one class minus logit of another: why this and not that."""

    of: Index
    against: Index


class Several:
    """Several targets, explained together."""

    def __init__(self, *targets: Single) -> None:
        if not targets:
            raise BadInput("Several() needs at least one target")
        self.targets = targets


Single: TypeAlias = "Index | Probability | LogOdds | Contrast | Callable[[Tensor], Tensor]"
Target: TypeAlias = "Single | Several"
# Which rows of the batch an output belongs to: one index each, or a run of them.
Rows: TypeAlias = Tensor | slice


@dataclass(frozen=True)
class KnownTarget:
    """The labels and classes of a target, as a saved explanation holds them."""

    many: bool
    names: list[list[str]]
    chosen: Tensor | None

    def labels(self) -> list[list[str]]:
        """One readable label a row and target."""
        return self.names

    def classes(self) -> Tensor | None:
        """(B,) or (B, K) class indices, where every target is a class."""
        return self.chosen


class ResolvedTarget:
    """A target bound to a batch. The first output settles the classes that are the predicted ones."""

    def __init__(self, target: Target, rows: int, class_names: Sequence[str] | None) -> None:
        self.many = isinstance(target, Several)
        singles = target.targets if isinstance(target, Several) else (target,)
        self.terms = [_Term(single, rows, class_names) for single in singles]

    def bind(self, output: Tensor, rows: Rows) -> None:
        """Check the target against the output of these rows; choose the predicted classes."""
        for term in self.terms:
            term.bind(output, rows)

    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        """(n,) scores of the n rows, or (n, K) for K targets; float32 at least."""
        output = output if output.dtype == torch.float64 else output.float()
        parts = [term.scores(output, rows) for term in self.terms]
        return torch.stack(parts, 1) if self.many else parts[0]

    def classes(self) -> Tensor | None:
        """(B,) or (B, K) class indices, where every target is a class."""
        indices = [term.index for term in self.terms]
        if any(index is None or index.dim() != 1 for index in indices):
            return None
        stacked = torch.stack([index for index in indices if index is not None], 1)
        return stacked if self.many else stacked[:, 0]

    def labels(self) -> list[list[str]]:
        """One readable label a row and target."""
        return [[term.label(row) for term in self.terms] for row in range(self.terms[0].rows)]


class _Term:
    def __init__(self, single: Single, rows: int, class_names: Sequence[str] | None) -> None:
        self.rows, self.class_names = rows, class_names
        self.kind: type[Probability | LogOdds | Contrast] | None = None
        self.custom: Callable[[Tensor], Tensor] | None = None
        self.against: Tensor | None = None
        self.index: Tensor | None = None
        self.predicted = False
        of: Index
        if isinstance(single, Probability | LogOdds | Contrast):
            self.kind, of = type(single), single.of
            if isinstance(single, Contrast):
                self.against = self._resolve(single.against, "Contrast.against")
        elif callable(single):
            self.custom, of = single, None
        elif isinstance(single, Several):
            raise BadInput("Several() cannot hold another Several()")
        else:
            of = single
        self.predicted = self.custom is None and of is None
        if of is not None:
            self.index = self._resolve(of, "target")

    def _resolve(self, index: Index, name: str) -> Tensor:
        """(B,) for a class, (B, k) for an entry of an output with k axes after the batch."""
        if isinstance(index, np.integer):
            index = int(index)
        if isinstance(index, bool | float):
            raise BadInput(f"{name} {index!r} must be an integer, not {type(index).__name__}")
        if isinstance(index, int):
            return torch.full((self.rows,), index)
        if isinstance(index, str):
            return torch.full((self.rows,), self._named(index))
        if isinstance(index, tuple):
            return torch.tensor(index, dtype=torch.long).expand(self.rows, -1)
        if isinstance(index, list):
            if not all(isinstance(entry, int) for entry in cast("list[Any]", index)):
                raise BadInput(f"{name} as a list must hold one integer a row, got {index[:5]!r}")
            index = torch.tensor(index)
        if not isinstance(index, Tensor):
            raise BadInput(
                f"{name} of type {type(index).__name__} is not a target; see help(whyglass.core.target)"
            )
        if index.is_floating_point() or index.dtype == torch.bool:
            raise BadInput(f"{name} holds {index.dtype}: classes are integers, so use .long()")
        index = index.detach().long().cpu()
        if index.dim() == 0:
            return index.expand(self.rows)
        if len(index) != self.rows:
            raise BadInput(
                f"{name} has {len(index)} entries and the batch {self.rows} rows: "
                "give one class a row, one integer for all, or Several(...) for many targets a row"
            )
        return index

    def _named(self, name: str) -> int:
        names = list(self.class_names or ())
        if not names:
            raise BadInput(
                f"target {name!r} is a class name, but no names are known: "
                "pass legend=Legend(class_names=[...])"
            )
        matches = [index for index, known in enumerate(names) if known == name]
        if len(matches) > 1:
            raise BadInput(f"target {name!r} is the name of classes {matches}: give the number")
        if matches:
            return matches[0]
        near = difflib.get_close_matches(name, names, 3, 0.5)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise BadInput(f"target {name!r} is not among the {len(names)} class names{hint}")

    def bind(self, output: Tensor, rows: Rows) -> None:
        if self.custom is not None:
            return
        self._refuse_probabilities(output)
        axes = output.shape[1:]
        if self.predicted and self.index is None and len(axes):
            self.index = torch.full((self.rows,), -1)
        if self.predicted and self.index is not None:
            if len(axes) > 1:
                raise BadInput(
                    f"target is missing: the output has shape {tuple(output.shape)}, so say which "
                    f"entry, as {len(axes)} integers, for example target={tuple([0] * len(axes))}"
                )
            self.index[rows] = output.argmax(1).cpu()
        for index in (self.index, self.against):
            if index is not None:
                self._check_range(take_rows(index, rows), axes)

    def _check_range(self, index: Tensor, axes: torch.Size) -> None:
        columns = (index,) if index.dim() == 1 else index.unbind(1)
        if len(columns) != len(axes):
            raise BadInput(
                f"target {tuple(int(c[0]) for c in columns)} names {len(columns)} axes and an output "
                f"row has shape {tuple(axes)}: "
                + (
                    "leave target out, the output is one number a row"
                    if not len(axes)
                    else f"give {len(axes)} integers a row"
                )
            )
        for column, size in zip(columns, axes, strict=True):
            low, high = map(int, column.aminmax())
            if low < 0 or high >= size:
                raise BadInput(
                    f"target {high if high >= size else low} is out of range: the output has "
                    f"{size} entries, 0 to {size - 1}"
                )

    def _refuse_probabilities(self, output: Tensor) -> None:
        if self.kind is None or self.kind is Contrast or output.dim() != 2 or output.shape[1] < 2:
            return
        sums = output.double().sum(1)
        if bool((output >= 0).all()) and bool((sums - 1).abs().max() < 1e-4):
            raise BadInput(
                f"the output already sums to 1 in every row, so {self.kind.__name__} would take the "
                "softmax twice: explain it with the class alone, or let the model return logits"
            )

    def _pick(self, output: Tensor, index: Tensor | None, rows: Rows) -> Tensor:
        if index is None:
            if output.dim() == 1:
                return output
            raise BadInput(f"target is missing for an output of shape {tuple(output.shape)}")
        chosen = take_rows(index, rows).to(output.device)
        if output.dim() == 2:
            return output.gather(1, chosen.reshape(-1, 1)).squeeze(1)
        chosen = chosen.reshape(len(output), -1)
        return output[(torch.arange(len(output), device=output.device), *chosen.unbind(1))]

    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        if self.custom is not None:
            score = self.custom(output)
            if not isinstance(score, Tensor) or score.shape != output.shape[:1]:  # pyright: ignore[reportUnnecessaryIsInstance]  users pass any callable
                got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__  # pyright: ignore[reportUnnecessaryIsInstance]  as above
                raise BadInput(
                    f"the target callable must return ({len(output)},), one score a row, not {got}"
                )
            return score
        picked = self._pick(output, self.index, rows)
        if self.kind is Contrast:
            return picked - self._pick(output, self.against, rows)
        if self.kind in (Probability, LogOdds):
            if output.dim() == 1 or output.shape[-1] == 1:
                odds = picked
            else:
                odds = picked - _log_sum_exp_of_others(output, self.index, rows)
            return torch.sigmoid(odds) if self.kind is Probability else odds
        return picked

    def label(self, row: int) -> str:
        if self.custom is not None:
            return getattr(self.custom, "__name__", "callable")
        name = self._class_label(self.index, row)
        if self.kind is Contrast:
            return f"{name} rather than {self._class_label(self.against, row)}"
        if self.kind is not None:
            return f"{'probability' if self.kind is Probability else 'log-odds'} of {name}"
        return name

    def _class_label(self, index: Tensor | None, row: int) -> str:
        if index is None:
            return "output"
        entry = index[row].tolist()
        if self.class_names and isinstance(entry, int) and entry < len(self.class_names):
            return self.class_names[entry]
        return str(entry) if isinstance(entry, int) else ", ".join(map(str, entry))


def _log_sum_exp_of_others(output: Tensor, index: Tensor | None, rows: Rows) -> Tensor:
    """log sum_{c != t} exp z_c along the last axis."""
    assert index is not None
    chosen = index[rows].to(output.device).reshape(len(output), -1)
    row = output[(torch.arange(len(output), device=output.device), *chosen.unbind(1)[:-1])]
    if row.shape[-1] == 2:
        # Of a single other the logit itself: log-odds of a linear network stay linear.
        return row.gather(-1, 1 - chosen[:, -1:]).squeeze(-1)
    hidden = torch.zeros_like(row, dtype=torch.bool).scatter_(1, chosen[:, -1:], True)
    return torch.logsumexp(row.masked_fill(hidden, -torch.inf), -1)
