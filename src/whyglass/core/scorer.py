"""Scores and gradients of one batch of inputs, in pieces that fit memory, counted.

A `Scorer` serves one call of one method. It explains *points*: the inputs, or with
`at` the output of a submodule, cut from the graph as a leaf with the rest of the network on top.
A method requests scores or gradients at any points; each evaluation names the row of the batch it
belongs to, which settles its target and whatever of the input is held fixed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from whyglass.core import guards
from whyglass.core.batching import Batches, out_of_memory
from whyglass.core.called_model import MISFITS, CalledModel
from whyglass.core.entry import Rows
from whyglass.core.inputs import (
    Inputs,
    Leaves,
    Structure,
    accumulation_dtype,
    concatenate,
    differentiable,
    take_rows,
    unpack,
)
from whyglass.core.layer import At
from whyglass.core.numpy_model import as_model
from whyglass.core.output import Selector, detached_output
from whyglass.core.progress import Progress
from whyglass.core.submodule import Begin, Capture, Submodule
from whyglass.core.target import ResolvedTarget, Target

Points = Callable[[slice], Leaves]
T = TypeVar("T")


class Evaluated(NamedTuple):
    """One piece of the evaluations: scores (n,) or (n, K), points, gradients if requested.

    With K targets a gradient has the shape of its leaf and a last axis K.
    """

    piece: slice
    scores: Tensor
    points: Leaves
    gradients: Leaves


class Interception(Protocol):
    """A context around one forward pass that changes how scores are differentiated."""

    def __enter__(self) -> Any: ...

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any, /) -> Any: ...

    def begin(self, leaves: Leaves, first: int = 0) -> None:
        """Called with leaves before anything uses them; `first` is the number of the first."""
        ...

    def end(self, scores: Tensor) -> Tensor:
        """Called with the scores once the pass is over; what it returns is differentiated."""
        ...


@dataclass
class Cost:
    """Model evaluations (rows put through the model forwards) and gradients (rows put backwards)."""

    evaluations: int = 0
    gradients: int = 0


class Scorer:
    """Evaluates `target` of `model` around `inputs`.

    `rows` is the batch size, `inputs` its leaves; `points` the explained leaves at the inputs, known
    once `at_inputs` ran; `cost` counts model evaluations and gradients. `interception` makes the
    `Interception` of a piece of the evaluations from the piece and its rows. It applies to passes with
    gradients, and to others too where `intercepts_scores`. With `find_embedding` token ids are
    explained at the model's embedding (`embeds_tokens`); with `embeds_ids` the method finds where
    they are embedded.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        inputs: Inputs,
        *,
        target: Target = None,
        output: Selector = None,
        at: At = None,
        class_names: Sequence[str] | None = None,
        batch_size: int | str = "auto",
        gradient: bool = True,
        takes_missing: bool = False,
        find_embedding: bool = False,
        embeds_ids: bool = False,
        progress: Progress | None = None,
    ) -> None:
        leaves, self.input_structure = unpack(inputs, guards.float_type(model))
        self.inputs = tuple(leaf.detach() for leaf in leaves)
        self.needs_gradients = gradient
        embedding = guards.token_embedding(model, self.inputs) if find_embedding else None
        self.embeds_tokens = at is None and embedding is not None
        at = embedding if at is None else at
        at_input = at is None and not embeds_ids
        guards.check_call(as_model(model), self.inputs, self.input_structure, gradient, at_input)
        self.takes_missing = takes_missing
        if not takes_missing or any(bool(leaf.isinf().any()) for leaf in self.inputs):
            guards.require_finite_inputs(
                self.inputs, self.input_structure, "which this method cannot work with"
            )
        self._called = CalledModel(model, self.input_structure, output, gradient)
        self.rows = len(self.inputs[0])
        self.layer: Capture | None = (
            None if at is None else Submodule(model, at, or_twin=self.embeds_tokens)
        )
        self.structure = self.input_structure if at is None else Structure()
        self.target = ResolvedTarget(target, self.rows, class_names)
        self.points: Leaves = self.inputs
        self.batches = Batches(self.model, self.inputs, at, batch_size)
        self.cost = Cost()
        self.progress = progress or Progress()
        self.interception: Callable[[slice, Rows], Interception] | None = None
        self.intercepts_scores = False

    @property
    def model(self) -> Callable[..., Any]:
        """The model, or a `NumpyModel` of it."""
        return self._called.function

    @property
    def notes(self) -> list[str]:
        """What was decided for the user."""
        return self._called.notes

    @property
    def many(self) -> bool:
        """Whether scores and values have a last axis of targets."""
        return self.target.many

    def at_inputs(self, gradient: bool) -> Evaluated:
        """The score at the inputs, and its gradient if requested; runs first, settles the target."""
        try:
            parts = list(self._run(None, None, gradient))
        except MISFITS as error:
            self.cost.evaluations += self._called.recover(error, self.inputs)
            parts = list(self._run(None, None, gradient))
        whole = parts[0]
        if len(parts) > 1:
            whole = Evaluated(
                slice(0, self.rows),
                torch.cat([part.scores for part in parts]),
                concatenate([part.points for part in parts]),
                concatenate([part.gradients for part in parts]),
            )
        self.points = whole.points
        if isinstance(self.layer, Submodule) and len(self.points) > 1:
            self.structure = Structure(tuple(range(len(self.points))))
        return whole

    def for_model_inputs(self) -> Scorer:
        """A scorer of the same target and cost that explains the inputs, not a layer."""
        copied = copy.copy(self)
        copied.layer, copied.structure, copied.points = None, self.input_structure, self.inputs
        return copied

    def scores(self, points: Points, rows: Tensor, unit: int = 1) -> Tensor:
        """(N,) or (N, K) scores of N points; `points(piece)` makes the leaves of a piece.

        A piece is a multiple of `unit` points where that many fit.
        """
        return torch.cat([part.scores for part in self._run(points, rows, False, unit)])

    def scores_over(self, background: Leaves) -> tuple[Tensor, Tensor]:
        """(B,) or (B, K) each: mean and deviation of a row's score over N points in its place.

        Around a layer each row has its own scores, for whatever else the network reads is the row's.
        """
        count, batch = len(background[0]), torch.arange(self.rows)
        if self.layer is not None:
            which = torch.arange(count).repeat_interleave(self.rows)
            scores = self.scores(
                lambda piece: tuple(leaf[which[piece].to(leaf.device)] for leaf in background),
                batch.repeat(count),
            )
            scores = scores.unflatten(0, (count, self.rows)).double()
            off = scores - scores[0]
            return scores[0] + off.mean(0), off.std(0, correction=min(1, count - 1))
        # Sums of differences from the first score: equal scores deviate by exactly nothing.
        first: list[Tensor] = []

        def summed(piece: slice) -> Tensor:
            with torch.no_grad():
                result = self._called.output([leaf[piece] for leaf in background])
                output = self._called.tensor(result, piece.stop - piece.start, False)
                repeated = (row.expand(self.rows, *row.shape) for row in output)
                scores = torch.stack([self.target.scores(row, batch) for row in repeated]).double()
                first.append(scores[0])
                off = scores - first[0]
                return torch.stack([off, off**2]).sum(1)

        totals = [total for _, total in self._pieces(count, summed)]
        mean, square = (torch.stack(totals).sum(0) / count).unbind()
        guards.refuse_nonfinite(first[0] + mean, "score away from the input", self.model)
        variance = (square - mean**2).clamp_min(0) * (count / max(count - 1, 1))
        return first[0] + mean, variance.sqrt()

    def gradients_at(self, points: Points, rows: Tensor, unit: int = 1) -> Iterator[Evaluated]:
        """Scores and gradients of N points, a piece at a time: constant memory at any N.

        A piece is a multiple of `unit` points where that many fit.
        """
        return self._run(points, rows, True, unit)

    def activations(self, inputs: Leaves) -> Leaves:
        """N other inputs as points: themselves, or what the model makes of them at `at`."""
        if self.layer is None:
            return inputs
        layer = self.layer

        def activated(piece: slice) -> Leaves:
            rows = piece.stop - piece.start
            with torch.no_grad(), layer.capture(None, rows, False, None) as captured:
                self._called.run([leaf[piece] for leaf in inputs])
            return captured.leaves(None)

        return concatenate([leaves for _, leaves in self._pieces(len(inputs[0]), activated)])

    def _run(
        self, points: Points | None, rows: Tensor | None, gradient: bool, unit: int = 1
    ) -> Iterator[Evaluated]:
        """Evaluate points of these rows; without `points`, the inputs, every row in order."""

        def evaluated(piece: slice) -> Evaluated:
            point = None if points is None else points(piece)
            piece_rows = piece if rows is None else rows[piece]
            return self._evaluate(point, piece, piece_rows, gradient)

        count = self.rows if rows is None else len(rows)
        for piece, result in self._pieces(count, evaluated, gradient, unit):
            targets = len(self.target.terms) if gradient else 0
            self.cost.gradients += (piece.stop - piece.start) * targets
            yield result

    def _pieces(
        self, count: int, work: Callable[[slice], T], gradient: bool = False, unit: int = 1
    ) -> Iterator[tuple[slice, T]]:
        """`work` on each piece of `count` rows; out of memory halves the pieces that follow."""
        start = 0
        self.progress.expect(count)
        while start < count:
            left = count - start
            size = self.batches.size(left, gradient, unit)
            piece = slice(start, start + size)
            try:
                self._survey(size)
                with self.batches.measured(size, left, gradient):
                    result = work(piece)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self.batches.halve(size, error)
                continue
            self.cost.evaluations += size
            start += size
            self.progress.advance(size)
            yield piece, result

    def _survey(self, rows: int) -> None:
        """Before the first pass of `rows` rows: find the calls of the layer and their batch axes."""
        few = self.layer.survey_rows(rows) if isinstance(self.layer, Submodule) else 0
        if not few or not isinstance(self.layer, Submodule):
            return
        first_row = [leaf[torch.zeros(few, dtype=torch.long)] for leaf in self.inputs]
        with torch.no_grad():
            self.layer.survey(lambda: self._called.run(first_row), few)
        self.cost.evaluations += few
        if self.embeds_tokens:
            self._called.note(
                f"token ids have no gradient, so at={self.layer.name!r} was explained"
            )

    def _evaluate(
        self, point: Leaves | None, piece: slice, rows: Rows, gradient: bool
    ) -> Evaluated:
        first = point is None
        with (
            torch.set_grad_enabled(gradient),
            guards.differentiable_recurrence(self.model, self.inputs[0].device),
        ):
            generator_state = torch.get_rng_state() if first and not piece.start else None
            scores, leaves = self._score(point, piece, rows, gradient, first)
            if generator_state is not None:
                guards.refuse_randomness(
                    generator_state, lambda: self._score(None, piece, rows, gradient, True)[0]
                )
            detached, total = scores.detach(), scores.sum()
            try:
                name = "score" if first else "score away from the input"
                guards.refuse_nonfinite(detached, name, self.model, total, piece.start)
            except guards.NonfiniteScore:
                if first:
                    guards.require_finite_inputs(
                        self.inputs, self.input_structure, "and the score there is not finite"
                    )
                raise
            columns = scores.sum(0).unbind() if self.many else (total,)
            gradients = self._gradients(columns, leaves) if gradient else ()
        return Evaluated(piece, detached, tuple(leaf.detach() for leaf in leaves), gradients)

    def _score(
        self, point: Leaves | None, piece: slice, rows: Rows, gradient: bool, bind: bool
    ) -> tuple[Tensor, Leaves]:
        if self.interception is None or not (gradient or self.intercepts_scores):
            return self._pass(point, piece, rows, gradient, bind, None)
        interception = self.interception(piece, rows)
        with interception:
            scores, leaves = self._pass(point, piece, rows, gradient, bind, interception.begin)
        return interception.end(scores), leaves

    def _pass(
        self,
        point: Leaves | None,
        piece: slice,
        rows: Rows,
        gradient: bool,
        bind: bool,
        begin: Begin | None,
    ) -> tuple[Tensor, Leaves]:
        if self.layer is None:
            selected = (
                tuple(take_rows(leaf, piece) for leaf in self.inputs) if point is None else point
            )
            leaves = tuple(
                leaf.detach().requires_grad_()
                if gradient and differentiable(leaf)
                else leaf.detach()
                for leaf in selected
            )
            if begin is not None:
                begin(leaves)
            result = self._called.output(leaves)
            scores = self._target_of(result, piece, rows, gradient, bind)
        else:
            upstream = [leaf[rows].detach() for leaf in self.inputs]
            if gradient and self.layer.within_graph:
                upstream = [u.requires_grad_() if differentiable(u) else u for u in upstream]
            rows_here = piece.stop - piece.start
            with self.layer.capture(point, rows_here, gradient, begin) as captured:
                result = self._called.output(upstream)
            scores = self._target_of(result, piece, rows, gradient, bind)
            leaves = captured.leaves(scores)
        return scores, leaves

    def _target_of(
        self, result: Any, piece: slice, rows: Rows, gradient: bool, bind: bool
    ) -> Tensor:
        output = self._called.tensor(result, piece.stop - piece.start, gradient, note=bind)
        if bind:
            # Looking at the output is no part of the score.
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]  no other way
                self.target.bind(output, rows)
        return self.target.scores(output, rows)

    def _gradients(self, columns: Sequence[Tensor], leaves: Leaves) -> Leaves:
        """The gradient of each target's scores, summed over the rows."""
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        by_target: list[tuple[Tensor | None, ...]] = [
            torch.autograd.grad(
                column, wanted, retain_graph=k + 1 < len(columns), allow_unused=True
            )
            for k, column in enumerate(columns)
        ]
        if any(all(gradient is None for gradient in per_leaf) for per_leaf in by_target):
            raise detached_output()
        gradients: list[Tensor] = []
        position = 0
        for leaf in leaves:
            parts: list[Tensor] = []
            for per_leaf in by_target:
                gradient = per_leaf[position] if leaf.requires_grad else None
                parts.append(
                    torch.zeros_like(leaf, dtype=accumulation_dtype(leaf))
                    if gradient is None
                    else gradient.to(accumulation_dtype(leaf))
                )
            position += leaf.requires_grad
            gradients.append(torch.stack(parts, -1) if self.many else parts[0])
            guards.refuse_nonfinite(gradients[-1], "gradient", self.model)
        return tuple(gradients)
