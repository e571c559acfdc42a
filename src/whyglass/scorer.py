"""Scores and gradients of one batch of inputs, in pieces that fit memory, counted.

A `Scorer` is made for one call of one method. Its *point* is the thing explained: the inputs, or
with `at` the output of a submodule, which is then a leaf of the graph while the rest of the network
runs on top of it. Methods ask for scores or gradients at any points; each evaluation names the row
of the batch it belongs to, which settles its target and whatever of the input is held fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from whyglass import batching, guards
from whyglass.errors import BadInput
from whyglass.inputs import Inputs, Leaves, explained, unpack
from whyglass.submodule import Submodule
from whyglass.target import ResolvedTarget, Target

Points = Callable[[slice], Leaves]


class Scorer:
    """Evaluates `target` of `model` around `inputs`.

    Attributes: `rows`, the batch size; `inputs`, the leaves given; `points`, the explained leaves at
    the input, known once `at_inputs` ran; `evaluations` and `gradients`, what was spent, in rows.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        inputs: Inputs,
        *,
        target: Target = None,
        output: str | int | Callable[[Any], Tensor] | None = None,
        at: str | nn.Module | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int | str = "auto",
        gradient: bool = True,
    ) -> None:
        self.inputs, self.structure = unpack(inputs)
        self.rows = len(self.inputs[0])
        self.model, self._output = model, output
        self.submodule = None if at is None else Submodule(model, at)
        guards.before(model, self.inputs, self.structure, gradient and at is None)
        self.target = ResolvedTarget(target, self.rows, class_names)
        self.points: Leaves | None = self.inputs if at is None else None
        self.batches = batching.Batches(model, self.inputs, at, batch_size)
        self.evaluations = self.gradients = 0
        self._watched = False

    @property
    def many(self) -> bool:
        """Whether values and scores have a last axis of targets."""
        return self.target.many

    @property
    def held(self) -> tuple[bool, ...]:
        """Which leaves of the point are integers or booleans, passed on and not explained."""
        return tuple(not explained(leaf) for leaf in self.points or self.inputs)

    def at_inputs(self, gradient: bool) -> tuple[Tensor, Leaves | None]:
        """Score (B,) or (B, K) at the inputs and, if asked, its gradient; settles the target."""
        rows = torch.arange(self.rows)
        kept: list[Leaves] = []
        scores, slopes = [], []
        for _, score, slope, point in self._run(rows, None, gradient, bind=True):
            scores.append(score)
            kept.append(point)
            if slope is not None:
                slopes.append(slope)
        if self.points is None:
            self.points = _concatenate(kept)
        return torch.cat(scores), _concatenate(slopes) if gradient else None

    def scores(self, points: Points, rows: Tensor) -> Tensor:
        """(N,) or (N, K) scores of the N points; `points(slice)` makes the leaves of a piece."""
        return torch.cat([score for _, score, _, _ in self._run(rows, points, False)])

    def iterate_gradients(
        self, points: Points, rows: Tensor
    ) -> Iterator[tuple[slice, Tensor, Leaves]]:
        """(piece, scores, gradients) until all N points are done: constant memory at any N."""
        for piece, score, slope, _ in self._run(rows, points, True):
            assert slope is not None
            yield piece, score, slope

    def point_of(self, inputs: Leaves) -> Leaves:
        """Other inputs of the same batch, as points: themselves, or their activations at `at`."""
        if self.submodule is None:
            return inputs
        kept: list[Leaves] = []
        rows = torch.arange(self.rows)
        for piece in self.batches.pieces(self.rows):
            rows_here = rows[piece]
            with torch.no_grad(), self.submodule.capture() as seen:
                self.structure.call(self.model, [leaf[rows_here] for leaf in inputs])
            self.evaluations += len(rows_here)
            kept.append((seen.value(),))
        return _concatenate(kept)

    def _run(
        self, rows: Tensor, points: Points | None, gradient: bool, bind: bool = False
    ) -> Iterator[tuple[slice, Tensor, Leaves | None, Leaves]]:
        for piece in self.batches.pieces(len(rows)):
            point = None if points is None else points(piece)
            while True:
                probe = self.batches.probe() if self.batches.unknown(len(rows)) else nullcontext()
                try:
                    with probe:
                        score, slope, leaves = self._evaluate(point, rows[piece], gradient, bind)
                    break
                except torch.OutOfMemoryError as error:
                    if piece.stop - piece.start == 1:
                        raise BadInput(
                            "one row alone does not fit into the memory of the device: use smaller "
                            "inputs, half precision, or a method that needs no gradient"
                        ) from error
                    raise
            yield piece, score, slope, leaves

    def _evaluate(
        self, point: Leaves | None, rows: Tensor, gradient: bool, bind: bool
    ) -> tuple[Tensor, Leaves | None, Leaves]:
        raise NotImplementedError
