"""Max SHAP: the Shapley values of a maximum, in a time that is quadratic in the players."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import TOLERANCE, CoalitionMethod, Estimate
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.game.replace import Replace
from whyglass.core.checks import Check
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, flat_rows
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper


@dataclass(frozen=True, kw_only=True)
class MaxSHAP(CoalitionMethod):
    r"""Shapley values of a score that is the largest of its inputs, without any coalition.

    .. math:: S(x) = \max_i x_i, \quad \phi_i = \int \phi_i(t) \, dt

    where at a level t every coalition is worth one if any feature, present or at its baseline, is
    above t. With p players above t only by their input and q only by their baseline, and none by both,
    each of the p gets (p - 1)! q! / (p + q)! and each of the q minus p! (q - 1)! / (p + q)!; else all
    get nothing. There are 2n levels, so the work is O(n^2). The check "maximum" verifies that the score
    is one, at the input, at the baseline and where each player joins alone, and fails if not. Units:
    score. Source: Lundberg & Lee (2017), section 4.2, "Max SHAP", with a reference of its own for
    each input.

    >>> import torch, whyglass
    >>> x, base = torch.tensor([[5.0, 4.0, 0.0, 3.0]]), torch.tensor([[1.0, 2.0, 2.0, 0.0]])
    >>> whyglass.MaxSHAP()(lambda x: x.amax(1), x, baseline=base).values
    tensor([[1.8333, 0.8333, 0.0000, 0.3333]])
    """

    name: ClassVar[str] = "max-shap"
    shows: ClassVar[str] = "What each feature adds to a maximum; the parts sum to it."
    cost: ClassVar[str] = "one evaluation a player"
    takes_missing: ClassVar[bool] = False
    axioms: ClassVar[tuple[Axiom, ...]] = ()
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        if not isinstance(absent, Replace):
            raise BadInput(
                "max-shap needs to know every absent feature: give one baseline row a row or "
                "Background(data)"
            )

    def estimate(self, game: Game) -> Estimate:
        absent = game.masker
        assert isinstance(absent, Replace)
        here, held = _levels(absent.groups, absent.points)
        there, _ = _levels(absent.groups, absent.others)
        # (B, m, n): a set for all rows, or a row each.
        others = there[None].expand(len(here), -1, -1) if absent.shared else there[:, None]
        values = _shares(here[:, None].expand_as(others), others, held[:, None]).mean(1)
        values = values[..., None].expand(-1, -1, game.full.shape[1])
        every = torch.eye(game.n + 2, game.n, dtype=torch.bool)
        every[-1] = True
        expected = _maxima(here, others, held)[..., None]
        off = (game.value(every) - expected).abs().amax(1) / expected.abs().amax(1).clamp_min(1e-30)
        return Estimate(values, torch.zeros_like(values), (_is_maximum(off),))


def _maxima(here: Tensor, others: Tensor, held: Tensor) -> Tensor:
    """(B, n + 2): mean maximum over others (B, m, n) with each player alone, nobody and everybody."""
    first, largest = others.max(2, keepdim=True)
    without = others.scatter(2, largest, -torch.inf).amax(2, keepdim=True)
    alone = torch.where(torch.arange(others.shape[2]) == largest, without, first)
    alone = torch.maximum(alone, here[:, None])
    everybody = here.amax(1)[:, None, None].expand_as(first)
    levels = torch.maximum(torch.cat([alone, first, everybody], 2), held[:, None, None])
    return levels.mean(1)


def _levels(groups: FeatureGroups, points: Leaves) -> tuple[Tensor, Tensor]:
    """(B, n) the largest feature of each player, and (B,) that of what is always present."""
    rows = len(points[0])
    levels = torch.full((rows, groups.count + 1), -torch.inf, dtype=torch.float64)
    for point, mask in zip(points, groups.masks, strict=True):
        position = mask.expand(point.shape[1:]).flatten() % (groups.count + 1)
        flat = flat_rows(point.detach().double().cpu())
        levels.scatter_reduce_(1, position.expand_as(flat), flat, "amax")
    return levels[:, :-1], levels[:, -1]


def _shares(here: Tensor, there: Tensor, held: Tensor) -> Tensor:
    """Shapley values (..., n) of the maximum of levels here (present) or there (absent), and held."""
    n = here.shape[-1]
    marks = torch.cat([here, there], -1).sort(-1).values
    shares = torch.zeros_like(here)
    # log k! for k = 0 ... 2n
    log = torch.lgamma(torch.arange(1, 2 * n + 2, dtype=torch.float64))
    for k in range(2 * n - 1):
        low, high = marks[..., k, None], marks[..., k + 1, None]
        up, down = here > low, there > low
        p, q = up.sum(-1, keepdim=True), down.sum(-1, keepdim=True)
        # Somebody above the level whoever joins leaves nothing to share there.
        quiet = (up & down).any(-1, keepdim=True)
        orders = log[p + q]
        gain = (log[(p - 1).clamp_min(0)] + log[q] - orders).exp()
        loss = (log[p] + log[(q - 1).clamp_min(0)] - orders).exp()
        share = torch.where(up, gain, 0.0) - torch.where(down, loss, 0.0)
        above = torch.maximum(high, held[..., None]) - torch.maximum(low, held[..., None])
        shares += torch.where(quiet, 0.0, share * above)
    return shares


def _is_maximum(off: Tensor) -> Check:
    """That the score is the largest of the inputs, by (B, K) relative differences from it."""
    rows = tuple(off.amax(1).tolist())
    worst = max(rows)
    return Check(
        "maximum",
        worst,
        TOLERANCE,
        "pass" if worst <= TOLERANCE else "fail",
        f"the score is the largest input within {worst:.2g} of it",
        rows,
    )
