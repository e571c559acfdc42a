"""How two players act together: the Shapley interaction index of every pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import MOST_HELD
from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.maskers import masker
from whyglass.coalition.game.players import Players, feature_groups
from whyglass.core.baseline import Baseline
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Inputs, Leaves
from whyglass.core.layer import At
from whyglass.core.method import integer, positive_integer
from whyglass.core.output import Selector
from whyglass.core.progress import Progress
from whyglass.core.scorer import Scorer
from whyglass.core.target import Target


@dataclass(frozen=True, eq=False)
class Interactions:
    """How much more each pair of players adds together than apart.

    Attributes:
        values: (B, n, n), or (B, n, n, K) for many targets: symmetric, zero on the diagonal; a
            positive entry means that the two add more together than each by itself. Units: score.
        std_error: shaped alike, zero where every coalition was evaluated.
        players: which player each feature is, as in an `Explanation`.
        evaluations: rows put through the model.
    """

    values: Tensor
    std_error: Tensor
    players: Leaves
    evaluations: int


def interactions(
    model: Callable[..., Any],
    inputs: Inputs,
    *,
    target: Target = None,
    baseline: Baseline = None,
    players: Players = None,
    at: At = None,
    output: Selector = None,
    batch_size: int | str = "auto",
    budget: int = 2000,
    seed: int = 0,
    progress: bool | None = None,
) -> Interactions:
    r"""The Shapley interaction index of every pair of players.

    .. math:: I_{ij} = \sum_{S \subseteq N \setminus ij} \frac{|S|! \, (n - |S| - 2)!}{(n - 1)!}
        \, [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)]

    Exact if the budget pays for every coalition. Otherwise the mean over random orders in which the two
    are neighbours: every round of orders makes each pair neighbours equally often, and standard errors
    are those over rounds, each with one background row in turn. Source: Grabisch & Roubens (1999).

    Args:
        budget: the most evaluations a row.
        seed: of the generator that draws the orders.

    The other arguments are those of `whyglass.Method.__call__` and of the methods of coalitions.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> whyglass.interactions(model, torch.tensor([[2.0, 3.0, 1.0]])).values[0]
    tensor([[0., 6., 0.],
            [6., 0., 0.],
            [0., 0., 0.]], dtype=torch.float64)
    """
    positive_integer("budget", budget)
    integer("seed", seed)
    with Progress("interactions", progress) as bar:
        scorer = Scorer(
            model,
            inputs,
            target=target,
            output=output,
            at=at,
            batch_size=batch_size,
            gradient=False,
            takes_missing=True,
            progress=bar,
        )
        here = None if scorer.layer is None else scorer.at_inputs(False)
        groups = feature_groups(players, scorer)
        absent = masker(baseline, scorer, groups)
        n, rounds = groups.count, 0
        whole = n <= 20 and (2**n - 2) * absent.background_size <= absent.affords(budget)
        if not whole:
            rounds = absent.affords(budget) // (2 * n * (n - 1))
            if rounds < 2:
                raise BadInput(
                    f"budget {budget} does not pay for two rounds of orders of {n} players, which take "
                    f"{absent.evaluations(4 * n * (n - 1))} evaluations a row: raise it, or group "
                    "features with players="
                )
        here = here or scorer.at_inputs(False)
        held = (2**n if whole else budget) * len(scorer.target.terms)
        parts: list[tuple[Tensor, Tensor]] = []
        for rows in torch.arange(scorer.rows).split(max(1, MOST_HELD // held)):
            game = Game(scorer, absent, groups, here, rows)
            parts.append(_exact(game) if whole else _sampled(game, rounds, seed))
        values, errors = (torch.cat(part) for part in zip(*parts, strict=True))
        unchanged = absent.unchanged(scorer.rows, n)
        without = unchanged[:, None] | unchanged[:, :, None]
        values[without], errors[without] = 0.0, 0.0
    pick = slice(None) if scorer.many else 0
    return Interactions(values[..., pick], errors[..., pick], groups.masks, scorer.cost.evaluations)


def _exact(game: Game) -> tuple[Tensor, Tensor]:
    n, worth = game.n, game.all_values()
    sizes = torch.tensor([number.bit_count() for number in range(2**n)])
    values = worth.new_zeros(game.rows, n, n, worth.shape[2])
    numbers = torch.arange(2**n)
    weight = worth.new_tensor([1 / ((n - 1) * math.comb(n - 2, s)) for s in range(n - 1)])
    for i in range(n):
        for j in range(i):
            rest = numbers[(numbers >> i & 1 == 0) & (numbers >> j & 1 == 0)]
            one, other = 1 << i, 1 << j
            gains = worth[:, rest + one + other] - worth[:, rest + one]
            gains = gains - worth[:, rest + other] + worth[:, rest]
            values[:, i, j] = values[:, j, i] = torch.einsum(
                "bsk,s->bk", gains, weight[sizes[rest]]
            )
    return values, torch.zeros_like(values)


def _sampled(game: Game, rounds: int, seed: int) -> tuple[Tensor, Tensor]:
    n, generator = game.n, torch.Generator().manual_seed(seed)
    laps = -(-rounds // game.background_size)
    background_rows = torch.cat(
        [torch.randperm(game.background_size, generator=generator) for _ in range(laps)]
    )
    # Zigzags 0, 1, n-1, 2, n-2, ... moved on by 0 to n - 1: every pair is neighbours twice.
    step = torch.arange(n)
    zigzag = torch.where(step % 2 == 1, (step + 1) // 2, -(step // 2))
    paths = (zigzag + step[:, None]) % n
    samples = [game.full.new_zeros(game.rows, n, n, game.full.shape[1]) for _ in range(rounds)]
    for number, into in enumerate(samples):
        orders = torch.randperm(n, generator=generator)[paths]
        rank = orders.argsort(1)
        start = torch.arange(n - 1)[:, None]
        before = rank[:, None] < start
        first, second = rank[:, None] == start, rank[:, None] == start + 1
        evaluations = torch.stack(
            [before | first | second, before | first, before | second, before]
        )
        flat = evaluations.reshape(-1, n)
        scores = game.scores(Evaluations(flat, background_rows[number].expand(len(flat))))
        signs = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64)
        gains = torch.einsum("rsek,s->rek", scores.reshape(game.rows, 4, n * (n - 1), -1), signs)
        one, other = orders[:, :-1].reshape(-1), orders[:, 1:].reshape(-1)
        into.reshape(game.rows, n * n, -1).index_add_(1, one * n + other, gains / 2)
        into.reshape(game.rows, n * n, -1).index_add_(1, other * n + one, gains / 2)
    stacked = torch.stack(samples)
    return stacked.mean(0), stacked.std(0) / rounds**0.5
