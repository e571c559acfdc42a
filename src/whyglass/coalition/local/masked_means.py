"""E[score | pixel shown] from scores under random masks, with standard errors.

The masks are made again for this, a few at a time: what is kept of one is its scores alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from whyglass.coalition.local.grid_masks import GridMasks
from whyglass.core.standard_errors import Sampled, sampled_mean

CHUNK = 2**22
PIXELS = 16
FOLDS = 8
# The slopes are held back as if this many masks with a slope of zero had been seen: measured best
# between 60 and 240 masks, and of no weight with thousands.
RIDGE = 64


class Estimate(NamedTuple):
    """Means and their standard errors: (R, *shape), float64.

    `at_pixels` (R, P) are the same with their degrees of freedom, at pixels spread over the mask.
    """

    values: Tensor
    std_error: Tensor
    at_pixels: Sampled


def ratio(masks: GridMasks, scores: Tensor) -> Estimate:
    r"""The published estimate, of scores (R, n): sum_m s_m M_m / sum_m M_m.

    Its standard error is that of a ratio, to first order.
    """
    count = scores.shape[1]
    middle = scores.mean(1, keepdim=True)
    off = (scores - middle).to(masks.like)
    sums = torch.zeros(3, len(scores), _pixels(masks), dtype=torch.float64, device=off.device)
    weights = torch.zeros(2, _pixels(masks), dtype=torch.float64, device=off.device)
    at_pixels: list[Tensor] = []
    for first, last, made in _chunks(masks, count):
        at_pixels.append(made[:, _some_pixels(masks)])
        here, squares = off[:, first:last], made**2
        for power, (left, right) in enumerate(((here, made), (here, squares), (here**2, squares))):
            sums[power] += left @ right
        weights += torch.stack([made.sum(0), squares.sum(0)])
    shown = weights[0] > 0
    mean = torch.where(shown, sums[0] / weights[0], 0.0)
    spread = sums[2] - 2 * mean * sums[1] + mean**2 * weights[1]
    error = (spread.clamp_min(0) * count / (count - 1)).sqrt() / weights[0]
    # A pixel that no mask showed is known as little as one score.
    error = torch.where(shown, error, scores.std(1, keepdim=True).double())
    # To first order a ratio is off by the mean of what its scores are off, times their masks.
    away = off[..., None].double() - mean[:, None, _some_pixels(masks)]
    part = sampled_mean(away * torch.cat(at_pixels), 1)
    return _shaped(masks, mean + middle, error, part)


def controlled(masks: GridMasks, scores: Tensor) -> Estimate:
    r"""An unbiased estimate of far less variance, of scores (R, n) under antithetic pairs.

    .. math:: E[s \mid \lambda] = E[s] + Cov(s, M(\lambda)) / p

    Scores are split into a linear function of coarse means of the mask, whose part in both terms is
    known exactly, and a rest, of which the two are averaged over pairs. The function is fitted to
    the pairs of other folds, so the rest is an unbiased sample.
    """
    count, keep = scores.shape[1], masks.keep
    fits = _fits(masks, scores)
    share = _fold(0, count).bincount(minlength=FOLDS).to(fits) / count
    mean_fit = torch.einsum("k,kfr->fr", share, fits)
    known = masks.covariance(mean_fit[1:].T) / keep
    device = scores.device
    total = torch.zeros(len(scores), _pixels(masks), dtype=torch.float64, device=device)
    squared, alone = torch.zeros_like(total), torch.zeros(2, len(scores), 1, device=device).double()
    at_pixels: list[Tensor] = []
    for first, last, made in _chunks(masks, count):
        features = _with_one(masks.features(first, last))
        fitted = torch.einsum("nf,nfr->rn", features, fits[_fold(first, last)])
        # The rest of each score, and what is left of the fit where it stands for E[s].
        rest = scores[:, first:last] - fitted
        base = fits[_fold(first, last), 0].T - mean_fit[0][:, None]
        mean = (rest + base).unflatten(1, (-1, 2)).mean(2)
        off, left = (made - keep) / (2 * keep), rest.to(made)
        both = (left[:, ::2] * left[:, 1::2]) @ (off[::2] * off[1::2])
        twice = mean.repeat_interleave(2, 1).to(made)
        product = left[..., None].double() * off[:, _some_pixels(masks)]
        at_pixels.append(product.unflatten(1, (-1, 2)).sum(2) + mean[..., None])
        total += left @ off
        squared += left**2 @ off**2 + 2 * both + 2 * (twice * left) @ off
        alone += torch.stack([mean.sum(1, keepdim=True), (mean**2).sum(1, keepdim=True)])
    pairs = count // 2
    total, squared = total + alone[0], squared + alone[1]
    variance = (squared - total**2 / pairs).clamp_min(0) / (pairs * (pairs - 1))
    values = known.flatten(1) + mean_fit[0][:, None] + total / pairs
    return _shaped(masks, values, variance.sqrt(), sampled_mean(torch.cat(at_pixels, 1), 1))


def _fits(masks: GridMasks, scores: Tensor) -> Tensor:
    """(FOLDS, 1 + F, R): intercept and slopes of a ridge regression on the other folds."""
    width = masks.features(0, 1).shape[1] + 1
    grams = torch.zeros(FOLDS, width, width, dtype=torch.float64, device=scores.device)
    sides = grams.new_zeros(FOLDS, width, len(scores))
    for first in range(0, scores.shape[1], 1024):
        last = min(first + 1024, scores.shape[1])
        features, fold = _with_one(masks.features(first, last)), _fold(first, last)
        for k in range(min(FOLDS, last // 2)):
            here = features[fold == k]
            grams[k] += here.T @ here
            sides[k] += here.T @ scores[:, first:last][:, fold == k].T
    grams, sides = grams.sum(0) - grams, sides.sum(0) - sides
    squares = grams.diagonal(dim1=1, dim2=2)[:, 1:].mean(1) / grams[:, 0, 0].clamp_min(1)
    penalty = torch.ones(width).to(grams)
    penalty[0] = 0
    ridge = (RIDGE * squares[:, None] * penalty).diag_embed()
    return torch.linalg.solve(grams + ridge, sides)


def _fold(first: int, last: int) -> Tensor:
    """Which fold each mask's pair is in."""
    return torch.arange(first, last) // 2 % FOLDS


def _with_one(features: Tensor) -> Tensor:
    return torch.nn.functional.pad(features, (1, 0), value=1.0)


def _pixels(masks: GridMasks) -> int:
    return int(torch.Size(masks.shape).numel())


def _chunks(masks: GridMasks, count: int) -> Iterator[tuple[int, int, Tensor]]:
    """The masks (n, pixels), an even number at a time."""
    step = max(2, CHUNK // _pixels(masks) // 2 * 2)
    for first in range(0, count, step):
        last = min(first + step, count)
        yield first, last, masks.make(first, last).flatten(1)


def _some_pixels(masks: GridMasks) -> Tensor:
    count = _pixels(masks)
    return torch.linspace(0, count - 1, min(count, PIXELS)).long().to(masks.like.device)


def _shaped(masks: GridMasks, values: Tensor, errors: Tensor, at_pixels: Sampled) -> Estimate:
    return Estimate(values.reshape(-1, *masks.shape), errors.reshape(-1, *masks.shape), at_pixels)
