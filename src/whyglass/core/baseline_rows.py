"""The rows that a baseline makes for a batch: one for each row, or a background set."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from whyglass.core.baseline import OF_COALITIONS, OF_ONE_INPUT, Background, Baseline
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable, require_finite
from whyglass.core.scorer import Evaluated, Scorer

T = TypeVar("T")


def _no_leaves(_scorer: Scorer) -> Collection[int]:
    return ()


def both_ends(
    baseline: Baseline,
    scorer: Scorer,
    gradient: bool,
    prepare: Callable[[Leaves], T],
    integers: Callable[[Scorer], Collection[int]] = _no_leaves,
) -> tuple[T, Evaluated]:
    """What `prepare` makes of the baselines, and the scores (and gradients) at the inputs.

    `integers` says which leaves of integers are replaced, too. What is wrong with either is refused
    before the model runs, unless they stand for a layer's output, which only a pass of the model
    shows.
    """
    if scorer.layer is None:
        starts = resolve(baseline, scorer, integers(scorer))
        return prepare(starts), scorer.at_inputs(gradient)
    here = scorer.at_inputs(gradient)
    return prepare(resolve(baseline, scorer, integers(scorer))), here


def resolve(baseline: Baseline, scorer: Scorer, integers: Collection[int] = ()) -> Leaves:
    """One baseline row for each row of the batch, shaped as `scorer.points`.

    Leaves of floats are replaced, and of the others those numbered in `integers`.
    """
    points = scorer.points
    replaced = [differentiable(p) or index in integers for index, p in enumerate(points)]
    if isinstance(baseline, Background):
        raise BadInput(
            'this method takes one baseline a row: for a background set use "expected-gradients", '
            "or its mean, baseline=Mean(data)"
        )
    if isinstance(baseline, OF_COALITIONS):
        raise BadInput(
            f"baseline {type(baseline).__name__} depends on what is present, which only the methods of "
            "coalitions (permutation-shapley, say) tell: give one row here"
        )
    if isinstance(baseline, OF_ONE_INPUT) and len(points) > 1:
        name = type(baseline).__name__
        raise BadInput(
            f"baseline {name} is for one tensor, and the inputs are {len(points)}: give a callable "
            f"that returns a baseline for each, such as lambda inputs: (..., {name}(...)(inputs[1]))"
        )
    if callable(baseline):
        make = cast("Callable[[Any], Any]", baseline)
        baseline = make(scorer.structure.pack(points))
    if baseline is None or isinstance(baseline, int | float):
        missing = scorer.takes_missing and math.isnan(baseline or 0.0)
        no_number = isinstance(baseline, bool) and not all(
            point.dtype == torch.bool for point, own in zip(points, replaced, strict=True) if own
        )
        if no_number or not (missing or math.isfinite(baseline or 0.0)):
            raise BadInput(
                f"baseline {baseline!r} must be a finite number; it may be NaN for the methods of "
                "coalitions (permutation-shapley, say) and occlusion"
            )
        if baseline and scorer.embeds_tokens:
            raise BadInput(
                f"baseline {baseline!r} would be a constant of the embedding: for a token give its id "
                "in the form of the inputs, for example torch.full_like(ids, 0)"
            )
        if integers and not isinstance(baseline, int):
            raise _no_integers(baseline, scorer, integers)
        return tuple(
            torch.full_like(point, baseline or 0) if replaced[index] else point
            for index, point in enumerate(points)
        )
    leaves = _leaves(baseline, scorer)
    if scorer.layer is not None and not _fits(leaves, points):
        if not _fits(leaves, scorer.inputs, True):
            raise _misfit(leaves, points)
        whole = tuple(
            leaf.expand_as(own).to(own.device)
            for leaf, own in zip(leaves, scorer.inputs, strict=True)
        )
        return scorer.activations(whole)
    if not _fits(leaves, points):
        raise _misfit(leaves, points)
    for index, (leaf, point) in enumerate(zip(leaves, points, strict=True)):
        if replaced[index] and leaf.dtype != point.dtype:
            if index in integers:
                raise _no_integers(baseline, scorer, integers)
            raise BadInput(f"baseline is {leaf.dtype} and the inputs are {point.dtype}")
    return tuple(
        _row_each(leaf, point).expand_as(point) if replaced[index] else point
        for index, (leaf, point) in enumerate(zip(leaves, points, strict=True))
    )


def _no_integers(baseline: Baseline, scorer: Scorer, integers: Collection[int]) -> BadInput:
    index = min(integers)
    label, point = scorer.structure.label(index), scorer.points[index]
    what = repr(baseline) if baseline is None or isinstance(baseline, float) else "of another type"
    return BadInput(
        f"{label} is {point.dtype}, and baseline {what} has no value for it: give an integer (the id "
        "of the mask token, or 0 for a black pixel), integers of the inputs' shape, Deletion(pad) for "
        "tokens (B, T), or explain a layer of floats with at="
    )


def background(baseline: Baseline, scorer: Scorer) -> Leaves:
    """The N rows of a background set, as leaves (N, ...) of the model's inputs."""
    data = baseline.data if isinstance(baseline, Background) else baseline
    if not isinstance(data, Tensor | tuple | list | dict):
        raise BadInput(
            f"baseline {data!r} is no background set, which this method averages over: give "
            "baseline=Background(data), data (N, ...)"
        )
    leaves = _leaves(data, scorer)
    shapes = [tuple(leaf.shape[1:]) for leaf in scorer.inputs]
    of_rows = [tuple(leaf.shape[1:]) for leaf in leaves]
    if of_rows != shapes:
        raise BadInput(f"baseline: the background rows have shapes {of_rows}, the inputs' {shapes}")
    if len({len(leaf) for leaf in leaves}) > 1:
        raise BadInput("baseline: the background's tensors have different numbers of rows")
    if not len(leaves[0]):
        raise BadInput("baseline: the background set is empty")
    return tuple(
        leaf.to(own.dtype) if differentiable(own) else leaf
        for leaf, own in zip(leaves, scorer.inputs, strict=True)
    )


def _leaves(baseline: object, scorer: Scorer) -> Leaves:
    """A baseline given as tensor, tuple or dict: flat, in the inputs' order, finite, in place."""
    names = scorer.input_structure.names
    if isinstance(baseline, Tensor):
        leaves: tuple[Any, ...] = (baseline,)
    elif isinstance(baseline, tuple | list):
        leaves = tuple(cast("Sequence[Any]", baseline))
    elif isinstance(baseline, dict):
        named = cast("dict[Any, Any]", baseline)
        if set(named) != set(names or ()):
            raise BadInput(f"baseline has keys {list(named)} and the inputs {list(names or ())}")
        leaves = tuple(named[name] for name in names or ())
    else:
        raise BadInput(
            f"baseline of type {type(baseline).__name__} is none of the forms known; "
            "see help(whyglass.core.baseline)"
        )
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise BadInput("baseline must hold tensors only")
    if len(leaves) not in {len(scorer.points), len(scorer.inputs)}:
        raise BadInput(f"baseline has {len(leaves)} tensors and the inputs {len(scorer.inputs)}")
    for leaf in leaves:
        if leaf.device != scorer.inputs[0].device:
            raise BadInput(
                f"baseline is on {leaf.device} and the inputs on {scorer.inputs[0].device}"
            )
        if not scorer.takes_missing or bool(leaf.isinf().any()):
            require_finite(
                leaf,
                "baseline",
                "and only the methods of coalitions (permutation-shapley, say) and occlusion take NaN",
            )
    return leaves


def _fits(leaves: Leaves, points: Leaves, exact_dtype: bool = False) -> bool:
    if len(leaves) != len(points):
        return False
    return all(
        _row_each(leaf, point).shape[1:] == point.shape[1:]
        and len(_row_each(leaf, point)) in (1, len(point))
        and (not exact_dtype or leaf.dtype == point.dtype)
        for leaf, point in zip(leaves, points, strict=True)
    )


def _row_each(leaf: Tensor, point: Tensor) -> Tensor:
    """One row without its batch axis gains it."""
    return leaf[None] if leaf.shape == point.shape[1:] else leaf


def _misfit(leaves: Leaves, points: Leaves) -> BadInput:
    message = (
        f"baseline has shape {[tuple(leaf.shape) for leaf in leaves]}; expected "
        f"{[tuple(point.shape) for point in points]}, or one row of that"
    )
    if [leaf.shape[1:] for leaf in leaves] == [point.shape[1:] for point in points]:
        message += (
            ": if these rows stand for absence together, give baseline=Background(data) to a method "
            "that averages over them (of coalitions, expected-gradients, deep-shap), or their mean, "
            "baseline=Mean(data)"
        )
    return BadInput(message)
