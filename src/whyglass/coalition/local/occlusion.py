"""Occlusion: slide a window of absence over the input and see how far the score falls."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.core.baseline import Baseline, both_ends
from whyglass.core.checks import not_flat
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import Attribution, Axiom, Method, Need, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer

Sizes = int | tuple[int, ...] | None


@dataclass(frozen=True, kw_only=True)
class Occlusion(Method):
    r"""Mean fall of the score over the windows w that cover a feature.

    .. math:: R_i = \frac{1}{|W_i|} \sum_{w \in W_i} S(x) - S(x_{w \leftarrow x'}),
        \quad W_i = \{w : i \in w\}

    Windows cover all channels of an image, so its values have one channel, (B, 1, H, W). Units:
    score. Source: Zeiler & Fergus (2014), section 4.2; leave-one-out is `window=1`.

    Args:
        window: its size, along every axis but batch and channels, or one number for all of them;
            by default a seventh of an image's height and width, and single features elsewhere.
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
            for size in sizes if isinstance(sizes, tuple) else [1 if sizes is None else sizes]:
                positive_integer(name, size)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        def windows(starts: Leaves) -> tuple[Leaves, list[list[tuple[slice, ...]]]]:
            return starts, [
                self._windows(tuple(p.shape[1 + _channels(p) :])) for p in scorer.points
            ]

        (starts, every), here = both_ends(baseline, scorer, False, windows)
        if not any(map(differentiable, scorer.points)):
            raise BadInput(
                f"{scorer.structure.label(0)} is {scorer.points[0].dtype}: occlusion needs floats. "
                "For integers such as tokens take exact-shapley, permutation-shapley, kernel-shap or "
                "lime, with baseline= an integer; or explain a layer of floats, such as the embedding, "
                "with at="
            )
        values = tuple(
            self._leaf(scorer, here.scores, starts, index, every[index])
            if differentiable(point)
            else torch.zeros_like(point, dtype=torch.float32)
            for index, point in enumerate(scorer.points)
        )
        checks = (not_flat(values, scorer.many),)
        return Attribution(values, here.scores, baseline=starts, checks=checks)

    def _leaf(
        self,
        scorer: Scorer,
        score: Tensor,
        starts: Leaves,
        index: int,
        windows: list[tuple[slice, ...]],
    ) -> Tensor:
        point = scorer.points[index]
        channels = _channels(point)
        rows = torch.arange(scorer.rows).repeat(len(windows))

        def occluded(piece: slice) -> Leaves:
            chosen = rows[piece].to(point.device)
            leaves = [leaf[chosen] for leaf in scorer.points]
            for place, evaluation in enumerate(range(piece.start, piece.stop)):
                window = (*[slice(None)] * channels, *windows[evaluation // scorer.rows])
                leaves[index][place][window] = starts[index][chosen[place]][window]
            return tuple(leaves)

        found = scorer.scores(occluded, rows).reshape(len(windows), *score.shape)
        targets = tuple(score.shape[1:])
        shape = (len(point), *[1] * channels, *point.shape[1 + channels :])
        total = point.new_zeros((*shape, *targets), dtype=score.dtype)
        covered = point.new_zeros(shape[1:], dtype=score.dtype)
        for window, scores in zip(windows, found, strict=True):
            where = (*[slice(None)] * channels, *window)
            target = total[(slice(None), *where)]
            # A window that equals the baseline has no fall of score, not even one of rounding.
            same = (point == starts[index])[(slice(None), *where)].flatten(1).all(1)
            fall = torch.where(same.reshape(-1, *[1] * len(targets)), 0.0, score - scores)
            target += fall.reshape(len(point), *[1] * (len(shape) - 1), *targets)
            covered[where] += 1
        return total / covered.reshape(1, *covered.shape, *[1] * len(targets))

    def _windows(self, shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """Every window, the last of each axis moved back so that all of the input is covered."""
        default = [max(1, size // 7) if len(shape) > 1 else 1 for size in shape]
        window = self._sizes("window", self.window, default)
        stride = self._sizes("stride", self.stride, [max(1, size // 2) for size in window])
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

    def _sizes(self, name: str, given: Sizes, default: Sequence[int]) -> list[int]:
        if given is None:
            return list(default)
        if isinstance(given, int):
            return [given] * len(default)
        if len(given) != len(default):
            raise BadInput(
                f"{name} {given} names {len(given)} axes and the input has {len(default)}"
            )
        return list(given)


def _channels(point: Tensor) -> int:
    """How many axes after the batch a window spans whole: an image's channels."""
    return 1 if point.dim() >= 4 else 0
