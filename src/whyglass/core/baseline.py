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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Inputs, differentiable, flat_rows


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
