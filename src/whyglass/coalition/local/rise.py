"""RISE: how high the score is, on average, when a pixel shows through a random mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from whyglass.coalition.local.grid_masks import GridMasks
from whyglass.coalition.local.masked_means import controlled, ratio
from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import both_ends
from whyglass.core.checks import Check, worst_target
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.method import (
    Attribution,
    Axiom,
    Method,
    Need,
    integer,
    positive,
    positive_integer,
)
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.core.standard_errors import Sampled, freedom_check

FIRST_ROUND = 128


@dataclass(frozen=True, kw_only=True)
class RISE(Method):
    r"""Mean score over random masks M of the input, given that a pixel is shown.

    .. math:: R_\lambda = \frac{E[S(x \odot M + x' \odot (1 - M)) \, M_\lambda]}{E[M_\lambda]}

    A mask is a grid of `cells`, each on with probability `keep`, enlarged bilinearly and shifted by
    up to a cell. Images of integers are mixed in float32 and rounded, and take a baseline of integers,
    0 say. One mask covers all channels, so values have one channel, (B, 1, H, W). They are
    mean scores, not shares: what tells is where the map is higher than elsewhere. Use a probability
    as target, as the paper does. Units: score; standard errors come with the values. Source: Petsiuk,
    Das & Saenko (2018), equations 4 to 6, with the cell size of the authors' code.

    Args:
        samples: masks for each row; with `tol` the most there will be.
        cells: along each axis, or one number for all of them; at most one a pixel.
        keep: the probability that a cell is on.
        sampler: "paired" draws antithetic pairs of masks and takes out the part of the score that is
            linear in the mask, whose mean is known: the same expectation with far fewer masks.
            "published" draws one mask after the other and divides by their sum.
        tol: stop a row once its standard errors are this small beside the map's own spread.
        seed: of the generator that draws the masks, the same for every row.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0, :2, :2].sum((1, 2))
    >>> whyglass.RISE(cells=2)(model, torch.ones(1, 1, 4, 4)).values[0, 0].round(decimals=1)
    tensor([[3.0000, 3.0000, 2.7000, 2.4000],
            [3.0000, 3.0000, 2.7000, 2.4000],
            [2.7000, 2.7000, 2.5000, 2.3000],
            [2.4000, 2.4000, 2.3000, 2.2000]])
    """

    samples: int = 1000
    cells: int | tuple[int, ...] = 7
    keep: float = 0.5
    sampler: Literal["paired", "published"] = "paired"
    tol: float | None = None
    seed: int = 0

    name: ClassVar[str] = "rise"
    shows: ClassVar[str] = "How high the score is on average when a place shows through a mask."
    family: ClassVar[str] = "coalition"
    cost: ClassVar[str] = "samples evaluations"
    needs: ClassVar[tuple[Need, ...]] = ("images",)
    axioms: ClassVar[tuple[Axiom, ...]] = ()
    data: ClassVar[tuple[str, ...]] = ("images",)
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    levels: ClassVar[bool] = True
    paper: ClassVar[Paper] = Paper(
        "Vitali Petsiuk, Abir Das and Kate Saenko",
        "RISE: Randomized Input Sampling for Explanation of Black-box Models",
        "BMVC",
        2018,
        "https://arxiv.org/abs/1806.07421",
    )

    def __post_init__(self) -> None:
        positive_integer("samples", self.samples)
        for cells in self.cells if isinstance(self.cells, tuple) else (self.cells,):
            positive_integer("cells", cells)
        positive("keep", self.keep)
        if self.keep >= 1:
            raise BadInput(f"keep must be less than 1, not {self.keep!r}: it is a probability")
        if self.sampler not in ("paired", "published"):
            raise BadInput(f"sampler {self.sampler!r} is neither 'paired' nor 'published'")
        if self.samples < 2:
            raise BadInput("samples must be 2 or more: one sample has no standard error")
        if self.sampler == "paired" and (self.samples % 2 or self.samples < 4):
            raise BadInput(
                f"samples must be even and 4 or more, not {self.samples!r}: masks come in pairs; "
                "sampler='published' draws them one by one"
            )
        if self.tol is not None:
            positive("tol", self.tol)
        integer("seed", self.seed)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        def prepare(starts: Leaves) -> tuple[Leaves, int, GridMasks]:
            picture = _picture(scorer)
            return starts, picture, self._masks(scorer.points[picture])

        (starts, picture, masks), here = both_ends(baseline, scorer, False, prepare, _integers)
        estimated = controlled if self.sampler == "paired" else ratio
        targets = tuple(here.scores.shape[1:])
        scores = here.scores.new_zeros(scorer.rows, *targets, self.samples, dtype=torch.float64)
        values = scores.new_zeros(scorer.rows, *targets, *masks.shape)
        errors, relative = torch.zeros_like(values), scores.new_zeros(scorer.rows, *targets)
        active, done = torch.arange(scorer.rows), 0
        at_pixels: Sampled | None = None
        while done < self.samples and len(active):
            first, done = done, self.samples
            if self.tol is not None:
                done = min(max(2 * first, FIRST_ROUND), self.samples)
            fresh = _scores(scorer, starts, picture, masks, active, range(first, done))
            scores[active, ..., first:done] = fresh.movedim(0, -1).double()
            estimate = estimated(masks, scores[active, ..., :done].reshape(-1, done))
            position = active.to(values.device)
            for whole, part in zip((values, errors), estimate[:2], strict=True):
                whole[position] = part.reshape(len(active), *targets, *masks.shape)
            if at_pixels is None:
                shape = (scorer.rows, *targets, estimate.at_pixels.values.shape[1])
                at_pixels = Sampled(*(values.new_zeros(shape) for _ in range(3)))
            for whole, part in zip(at_pixels, estimate.at_pixels, strict=True):
                whole[position] = part.reshape(len(active), *whole.shape[1:])
            relative[position] = _beside_spread(values[position], errors[position], len(targets))
            if self.tol is not None:
                active = active[torch.tensor(worst_target(relative))[active] > self.tol]
        return Attribution(
            _leaves(scorer, picture, values),
            here.scores,
            baseline=starts,
            std_error=_leaves(scorer, picture, errors),
            checks=(_precision(relative, self.tol or 0.25), _freedom(at_pixels)),
            notes=[
                f"{scorer.structure.label(index)} is no image: held fixed, not explained (zeros)"
                for index, point in enumerate(scorer.points)
                if index != picture and differentiable(point)
            ],
        )

    def _masks(self, point: Tensor) -> GridMasks:
        shape = tuple(point.shape[1 + _channels(point) :])
        cells = self.cells if isinstance(self.cells, tuple) else (self.cells,) * len(shape)
        if len(cells) != len(shape):
            raise BadInput(f"cells {cells} names {len(cells)} axes and the input has {len(shape)}")
        wide = torch.float64 if point.dtype == torch.float64 else torch.float32
        return GridMasks(
            shape,
            tuple(min(pair) for pair in zip(cells, shape, strict=True)),
            self.keep,
            self.sampler == "paired",
            self._generator,
            point.new_empty(0, dtype=wide),
        )

    def _generator(self, block: int) -> torch.Generator:
        entropy = np.random.SeedSequence([self.seed % 2**64, block])
        return torch.Generator().manual_seed(int(entropy.generate_state(1)[0]))


def _picture(scorer: Scorer) -> int:
    """Which leaf is the image that masks go over: of floats, or where none is, of integers."""
    floats = [i for i, point in enumerate(scorer.points) if differentiable(point)]
    candidates = floats or list(range(len(scorer.points)))
    for axes in (4, 3):
        images = [i for i in candidates if scorer.points[i].dim() >= axes]
        if len(images) == 1:
            return images[0]
    shapes = ", ".join(str(tuple(point.shape)) for point in scorer.points)
    raise BadInput(
        f"rise masks one image (B, C, H, W) and {scorer.structure.label(0)} is of shape {shapes}: "
        "for the columns of a table or several inputs use occlusion, or hold the others fixed in a "
        "callable"
    )


def _integers(scorer: Scorer) -> list[int]:
    """The image, if it is of integers."""
    picture = _picture(scorer)
    return [] if differentiable(scorer.points[picture]) else [picture]


def _channels(point: Tensor) -> int:
    """How many axes after the batch a mask spans whole."""
    return 1 if point.dim() >= 4 else 0


def _scores(
    scorer: Scorer, starts: Leaves, picture: int, masks: GridMasks, active: Tensor, which: range
) -> Tensor:
    """(n, rows) or (n, rows, K): the scores of the active rows under some masks."""
    width = len(active)
    point, start = scorer.points[picture], starts[picture]
    wide = point.dtype if differentiable(point) else torch.float32

    def masked(piece: slice) -> Leaves:
        positions = torch.arange(piece.start, piece.stop)
        low = piece.start // width
        made = masks.make(which[low], which[(piece.stop - 1) // width] + 1).to(wide)
        if width > 1:
            made = made[(positions // width - low).to(made.device)]
        rows = active[positions % width].to(point.device)
        over = made.unsqueeze(1) if _channels(point) else made
        one = rows[:1] if width == 1 else rows
        leaves = [leaf[rows] for leaf in scorer.points]
        mixed = torch.lerp(start[one].to(wide), point[one].to(wide), over)
        leaves[picture] = mixed if differentiable(point) else mixed.round().to(point)
        return tuple(leaves)

    return scorer.scores(masked, active.repeat(len(which))).unflatten(0, (len(which), width))


def _leaves(scorer: Scorer, picture: int, values: Tensor) -> Leaves:
    """Maps as leaves: the targets last, one channel where the image has some, zeros elsewhere."""
    targets = values.shape[1:2] if scorer.many else values.shape[:0]
    leaves: list[Tensor] = []
    for index, point in enumerate(scorer.points):
        kind = torch.float64 if point.dtype == torch.float64 else torch.float32
        if index != picture:
            leaves.append(point.new_zeros((*point.shape, *targets), dtype=kind))
            continue
        last = values.movedim(1, -1) if scorer.many else values
        leaves.append((last.unsqueeze(1) if _channels(point) else last).to(kind))
    return tuple(leaves)


def _beside_spread(values: Tensor, errors: Tensor, targets: int) -> Tensor:
    """|standard errors| / |values less their mean| over each map, zero for 0 / 0."""
    flat, noise = (part.flatten(1 + targets) for part in (values, errors))
    spread = (flat - flat.mean(-1, keepdim=True)).norm(dim=-1)
    return torch.where(spread > 0, noise.norm(dim=-1) / spread, 0.0)


def _freedom(at_pixels: Sampled | None) -> Check:
    """The check "degrees of freedom" of some pixels (B, P) or (B, K, P), their level taken off."""
    assert at_pixels is not None
    values, errors, freedom = ((part.flatten(1),) for part in at_pixels)
    level = at_pixels.values.mean(-1, keepdim=True)
    values = ((at_pixels.values - level).flatten(1),)
    return freedom_check(values, errors, freedom, False, "more samples= raise them")


def _precision(relative: Tensor, tolerance: float) -> Check:
    rows = worst_target(relative)
    worst = max(rows)
    return Check(
        "sampling error",
        worst,
        tolerance,
        "pass" if worst <= tolerance else "warn",
        f"the standard errors are {worst:.0%} of how far the map departs from its mean (Euclidean "
        "norms); four times the samples halve that",
        rows,
    )
