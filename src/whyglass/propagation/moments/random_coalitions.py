"""Random coalitions of the entries of the inputs: their means and covariance, and sampled ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from whyglass.core.checks import Check, worst_target
from whyglass.core.inputs import Leaves, flat_rows
from whyglass.core.scorer import Scorer
from whyglass.propagation.moments.moments import Covariance


@dataclass(frozen=True, eq=False)
class Players:
    """The entries of the points as players: absent at `starts`, present at `points`."""

    points: Leaves
    starts: Leaves

    @property
    def count(self) -> int:
        """The number of players."""
        return sum(point[0].numel() for point in self.points)

    def mean(self, row: Tensor, who: Tensor, size: Tensor, inside: Tensor) -> Leaves:
        """The mean input under a random coalition of `size` others, with player `who` or without."""
        share = (size / max(self.count - 1, 1)).to(self.points[0])[:, None]
        player = self._is_player(who)
        present = torch.where(player, inside[:, None].to(player.device).bool().to(share), share)
        return self.between(row, present)

    def between(self, row: Tensor, present: Tensor) -> Leaves:
        """Points of these rows, with each player present to a degree (N, n) from 0 to 1."""
        made: list[Tensor] = []
        for point, start, part in zip(self.points, self.starts, self._parts(present), strict=True):
            position = row.to(point.device)
            made.append(torch.lerp(start[position], point[position], part.to(point)))
        return tuple(made)

    def covariance(self, row: Tensor, who: Tensor, size: Tensor, full: bool) -> list[Covariance]:
        """The covariance of that input: k of m others are drawn, without replacement.

        It is q (1 - q) / (m - 1) (m diag(d^2) - d d') with d the changes of the others and q = k / m.
        As a product it is S S' with S = sqrt(q (1 - q) m / (m - 1)) diag(d) (1 - 11' / m).
        """
        change = torch.cat(
            [
                flat_rows((p - s)[row.to(p.device)])
                for p, s in zip(self.points, self.starts, strict=True)
            ],
            1,
        )
        others = max(self.count - 1, 1)
        share = size / others
        scale = (share * (1 - share) / max(others - 1, 1)).to(change)[:, None]
        change = change.masked_fill(self._is_player(who), 0)
        if not full:
            diagonal = scale * others * change**2
            factors = scale.sqrt() * change
            return [
                Covariance(a, b[None], -1)
                for a, b in zip(self._parts(diagonal), self._parts(factors), strict=True)
            ]
        roots = (scale * others).sqrt() * change
        drawn = torch.eye(self.count).to(change)[:, None] - 1 / others
        factors = (roots * drawn).masked_fill(self._is_player(who).T[..., None], 0)
        split = [self._parts(factor) for factor in factors]
        return [
            Covariance(torch.zeros_like(parts[0]), torch.stack(parts))
            for parts in zip(*split, strict=True)
        ]

    def _is_player(self, who: Tensor) -> Tensor:
        """Which entry is the player itself, (N, n)."""
        return (who[:, None] == torch.arange(self.count)).to(self.points[0].device)

    def _parts(self, flat: Tensor) -> list[Tensor]:
        """A flat (N, n) tensor in parts, shaped as the points."""
        sizes = [point[0].numel() for point in self.points]
        cut = flat.split(sizes, 1)
        return [
            part.reshape(len(part), *point.shape[1:])
            for part, point in zip(cut, self.points, strict=True)
        ]

    def leaves(self, values: Tensor) -> Leaves:
        """Values (B, n) or (B, n, K), shaped as the points, with the targets last."""
        sizes = [point[0].numel() for point in self.points]
        return tuple(
            part.reshape(len(part), *point.shape[1:], *values.shape[2:]).to(
                point.device, torch.float64 if point.dtype == torch.float64 else torch.float32
            )
            for part, point in zip(values.split(sizes, 1), self.points, strict=True)
        )


def antithetic_values(
    scorer: Scorer,
    players: Players,
    ends: tuple[Tensor, Tensor],
    pairs: int,
    generator: torch.Generator,
) -> Tensor:
    """Values of each pair of a permutation and its reverse: (pairs, B, n) or (pairs, B, n, K).

    Their mean over pairs estimates the Shapley values. `ends` are the scores with no player and with
    all.
    """
    n = players.count
    first = [torch.randperm(n, generator=generator) for _ in range(pairs)]
    orders = torch.stack([order for one in first for order in (one, one.flip(0))])
    # present[p, j] holds the players of the first j + 1 of order p, but for the last, which is all.
    position = torch.empty_like(orders).scatter_(1, orders, torch.arange(n).expand_as(orders))
    form = (2 * pairs, scorer.rows, n - 1)

    def points(piece: slice) -> Leaves:
        order, row, length = torch.unravel_index(torch.arange(piece.start, piece.stop), form)
        return players.between(row, (position[order] <= length[:, None]).to(players.points[0]))

    targets = tuple(ends[0].shape[1:])
    between = ends[0].new_zeros(form + targets)
    if n > 1:
        rows = torch.arange(scorer.rows).repeat_interleave(n - 1).repeat(2 * pairs)
        between = scorer.scores(points, rows).reshape(form + targets)
    low, high = (end[None, :, None].expand(2 * pairs, -1, -1, *targets) for end in ends)
    changes = torch.cat([low, between, high], 2).double().diff(dim=2)
    where = position[:, None].expand(-1, scorer.rows, -1).to(changes.device)
    if targets:
        where = where[..., None].expand_as(changes)
    return changes.gather(2, where).unflatten(0, (pairs, 2)).mean(1)


def bias_check(values: Tensor, pairs: Tensor) -> Check:
    """The bias of values (B, n) or (B, n, K), compared with the error of sampling at equal cost.

    Products of different pairs' distances estimate the squared bias without the sampling error in it;
    leaving out each pair in turn says how sure that is. A warning needs two standard errors.
    """
    count, off = len(pairs), pairs - values
    noise = (pairs.var(0).sum(1) / count).sqrt()

    def squared(total: Tensor, squares: Tensor, number: int) -> Tensor:
        return (total.square().sum(-1) - squares) / (number * (number - 1))

    off = off.movedim(2, -1)
    squares = off.square().sum(-1)
    whole = squared(off.sum(0), squares.sum(0), count)
    less = squared(off.sum(0) - off, squares.sum(0) - squares, count - 1)
    doubt = ((count - 1) * less.var(0, correction=0)).sqrt()
    bias, least = (part.clamp_min(0).sqrt() for part in (whole, whole - 2 * doubt))
    size = pairs.mean(0).norm(dim=1).clamp_min(1e-30)
    rows = worst_target(torch.where(least > 1e-6 * size, least / noise.clamp_min(1e-30), 0.0))
    worst = max(rows)
    text = (
        f"the values are off by {float((bias / size).mean()):.1%} (Euclidean norm, mean row), where "
        f"antithetic permutations for as many evaluations are by {float((noise / size).mean()):.1%}"
    )
    if worst > 1:
        text += "; sampling is the better bargain in some rows"
    return Check("bias", worst, 1.0, "pass" if worst <= 1 else "warn", text, rows)
