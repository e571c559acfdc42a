"""Kernel SHAP: Shapley values as a weighted regression on coalitions and their complements."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate
from whyglass.coalition.game import Game
from whyglass.coalition.pair_regression import Sample, regress
from whyglass.coalition.paired_coalitions import PairedCoalitions
from whyglass.coalition.pairs import Stratum, allocate, strata
from whyglass.coalition.surrogate import lasso_path
from whyglass.errors import BadInput
from whyglass.method import Axiom, positive_integer
from whyglass.paper import Paper

Weights = Literal["leverage", "kernel"]
MOST_UNKNOWN = 1000


@dataclass(frozen=True, kw_only=True)
class KernelSHAP(PairedCoalitions):
    r"""Shapley values as the solution of a weighted least squares problem over coalitions.

    .. math:: \min_\phi \sum_S \pi(S) \Bigl[v(S) - v(\emptyset) - \sum_{i \in S} \phi_i\Bigr]^2,
        \quad \pi(S) = \frac{n - 1}{\binom{n}{|S|} |S| (n - |S|)}, \quad
        \sum_i \phi_i = v(N) - v(\emptyset)

    The constraint is solved exactly. A coalition is evaluated with its complement; pairs are drawn
    without replacement, size by size, so that a budget for all of them gives the exact values with
    standard errors of zero. Each pair uses one background row, in turn. Against one baseline row, where
    the sample allows it, products of three players are fitted beside if that lowers the error: they
    take up noise, and in the limit the Shapley values of the fit are those of the game. Standard errors
    are those of the linearised regression; with products of three, of the difference to the regression
    on all pairs, without linearising. Units: score. Source: Lundberg & Lee (2017), theorem 2; pairs:
    Covert & Lee (2021), "paired sampling"; leverage: Musco & Witter (2025), algorithm 1; residuals:
    MacKinnon & White (1985), HC2.

    Args:
        weights: how often each size is drawn: all equally ("leverage"), or as the kernel weighs them
            ("kernel"). Either way the regression is weighted to the same solution.
        features: at most this many players get a value, those that enter the lasso's path of the same
            problem first; the regression is then theirs, the others get zero, and the values still add
            up. They are Shapley values only where the others have none, and standard errors take the
            choice as given. None, the default, is for all players.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.KernelSHAP()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    weights: Weights = "leverage"
    features: int | None = None

    fits: ClassVar[str] = "a regression"
    least: ClassVar[int] = 1

    name: ClassVar[str] = "kernel-shap"
    shows: ClassVar[str] = (
        "What each feature adds to the score, from a regression on random coalitions; the parts sum "
        "to it."
    )
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "completeness",
        "sensitivity",
        "implementation invariance",
    )
    paper: ClassVar[Paper] = Paper(
        "Scott M. Lundberg and Su-In Lee",
        "A Unified Approach to Interpreting Model Predictions",
        "NeurIPS",
        2017,
        "https://arxiv.org/abs/1705.07874",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights not in {"leverage", "kernel"}:
            raise BadInput(f'weights must be "leverage" or "kernel", not {self.weights!r}')
        if self.features is not None:
            positive_integer("features", self.features)

    def estimate(self, game: Game) -> Estimate:
        n, change = game.n, game.change
        values = (change / n)[:, None].repeat(1, n, 1)
        errors = torch.zeros_like(values)
        layers = strata(n, game.count)
        if layers:
            self._fill(game, layers, values, errors)
        return Estimate(values, errors, (self.precision(values, errors),))

    def _fill(self, game: Game, layers: list[Stratum], values: Tensor, errors: Tensor) -> None:
        """Add to the even shares what the regression finds, row by row until exact enough."""
        draws, even = self.draws(game, layers), values.clone()
        weights = [1.0 if self.weights == "leverage" else layer.mass for layer in layers]
        active = torch.arange(game.rows)
        taken = [0] * len(layers)
        sample = [Sample(game.n) for _ in layers]
        for pairs in self.stages(game, layers):
            counts = allocate(layers, pairs, weights)
            fresh = [
                one.take(start, stop) for one, start, stop in zip(draws, taken, counts, strict=True)
            ]
            halves = _halved(
                game,
                torch.cat([members for members, _ in fresh]),
                torch.cat([which for _, which in fresh]),
                active,
            ).split([len(which) for _, which in fresh], 1)
            for one, (members, which), half in zip(sample, fresh, halves, strict=True):
                one.add(members, which, half)
            taken = counts
            if self.features is not None and self.features < game.n:
                values[active], errors[active] = _few(game, sample, layers, active, self.features)
            else:
                off, errors[active] = self._solved(game, sample, layers)
                values[active] = even[active] + off
            keep = self.loose(values[active], errors[active], active)
            for one in sample:
                one.keep(torch.isin(active, keep))
            active = keep
            if not len(active):
                return

    def _solved(
        self, game: Game, sample: list[Sample], layers: list[Stratum]
    ) -> tuple[Tensor, Tensor]:
        """The regression without products of three or with them, whichever errs less in a row."""
        n, drawn = game.n, sum(len(one.members) for one in sample)
        unknown, whole = n - 1 + math.comb(n, 3), sum(layer.total for layer in layers)
        off, error = regress(sample, layers, n, torch.zeros(0, 3, dtype=torch.long))
        # With more than one alternative what differs between them is noise that no product explains.
        if game.count == 1 and 3 * unknown <= 2 * drawn < 2 * whole and unknown <= MOST_UNKNOWN:
            triples = torch.combinations(torch.arange(n), 3)
            other, smaller = regress(sample, layers, n, triples)
            better = (smaller.norm(dim=1) < error.norm(dim=1))[:, None]
            off, error = torch.where(better, other, off), torch.where(better, smaller, error)
        return off, error


def _halved(game: Game, members: Tensor, which: Tensor, active: Tensor) -> Tensor:
    """(R, D, K): half of v(S) - v(complement), less what an even share of the change makes of it."""
    plays = torch.cat([members, ~members])
    scores = game.play(plays, which.repeat(2), active)
    one, other = scores.chunk(2, 1)
    change = game.full[active][:, None] - game.empties[active][:, which]
    uneven = (2 * members.sum(1, keepdim=True).double() - game.n) / game.n
    return (one - other - uneven * change) / 2


def _few(
    game: Game, sample: list[Sample], layers: list[Stratum], active: Tensor, features: int
) -> tuple[Tensor, Tensor]:
    """(R, n, K) values and standard errors of the regression on the players that a lasso chooses."""
    full, change = game.full[active][:, None], game.change[active]
    members = torch.cat([one.members for one in sample])
    halves: list[Tensor] = []
    for one in sample:
        assert one.responses is not None
        apart = one.members.double().mean(1, keepdim=True) - 0.5
        halves.append(one.responses + apart * (full - game.empties[active][:, one.which]))
    response = torch.cat(halves, 1)
    # What rounding leaves of nothing must not choose.
    response[response.abs() <= 1e-12 * change.abs()[:, None]] = 0
    share = torch.cat(
        [
            response.new_full((len(one.members),), layer.mass / len(one.members))
            for one, layer in zip(sample, layers, strict=True)
        ]
    )
    # A pair is its two coalitions, with opposite halves of their difference.
    chosen = lasso_path(
        torch.cat([members, ~members]),
        share.repeat(2),
        torch.cat([response, -response], 1),
        features,
    )
    values = torch.zeros_like(chosen, dtype=torch.float64)
    errors = torch.zeros_like(values)
    kinds, kind = chosen.transpose(1, 2).reshape(-1, game.n).unique(dim=0, return_inverse=True)
    kind = kind.reshape(len(active), -1)
    for number, kept in enumerate(kinds):
        if not kept.any():
            # No coalition differs from its complement: nobody is to be preferred.
            kept = torch.ones_like(kept)
        count = int(kept.sum())
        smaller: list[Sample] = []
        for one, half in zip(sample, halves, strict=True):
            apart = one.members[:, kept].double().mean(1, keepdim=True) - 0.5
            even = apart * (full - game.empties[active][:, one.which])
            smaller.append(Sample(count))
            smaller[-1].add(one.members[:, kept], one.which, half - even)
        off, error = regress(smaller, layers, count, torch.zeros(0, 3, dtype=torch.long))
        mine = (kind == number)[:, None]
        place = mine & kept[:, None]
        values[place] = (off + change[:, None] / count)[mine.expand_as(off)]
        errors[place] = error[mine.expand_as(off)]
    return values, errors
