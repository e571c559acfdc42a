"""The input that stands for absence.

==============================  =================================================================
``None``, a number              that constant everywhere (0 by default)
tensor, tuple or dict           one row for the whole batch, or a row each, shaped as the inputs
``PerChannel((r, g, b))``       a constant for each entry of axis 1
``Blur(sigma)``                 the input itself, blurred over its last two axes (in pixels)
``Mean(data)``                  the mean row of a data set
``Nearest(data, labels)``       for each row the nearest example (Euclidean) of another class
``Background(data)``            a set of rows, for methods that average over one
``Conditional(data, k)``        the k rows of a table most like what is present, for coalitions
``Gaussian(data)``              rows of a table moved to fit what is present, for coalitions
``Deletion(pad)``               tokens taken out of a text, for coalitions
``Inpaint()``                   absent pixels filled from those present around them, for coalitions
callable                        ``inputs -> baseline``
==============================  =================================================================

With ``at=`` a constant is one of the layer's output; tensors may be shaped as the layer's output, or
as the inputs, and then the baseline is what the layer makes of them (token ids, say).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Inputs, Leaves, differentiable, flat_rows, require_finite
from whyglass.core.scorer import Evaluated, Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class PerChannel:
    """One constant for each channel (axis 1): black in normalised pixels, say."""

    values: Sequence[float]

    def __call__(self, inputs: Tensor) -> Tensor:
        if inputs.dim() < 2 or inputs.shape[1] != len(self.values):
            raise BadInput(
                f"PerChannel has {len(self.values)} values and axis 1 of an input of shape "
                f"{tuple(inputs.shape)} is not that long"
            )
        values = torch.tensor(self.values, dtype=inputs.dtype, device=inputs.device)
        return values.reshape(1, -1, *[1] * (inputs.dim() - 2)).expand_as(inputs)


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur of each (B, C, H, W) image: what remains when detail is gone.

    Images of integers are blurred in float32 and rounded.
    """

    sigma: float = 10.0

    def __call__(self, inputs: Tensor) -> Tensor:
        if inputs.dim() != 4:
            raise BadInput(f"Blur needs images (B, C, H, W), not shape {tuple(inputs.shape)}")
        if not self.sigma > 0:
            raise BadInput(f"Blur sigma must be positive, not {self.sigma!r}")
        blurred = inputs if differentiable(inputs) else inputs.float()
        for axis in (2, 3):
            blurred = self._along(blurred, axis)
        return blurred if differentiable(inputs) else blurred.round().to(inputs.dtype)

    def _along(self, images: Tensor, axis: int) -> Tensor:
        size = images.shape[axis]
        position = torch.arange(size, dtype=images.dtype, device=images.device)
        # A (size, size) matrix of weights, each row normalised: the border needs no padding.
        weights = torch.exp(-((position[:, None] - position) ** 2) / (2 * self.sigma**2))
        weights = weights / weights.sum(1, keepdim=True)
        return (images.transpose(axis, -1) @ weights.T).transpose(axis, -1)


@dataclass(frozen=True, eq=False)
class Mean:
    """The mean row of a data set (N, ...)."""

    data: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        _same_rows("Mean", self.data, inputs)
        if not differentiable(inputs):
            raise BadInput(
                f"Mean: the inputs are {inputs.dtype}, and a mean is no integer: give floats "
                "(inputs.float()), or one row of integers"
            )
        data = self.data if differentiable(self.data) else self.data.to(inputs.dtype)
        return data.mean(0, keepdim=True).to(inputs).expand_as(inputs)


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each row the nearest training example whose label is another: "why not that one?".

    `labels` (N,) are the classes of `data` (N, ...), `own` (B,) those of the rows explained.
    """

    data: Tensor
    labels: Tensor
    own: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        if len(self.own) != len(inputs) or len(self.labels) != len(self.data):
            raise BadInput(
                f"Nearest: {len(self.own)} own labels for {len(inputs)} rows, "
                f"{len(self.labels)} labels for {len(self.data)} examples"
            )
        _same_rows("Nearest", self.data, inputs)
        data = self.data.to(inputs)
        own, others = (flat_rows(rows) for rows in (inputs, data))
        wide = own.dtype if differentiable(own) else torch.float64
        distance = torch.cdist(own.to(wide), others.to(wide))
        distance[self.own.to(inputs.device)[:, None] == self.labels.to(inputs.device)] = math.inf
        if torch.isinf(distance).all(1).any():
            raise BadInput("Nearest: the data holds no example of another class for some row")
        return data[distance.argmin(1)]


def _same_rows(name: str, data: Tensor, inputs: Tensor) -> None:
    if not len(data) or data.shape[1:] != inputs.shape[1:]:
        raise BadInput(
            f"{name}: data of shape {tuple(data.shape)} holds no rows like the inputs', "
            f"{tuple(inputs.shape[1:])}"
        )


@dataclass(frozen=True, eq=False)
class Background:
    """A set of rows, in the form of the inputs, that together stand for absence."""

    data: Inputs


@dataclass(frozen=True, eq=False)
class Conditional:
    """Absent columns of a table are taken from the `neighbours` rows most like what is present.

    Likeness is Euclidean distance over the columns present, each in units of its standard deviation
    in `data` (N, columns). A score is the mean over these rows, and over all that are as near as the
    last of them, so that their order does not matter. Where nothing is present every row is used. A
    budget counts `neighbours` evaluations for a coalition; a note says where ties made it more.
    """

    data: Tensor
    neighbours: int = 10


@dataclass(frozen=True, eq=False)
class Gaussian:
    r"""Absent columns of a table, given those present, as if `data` (N, columns) were Gaussian.

    .. math:: x_A = b_A + \Sigma_{AP} \Sigma_{PP}^{-1} (x_P - b_P)

    for every row b of the data, A the absent columns and P those present: the conditional mean, with
    the data's own residuals about it. Nothing is drawn at random, and nothing is shrunk: the check
    "regression" warns where the rows are not well above the columns.
    """

    data: Tensor


@dataclass(frozen=True)
class Deletion:
    """Absent tokens are taken out: the rest moves up, and `pad` fills the end.

    For integer inputs (B, T). Whatever other input has that shape (an attention mask, say) moves
    along and is filled with zeros.
    """

    pad: int


@dataclass(frozen=True)
class Inpaint:
    r"""Absent pixels of an image (B, C, H, W) are filled smoothly from the present ones around them.

    .. math:: \Delta x = 0 \text{ where absent}, \quad x \text{ given where present}

    solved from the coarsest scale to the finest, with a few sweeps of averaging over the four
    neighbours at each, so nearly. Present pixels stay as they are, a constant image stays constant, and
    the filling is linear in the image. Where nothing is present every pixel is the image's mean colour.
    Source: Chan & Shen (2002), harmonic inpainting; Bornemann & Deuflhard (1996), cascade of scales.
    """


# What is computed from one tensor of inputs.
OF_ONE_INPUT = (PerChannel, Blur, Mean, Nearest)
# What only methods of coalitions can use.
OF_COALITIONS = (Conditional, Gaussian, Deletion, Inpaint)

Known: TypeAlias = (
    PerChannel | Blur | Mean | Nearest | Background | Conditional | Gaussian | Deletion | Inpaint
)
Baseline: TypeAlias = "float | Inputs | Known | Callable[[Any], Any] | None"


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
