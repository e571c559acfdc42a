"""Occlusion: slide a window of absence over the input and see how far the score falls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from whyglass.coalition.game.players import has_players
from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import both_ends
from whyglass.core.checks import not_flat
from whyglass.core.errors import BadInput
from whyglass.core.guards import NonfiniteScore
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import Attribution, Axiom, Method, Need, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer

# A tuple or dict has one entry for each of several inputs.
Sizes: TypeAlias = "int | tuple[Any, ...] | dict[str, Any] | None"
Windows: TypeAlias = list[tuple[slice, ...]]


@dataclass(frozen=True, kw_only=True)
class Occlusion(Method):
    r"""Mean fall of the score over the windows w that cover a feature.

    .. math:: R_i = \frac{1}{|W_i|} \sum_{w \in W_i} S(x) - S(x_{w \leftarrow x'}),
        \quad W_i = \{w : i \in w\}

    Windows cover all channels of an image, so its values have one channel, (B, 1, H, W). Where no input
    is of floats, those of integers are hidden, which takes a baseline of integers: 0 for a black
    pixel, the id of the mask token. An input (B,) is one feature. Units: score. Source: Zeiler & Fergus
    (2014), section 4.2; leave-one-out is `window=1`.

    Args:
        window: its size, along every axis but batch and channels, or one number for all of them;
            by default a seventh of an image's height and width, and single features elsewhere. For
            several inputs a tuple or dict with one entry each: a number, a tuple, or None.
        stride: step between windows, likewise; by default half a window.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.Occlusion()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[6., 6., 1.]])
    """

    window: Sizes = None
    stride: Sizes = None

    name: ClassVar[str] = "occlusion"
    takes_missing: ClassVar[bool] = True
    shows: ClassVar[str] = "How far the score falls when a patch is hidden."
    family: ClassVar[str] = "coalition"
    cost: ClassVar[str] = "one evaluation a window"
    needs: ClassVar[tuple[Need, ...]] = ()
    axioms: ClassVar[tuple[Axiom, ...]] = ("implementation invariance", "linearity", "dummy")
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Matthew D. Zeiler and Rob Fergus",
        "Visualizing and Understanding Convolutional Networks",
        "ECCV",
        2014,
        "https://arxiv.org/abs/1311.2901",
    )

    def __post_init__(self) -> None:
        for name, sizes in (("window", self.window), ("stride", self.stride)):
            for size in _numbers(sizes):
                positive_integer(name, size)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        def windows(starts: Leaves) -> tuple[Leaves, list[Windows | None]]:
            hidden = has_players(scorer.points, scorer.structure.names or ())
            return starts, [
                self._windows(scorer, index) if is_hidden else None
                for index, is_hidden in enumerate(hidden)
            ]

        (starts, every), here = both_ends(baseline, scorer, False, windows, _integers)
        targets = tuple(here.scores.shape[1:])
        values = tuple(
            point.new_zeros((*point.shape, *targets), dtype=torch.float32)
            if own is None
            else self._leaf(scorer, here.scores, starts, index, own)
            for index, (point, own) in enumerate(zip(scorer.points, every, strict=True))
        )
        checks = (not_flat(values, scorer.many),)
        return Attribution(values, here.scores, baseline=starts, checks=checks)

    def _leaf(
        self,
        scorer: Scorer,
        score: Tensor,
        starts: Leaves,
        index: int,
        windows: Windows,
    ) -> Tensor:
        """The mean fall of the score for each place of a leaf."""
        point = scorer.points[index]
        channels = _channels(point)
        rows = torch.arange(scorer.rows).repeat(len(windows))

        def occluded(piece: slice) -> Leaves:
            chosen = rows[piece].to(point.device)
            leaves = [leaf[chosen] for leaf in scorer.points]
            for position, evaluation in enumerate(range(piece.start, piece.stop)):
                window = (*[slice(None)] * channels, *windows[evaluation // scorer.rows])
                leaves[index][position][window] = starts[index][chosen[position]][window]
            return tuple(leaves)

        try:
            all_scores = scorer.scores(occluded, rows).reshape(len(windows), *score.shape)
        except NonfiniteScore as error:
            window, row = divmod(error.position, scorer.rows)
            positions = ", ".join(f"{axis.start}:{axis.stop}" for axis in windows[window])
            raise BadInput(
                f"{error} (in row {row} the positions [{positions}] were replaced)"
            ) from error
        targets = tuple(score.shape[1:])
        shape = (len(point), *[1] * channels, *point.shape[1 + channels :])
        total = point.new_zeros((*shape, *targets), dtype=score.dtype)
        covered = point.new_zeros(shape[1:], dtype=score.dtype)
        for window, scores in zip(windows, all_scores, strict=True):
            where = (*[slice(None)] * channels, *window)
            target = total[(slice(None), *where)]
            # A window that equals the baseline has no fall of score, not even one of rounding.
            same = (point == starts[index])[(slice(None), *where)].reshape(len(point), -1).all(1)
            fall = torch.where(same.reshape(-1, *[1] * len(targets)), 0.0, score - scores)
            target += fall.reshape(len(point), *[1] * (len(shape) - 1), *targets)
            covered[where] += 1
        return total / covered.reshape(1, *covered.shape, *[1] * len(targets))

    def _windows(self, scorer: Scorer, index: int) -> Windows:
        """Every window, the last of each axis moved back so that all of the input is covered."""
        point = scorer.points[index]
        shape = tuple(point.shape[1 + _channels(point) :])
        default = [max(1, size // 7) if len(shape) > 1 else 1 for size in shape]
        window = _sizes("window", self.window, default, scorer, index)
        stride = _sizes("stride", self.stride, [max(1, s // 2) for s in window], scorer, index)
        for axis, (size, whole, step) in enumerate(zip(window, shape, stride, strict=True)):
            if size > whole:
                raise BadInput(f"window {size} is larger than the input, {whole} along axis {axis}")
            if step > size:
                raise BadInput(
                    f"stride {step} is larger than window {size}: gaps would stay unseen"
                )
        axes = [
            sorted({*range(0, whole - size + 1, step), whole - size})
            for size, whole, step in zip(window, shape, stride, strict=True)
        ]
        return [
            tuple(slice(start, start + size) for start, size in zip(corner, window, strict=True))
            for corner in itertools.product(*axes)
        ]


def _integers(scorer: Scorer) -> list[int]:
    """The leaves of integers in which windows are hidden."""
    hidden = has_players(scorer.points, scorer.structure.names or ())
    return [i for i, point in enumerate(scorer.points) if hidden[i] and not differentiable(point)]


def _numbers(sizes: Sizes) -> list[Any]:
    """All numbers of a setting."""
    if sizes is None:
        return []
    if isinstance(sizes, tuple | list | dict):
        parts = sizes.values() if isinstance(sizes, dict) else sizes
        return [number for part in parts for number in _numbers(part)]
    return [sizes]


def _sizes(
    name: str, sizes: Sizes, default: Sequence[int], scorer: Scorer, index: int
) -> list[int]:
    """The setting along each axis of a leaf."""
    names = scorer.structure.names
    if names is not None and isinstance(sizes, tuple | dict):
        known = list(sizes) if isinstance(sizes, dict) else list(range(len(sizes)))
        wanted = list(names) if isinstance(sizes, dict) else list(range(len(names)))
        if known != wanted and set(known) != set(wanted):
            raise BadInput(
                f"{name} {sizes} must hold one entry for each of the inputs {list(names)}: a number, a "
                "tuple with one number an axis, or None for the default"
            )
        sizes = sizes[str(names[index])] if isinstance(sizes, dict) else sizes[index]
    if sizes is None:
        return list(default)
    if isinstance(sizes, int):
        return [sizes] * len(default)
    if isinstance(sizes, dict) or len(sizes) != len(default):
        raise BadInput(
            f"{name} {sizes} names {len(sizes)} axes and the input has {len(default)}: give one number "
            "an axis, or one for all"
        )
    return list(sizes)


def _channels(point: Tensor) -> int:
    """How many axes after the batch a window spans whole: an image's channels."""
    return 1 if point.dim() >= 4 else 0
