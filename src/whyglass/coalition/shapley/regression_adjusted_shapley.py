"""Shapley values of a fitted surrogate, plus what a sample says of the part that it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate
from whyglass.coalition.game.game import Game
from whyglass.coalition.shapley.paired_coalitions import PairedCoalitions
from whyglass.coalition.shapley.paired_sampling import Sample, sampled
from whyglass.coalition.shapley.product_kernel import Regression, tuned
from whyglass.core.method import Axiom
from whyglass.core.paper import Paper
from whyglass.core.standard_errors import Sampled, degrees_of_freedom

MOST_TOGETHER = 500


@dataclass(frozen=True, kw_only=True)
class RegressionAdjustedShapley(PairedCoalitions):
    r"""Shapley values of a surrogate fitted to the sample, adjusted by those of what it leaves over.

    .. math:: \hat\phi = \frac{1}{D} \sum_{p = 1}^{D} \phi(h_{-p}) + \hat\phi_p(v - h_{-p})

    D pairs of a coalition and its complement are drawn as by `KernelSHAP`, each against one background
    row. The surrogate :math:`h_{-p}` is a kernel regression on all of them but p, with a Gaussian
    kernel of one length a player, whose own Shapley values are exact; :math:`\hat\phi_p` estimates from
    the one pair, without bias. The lengths come from the half of the pairs that p is not in. So a
    surrogate that fits saves evaluations, and for one that does not fit the adjustment makes up. Pairs
    of a size all of which are drawn have no error. The values add up to the change of score exactly.

    A player's coordinate is its presence, with a `Background` the mean of its features. The regression
    takes seconds a row for thousands of evaluations: use it where the model is slow, and
    `PermutationShapley` or `KernelSHAP` where it is fast. Standard errors are those of the adjustment;
    where a few coalitions make most of what the surrogate misses they are too small until such
    coalitions are drawn. Units: score. Source: Witter, Liu & Musco (2025), with another surrogate;
    leaving out by the hat matrix: Rasmussen & Williams (2006), section 5.4.2.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.RegressionAdjustedShapley()(model, torch.tensor([[2.0, 3.0, 1.0]])).values
    tensor([[3., 3., 1.]])
    """

    fits: ClassVar[str] = "a surrogate"
    least: ClassVar[int] = 2

    # The surrogate that the residuals are taken from is fitted to the same draws.
    least_freedom: ClassVar[float] = 12

    name: ClassVar[str] = "regression-adjusted-shapley"
    shows: ClassVar[str] = (
        "What each feature adds to the score, by a surrogate fitted to few evaluations and corrected "
        "for what it misses; the parts sum to it."
    )
    axioms: ClassVar[tuple[Axiom, ...]] = (
        "completeness",
        "sensitivity",
        "implementation invariance",
    )
    paper: ClassVar[Paper] = Paper(
        "R. Teal Witter, Yurong Liu and Christopher Musco",
        "Regression-adjusted Monte Carlo Estimators for Shapley Values and Probabilistic Values",
        "NeurIPS",
        2025,
        "https://arxiv.org/abs/2506.11849",
    )

    def estimate(self, game: Game) -> Estimate:
        n = game.n
        values = (game.change / n)[:, None].repeat(1, n, 1)
        estimate = Sampled(values, torch.zeros_like(values), values + torch.inf)
        active = torch.arange(game.rows)
        weights, (here, absent) = (1.0,) * (game.n // 2), _coordinates(game)
        for pairs in self.stages(game.n, game.masker):
            drawn, evaluations = sampled(
                game.n * pairs, game.n, game.background_size, pairs, weights, self.seed
            )
            scores = game.scores(evaluations, active)
            for position, row in enumerate(active.tolist()):
                points = torch.cat([here[row : row + 1], absent])
                for k in range(scores.shape[2]):
                    ends = torch.cat([game.full[row, k : k + 1], game.empties[row, :, k]])
                    part = adjusted(drawn, scores[position, :, k], ends, points)
                    for whole, own in zip(estimate, part, strict=True):
                        whole[row, :, k] = own
            active = self.unfinished(estimate.values[active], estimate.errors[active], active)
            if not len(active):
                break
        return Estimate(*estimate[:2], self.sampling_checks(estimate))


def _coordinates(game: Game) -> tuple[Tensor, Tensor]:
    """Coordinates of the players: present (B, n), and absent, for each background row (A, n)."""
    ones = torch.ones(game.rows, game.n, dtype=torch.float64)
    return game.coordinates() or (ones, ones.new_zeros(game.background_size, game.n))


def adjusted(sample: Sample, scores: Tensor, ends: Tensor, end_points: Tensor) -> Sampled:
    """(n,) values from scores (2 D,) of the pairs and (1 + A,) of the ends.

    `end_points` (1 + A, n) are the coordinates of the ends.
    """
    pairs = len(sample.members)
    # The score of everybody is taken off: equal scores are then exactly zero.
    known = torch.cat([scores, ends]) - ends[0]
    deviation = known.std()
    scale = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    known = (known - known.mean()) / scale
    share = sample.share
    drawn = sample.per_pair(
        [count / one.total for one, count in zip(sample.layers, sample.counts, strict=True)]
    )
    if bool((drawn == 1).all()):
        by_pair = _values_by_pair(sample, known[: 2 * pairs], known[2 * pairs :])
        exact = (share * by_pair).sum(0) * scale
        return Sampled(exact, torch.zeros_like(exact), exact + torch.inf)
    in_fit, left_out, together = _surrogate(sample, known, end_points)
    # The pairs that were drawn, each under the fit without it, stand for those that were not.
    values = (share * (drawn * in_fit + (1 - drawn) * left_out)).sum(0)
    weight = share * (1 - drawn)
    centred = torch.cat([part - part.mean(0) for part in left_out.split(sample.counts)])
    fewer = sample.per_pair([count / max(count - 1, 1) for count in sample.counts])
    squares = weight * share * fewer * centred.square()
    variance = squares.sum(0) + _shared(weight * _player_weights(sample), together)
    left_to_chance = int((weight > 0).sum())
    freedom = degrees_of_freedom(squares.sum(0), squares.square().sum(0), left_to_chance)
    return Sampled(values * scale, variance.clamp_min(0).sqrt() * scale, freedom)


def _player_weights(sample: Sample) -> Tensor:
    """(D, n): the weight of half the difference to the complement in the value of each player."""
    n, size = sample.members.shape[1], sample.members.sum(1, keepdim=True)
    # Over all pairs the covariance of memberships is that of even shares, this many times.
    times = sum(layer.mass * layer.size * (n - layer.size) for layer in sample.layers)
    return (sample.members.double() - size.double() / n) * (n * (n - 1) / times)


def _values_by_pair(sample: Sample, scores: Tensor, ends: Tensor) -> Tensor:
    """(D, n) values by each pair alone: even shares of the change, and the way off them.

    `ends` are (1 + A,), or (D, 1 + A) where they are others for each pair.
    """
    members, n = sample.members, sample.members.shape[1]
    top, bottom = ends[..., 0], ends[..., 1:]
    own = bottom.expand(len(members), -1).gather(1, sample.background_rows[:, None])[:, 0]
    one, other = scores.chunk(2)
    uneven = (2 * members.sum(1).double() - n) / n
    off = (one - other - uneven * (top - own)) / 2
    even = (top - bottom.mean(-1)) / n
    return even[..., None] + off[:, None] * _player_weights(sample)


def _surrogate(sample: Sample, known: Tensor, end_points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(D, n) values by the surrogate and each pair, first with the pair in the fit, then without.

    The last result (S, S) is what two pairs do to one another, for some of them.
    """
    pairs = len(sample.members)
    evaluations = torch.cat([sample.members, ~sample.members])
    points = torch.where(
        evaluations, end_points[:1], end_points[1 + sample.background_rows.repeat(2)]
    )
    subset = _subset(pairs)
    in_fit = torch.zeros_like(sample.members, dtype=torch.float64)
    left_out = torch.zeros_like(in_fit)
    together = torch.zeros(len(subset), len(subset), dtype=torch.float64)
    for turn in range(2):
        tuning = (torch.arange(2 * pairs) % pairs) % 2 != turn
        lengths, noise = tuned(points[tuning], known[: 2 * pairs][tuning])
        fit = Regression(torch.cat([points, end_points]), known, pairs, end_points, lengths, noise)
        ends = fit.within[2 * pairs :]
        in_fit += (fit.values + _values_by_pair(sample, fit.within[: 2 * pairs], ends)) / 2
        ends = ends + fit.raised(slice(2 * pairs, None))
        by_pair = fit.values + fit.moved + _values_by_pair(sample, fit.left.T.flatten(), ends)
        left_out[turn::2] = by_pair[turn::2]
        together += fit.together(subset) / 2
    return in_fit, left_out, together


def _subset(pairs: int) -> Tensor:
    """The numbers of at most so many pairs as are compared with one another."""
    return torch.linspace(0, pairs - 1, min(pairs, MOST_TOGETHER)).long()


def _shared(pulls: Tensor, together: Tensor) -> Tensor:
    """(n,) variance because each of two pairs is in the fit that the other is held against.

    Twice what they add to one another, the mean over pairs, that is the surrogate's own value, apart;
    from some of the pairs for all.
    """
    subset = _subset(len(pulls))
    variance = torch.zeros_like(pulls[0])
    for player, pull in enumerate(pulls[subset].T):
        moves = pull[:, None] * together
        moves = moves - moves.mean(0) - moves.mean(1, keepdim=True) + moves.mean()
        variance[player] = (moves * moves.T).sum() - moves.diagonal().square().sum()
    return variance * (len(pulls) / len(subset)) ** 2
