"""Which scalar of the output is explained, for each row of the batch.

The vocabulary, for an output of shape (B, C) unless said otherwise:

==========================  ======================================================================
``None``                    the class each row is predicted to be; an output (B,) or (B, 1) itself
``3``                       the logit of class 3
``"tabby"``                 the logit of the class of that name (give ``legend=Legend(class_names=)``);
                            a name works wherever the number of a class does
``(4, 17)``                 entry [4, 17] of an output (B, T, V): here token 17 at position 4
tensor or list of (B,)      one class a row, as numbers or names
``Probability(t)``          softmax probability of `t`; sigmoid where the output is one logit
``LogOdds(t)``              log p / (1 - p) of `t`
``Contrast(t, against)``    logit of `t` minus logit of `against`
``Region(t, mask)``         logit of `t` over a mask, for segmentation: an output (B, C, H, W)
``Box(q, t)``               logit of `t` in box `q` of a detector: an output (B, Q, C)
``Several(t, u, ...)``      many at once: values and scores gain a last axis
callable                    ``output -> (B,)``, differentiable for the gradient methods
==========================  ======================================================================
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from whyglass.core.entry import Entry, Index, IndexEntry, Rows
from whyglass.core.errors import BadInput
from whyglass.core.region import Region, RegionEntry


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

    of: Index | Region
    against: Index | Region


class Several:
    """Several targets, explained together."""

    def __init__(self, *targets: Single) -> None:
        if not targets:
            raise BadInput("Several() needs at least one target")
        self.targets = targets


Single: TypeAlias = "Index | Region | Probability | LogOdds | Contrast | Callable[[Tensor], Tensor]"
Target: TypeAlias = "Single | Several"


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
    """One target: an entry of the output, a function of it, or a callable."""

    def __init__(self, single: Single, rows: int, class_names: Sequence[str] | None) -> None:
        self.rows = rows
        self.kind: type[Probability | LogOdds | Contrast] | None = None
        self.custom: Callable[[Tensor], Tensor] | None = None
        self.against: Entry | None = None
        self.entry: Entry | None = None
        of: Any = single
        if isinstance(single, Probability | LogOdds | Contrast):
            self.kind, of = type(single), single.of
            if self.kind is not Contrast and isinstance(of, Region):
                raise BadInput(
                    f"{self.kind.__name__} takes a class and not a Region: explain its logits, "
                    "target=Region(...), or let output= return probabilities"
                )
            if isinstance(single, Contrast):
                self.against = _entry(single.against, rows, class_names, "Contrast.against")
        elif isinstance(single, Several):
            raise BadInput("Several() cannot hold another Several()")
        elif isinstance(single, type):
            name = single.__name__
            raise BadInput(f"target {name} is a class: give one of it, such as {name}(1)")
        elif callable(single):
            self.custom = single
            return
        self.entry = _entry(of, rows, class_names, "target")

    @property
    def index(self) -> Tensor | None:
        """(B,) class indices or (B, k) places, where the target is an entry of the output."""
        return None if self.entry is None else self.entry.index

    def bind(self, output: Tensor, rows: Rows) -> None:
        self._refuse_softmax(output)
        for entry in (self.entry, self.against):
            if entry is not None:
                entry.bind(output, rows)

    def _refuse_softmax(self, output: Tensor) -> None:
        """Refuse to take the softmax twice, or along an axis that may not hold classes."""
        if self.kind is None or self.kind is Contrast:
            return
        if output.dim() > 3:
            raise BadInput(
                f"{self.kind.__name__} takes the softmax along the last axis, and in an output of "
                f"shape {tuple(output.shape)} that is not the classes': explain Region(class), or let "
                "output= return probabilities (output=lambda y: y.softmax(1), say)"
            )
        if output.dim() != 2 or output.shape[1] < 2:
            return
        sums = output.double().sum(1)
        if bool((output >= 0).all()) and bool((sums - 1).abs().max() < 1e-4):
            raise BadInput(
                f"the output already sums to 1 in every row, so {self.kind.__name__} would take the "
                "softmax twice: explain it with the class alone, or let the model return logits"
            )

    def scores(self, output: Tensor, rows: Rows) -> Tensor:
        if self.custom is not None:
            score = self.custom(output)
            if not isinstance(score, Tensor) or score.shape != output.shape[:1]:  # pyright: ignore[reportUnnecessaryIsInstance]  users pass any callable
                got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__  # pyright: ignore[reportUnnecessaryIsInstance]  as above
                raise BadInput(
                    f"the target callable must return ({len(output)},), one score a row, not {got}"
                )
            return score
        assert self.entry is not None
        logit = self.entry.scores(output, rows)
        if self.against is not None:
            return logit - self.against.scores(output, rows)
        if self.kind is None:
            return logit
        if output.dim() > 1 and output.shape[-1] > 1:
            logit = logit - _log_sum_exp_of_others(output, self.entry.index, rows)
        return torch.sigmoid(logit) if self.kind is Probability else logit

    def label(self, row: int) -> str:
        if self.entry is None:
            return _callable_label(self.custom)
        name = self.entry.label(row)
        if self.against is not None:
            return f"{name} rather than {self.against.label(row)}"
        if self.kind is not None:
            return f"{'probability' if self.kind is Probability else 'log-odds'} of {name}"
        return name


def _entry(index: Any, rows: int, names: Sequence[str] | None, name: str) -> Entry:
    if isinstance(index, Region):
        return RegionEntry(index, rows, names, name)
    return IndexEntry(index, rows, names, name)


def _callable_label(target: object) -> str:
    """The name of a function or of an object's class; a lambda has none."""
    while isinstance(target, functools.partial):
        target = target.func
    name: str = getattr(target, "__qualname__", type(target).__qualname__)
    return "callable target" if "<lambda>" in name else name.rpartition("<locals>.")[2]


def _log_sum_exp_of_others(output: Tensor, index: Tensor | None, rows: Rows) -> Tensor:
    """log sum_{c != t} exp z_c along the last axis."""
    assert index is not None
    chosen = index[rows].to(output.device).reshape(len(output), -1)
    row = output[(torch.arange(len(output), device=output.device), *chosen.unbind(1)[:-1])]
    if row.shape[-1] == 2:
        # A single other class has its logit itself: log-odds of a linear network stay linear.
        return row.gather(-1, 1 - chosen[:, -1:]).squeeze(-1)
    hidden = torch.zeros_like(row, dtype=torch.bool).scatter_(1, chosen[:, -1:], True)
    return torch.logsumexp(row.masked_fill(hidden, -torch.inf), -1)
