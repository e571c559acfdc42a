"""Kernel SHAP: Shapley values as a weighted regression on coalitions and their complements."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game import Game
from whyglass.coalition.maskers import Masker
from whyglass.coalition.pairs import Draws, Stratum, allocate, strata
from whyglass.coalition.players import Team
from whyglass.errors import BadInput
from whyglass.method import Axiom
from whyglass.paper import Paper

Weights = Literal["leverage", "kernel"]
MOST_UNKNOWN = 1000


@dataclass(frozen=True, kw_only=True)
class KernelSHAP(SampledCoalitions):
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

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.KernelSHAP()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    weights: Weights = "leverage"

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

    def ready(self, team: Team, absent: Masker) -> None:
        self._pairs(team.count, absent)

    def _pairs(self, n: int, absent: Masker) -> int:
        """How many pairs the budget pays for."""
        ends = 1 + absent.nothing.count
        pairs = (self.budget - ends) // 2
        least = min(n, sum(layer.total for layer in strata(n, absent.count)))
        if pairs < least:
            raise BadInput(
                f"budget {self.budget} is too small for a regression on {n} players, which takes "
                f"{ends + 2 * least} evaluations a row at least: raise it, or group features with "
                "players= (players=8 makes 8 windows along each axis)"
            )
        return pairs

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
        generator, even = self.generator(), values.clone()
        # A generator each: how far one stratum is drawn does not change the next.
        seeds = torch.randint(2**62, (len(layers),), generator=generator).tolist()
        draws = [
            Draws(layer, game.n, game.count, seed)
            for layer, seed in zip(layers, seeds, strict=True)
        ]
        weights = [1.0 if self.weights == "leverage" else layer.mass for layer in layers]
        active = torch.arange(game.rows)
        taken = [0] * len(layers)
        sample = [Sample(game.n) for _ in layers]
        for pairs in self._stages(game, layers):
            counts = allocate(layers, pairs, weights)
            for place, (start, stop) in enumerate(zip(taken, counts, strict=True)):
                if start < stop:
                    members, which = draws[place].take(start, stop)
                    sample[place].add(members, _halved(game, members, which, active))
            taken = counts
            off, error = self._solved(game, sample, layers)
            values[active], errors[active] = even[active] + off, error
            keep = self.loose(values[active], error, active)
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
            triples = torch.tensor(list(itertools.combinations(range(n), 3)))
            other, smaller = regress(sample, layers, n, triples)
            better = (smaller.norm(dim=1) < error.norm(dim=1))[:, None]
            off, error = torch.where(better, other, off), torch.where(better, smaller, error)
        return off, error

    def _stages(self, game: Game, layers: list[Stratum]) -> list[int]:
        """Numbers of pairs after which rows may stop: doubling up to what the budget pays for."""
        most = self._pairs(game.n, game.masker)
        if self.tol is None:
            return [most]
        stages = [most]
        while stages[-1] // 2 >= max(2 * game.n, 2 * len(layers), 8):
            stages.append(stages[-1] // 2)
        return stages[::-1]


class Sample:
    """The draws of one stratum so far: halves (D, n) and their responses (R, D, K)."""

    def __init__(self, n: int) -> None:
        self.members = torch.zeros(0, n, dtype=torch.bool)
        self.responses: Tensor | None = None

    def add(self, members: Tensor, responses: Tensor) -> None:
        """Further draws."""
        self.members = torch.cat([self.members, members])
        self.responses = (
            responses if self.responses is None else torch.cat([self.responses, responses], 1)
        )

    def keep(self, rows: Tensor) -> None:
        """Drop the rows that are done."""
        if self.responses is not None:
            self.responses = self.responses[rows]


def _halved(game: Game, members: Tensor, which: Tensor, active: Tensor) -> Tensor:
    """(R, D, K): half of v(S) - v(complement), less what an even share of the change makes of it."""
    plays = torch.cat([members, ~members])
    scores = game.play(plays, which.repeat(2), active)
    one, other = scores.chunk(2, 1)
    change = game.full[active][:, None] - game.empties[active][:, which]
    uneven = (2 * members.sum(1, keepdim=True) - game.n) / game.n
    return (one - other - uneven * change) / 2


def regress(
    sample: list[Sample], layers: list[Stratum], n: int, triples: Tensor
) -> tuple[Tensor, Tensor]:
    """(R, n, K) deviations from even shares and their standard errors.

    On pairs the problem is one of least squares in d = z'psi with d the halved difference, z the
    membership less its mean, and psi summing to zero. Products of `triples` (T, 3) of players are
    fitted beside, and their Shapley values added.
    """
    designs, responses, shares = [], [], []
    for one, layer in zip(sample, layers, strict=True):
        assert one.responses is not None
        designs.append(_columns(one.members, layer.size, triples))
        responses.append(one.responses)
        shares.append(designs[-1].new_full((len(one.members),), layer.mass / len(one.members)))
    design, response, share = torch.cat(designs), torch.cat(responses, 1), torch.cat(shares)
    matrix = design.T @ (share[:, None] * design)
    # Memberships have no part along the ones: adding them there makes the matrix regular.
    matrix[:n, :n] += 1 / n
    inverse = torch.linalg.pinv(matrix, hermitian=True)
    fitted = torch.einsum("cj,dj,d,rdk->rck", inverse, design, share, response)
    # The Shapley values of a product of three signs: two thirds each, less what it was reduced by.
    values = torch.full((len(triples), n), -2 / n, dtype=torch.float64)
    values.scatter_add_(1, triples, torch.full_like(values[:, :3], 2 / 3))
    values = torch.cat([torch.eye(n, dtype=torch.float64), values])
    pull = design @ inverse
    slopes, psi = pull @ values, torch.einsum("cn,rck->rnk", values, fitted)
    lean = (share * (pull * design).sum(1)).clamp_max(0.9)
    residual = response - torch.einsum("dc,rck->rdk", design, fitted)
    if len(triples):
        return psi, _of_much_fitted(sample, layers, slopes, residual, lean).sqrt()
    # A residual is smaller than the error behind it by how much the fit leans on its pair: the power
    # is between 1/2, right for equal errors, and the jackknife's 1, and covers best of the three.
    residual = residual / (1 - lean)[:, None] ** 0.75
    variance = torch.zeros_like(psi)
    place = 0
    for one, layer in zip(sample, layers, strict=True):
        count = len(one.members)
        piece = slice(place, place + count)
        place += count
        if count == layer.total:
            continue  # the whole stratum: nothing was left to chance
        parts = slopes[piece, :, None] * residual[:, piece, None] * (layer.mass / count)
        variance += parts.var(1) * count * (1 - count / layer.total)
    return psi, variance.sqrt()


def _of_much_fitted(
    sample: list[Sample], layers: list[Stratum], slopes: Tensor, residual: Tensor, lean: Tensor
) -> Tensor:
    """(R, n, K) variances where the unknowns are nearly as many as the pairs.

    The values found are a weighted sum over the pairs drawn, the true ones over all pairs; what the
    fit explains is the same in both. So the error is that of the rest: a pair drawn errs by the
    difference of its weights, one left out by its true weight, which is what `regress` gives it if all
    pairs are drawn. Nothing is linearised, and the share of pairs drawn needs no factor beside.
    """
    n = sample[0].members.shape[1]
    along = sum(
        layer.mass * layer.size * (n - layer.size) / (n * (n - 1)) for layer in layers
    )  # of all pairs the matrix of memberships is this times the identity, across the ones
    square = residual**2 / (1 - lean)[:, None]
    variance = residual.new_zeros(len(residual), n, residual.shape[2])
    place = 0
    for one, layer in zip(sample, layers, strict=True):
        count = len(one.members)
        mine, pairs = slopes[place : place + count], square[:, place : place + count]
        place += count
        true = (one.members.double() - layer.size / n) / along * (layer.mass / layer.total)
        left_out = (layer.total - count) / count
        weight = (mine * (layer.mass / count) - true) ** 2 + left_out * true**2
        variance += torch.einsum("dn,rdk->rnk", weight, pairs)
    return variance


def _columns(members: Tensor, size: int, triples: Tensor) -> Tensor:
    """Memberships less their mean, then products of signs less the mean sign: zero for everybody."""
    n = members.shape[1]
    z = members.double()
    signs = 2 * z - 1
    return torch.cat([z - size / n, signs[:, triples].prod(2) - signs.mean(1, keepdim=True)], 1)
