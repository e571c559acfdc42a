"""Games of few players, whose values every coalition of them gives exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import whyglass
from benchmarks.verdicts.judge import Case
from whyglass.coalition.local.lime import POOR_FIT

Model = Callable[[Tensor], Tensor]
# A background of so many rows stands for the population that smaller ones are drawn from.
POPULATION = 400
OTHERS = 8
DRAWS = 2000
TREE = ((0, 1, 2), (3, (4, 5)), (6, 7))


@dataclass(frozen=True)
class Game:
    """A score, the row explained (1, n), and the rows (R, n) that stand for absence.

    `drawn` makes as many other rows of the same population, from a seed.
    """

    name: str
    hard: bool
    model: Model
    x: Tensor
    rows: Tensor
    drawn: Callable[[int, int], Tensor] | None = None

    def over(self, size: int, seed: int) -> Game:
        """The same game over other rows."""
        assert self.drawn is not None
        return replace(self, rows=self.drawn(size, seed))

    @property
    def n(self) -> int:
        """Players: the columns."""
        return self.x.shape[1]

    @property
    def baseline(self) -> Any:
        """As a method takes it: a row, or a background."""
        return self.rows if len(self.rows) == 1 else whyglass.Background(self.rows)

    @cached_property
    def table(self) -> Tensor:
        """(2^n,) the mean score of every coalition; player i is in it where bit i is set."""
        present = (torch.arange(2**self.n)[:, None] >> torch.arange(self.n)) & 1 > 0
        with torch.no_grad():
            scores = [
                self.model(torch.where(present, self.x, row)).double().reshape(-1)
                for row in self.rows
            ]
        return torch.stack(scores).mean(0)

    def shapley(self) -> Tensor:
        """(n,) by the sum over coalitions."""
        n, table = self.n, self.table
        numbers = torch.arange(2**n)
        sizes = ((numbers[:, None] >> torch.arange(n)) & 1).sum(1)
        weights = torch.tensor(
            [1 / (n * math.comb(n - 1, size)) for size in range(n)], dtype=torch.float64
        )
        values: list[Tensor] = []
        for player in range(n):
            without = numbers[(numbers >> player) & 1 == 0]
            gains = table[without | 1 << player] - table[without]
            values.append((weights[sizes[without]] * gains).sum())
        return torch.stack(values)

    def alone(self) -> Tensor:
        """(n,) how far the score falls without each player."""
        everybody = 2**self.n - 1
        return self.table[-1] - self.table[[everybody ^ 1 << i for i in range(self.n)]]

    def regression(self, width: float) -> Tensor:
        """(n,) LIME's slopes over all coalitions."""
        return self._fit(width)[0]

    def unexplained(self, width: float) -> float:
        """The share of the weighted variance that the slopes leave."""
        return self._fit(width)[1]

    def _fit(self, width: float) -> tuple[Tensor, float]:
        z = ((torch.arange(2**self.n)[:, None] >> torch.arange(self.n)) & 1).double()
        weights = torch.exp(-(self.n - z.sum(1)) / (2 * width**2))
        root, design = weights.sqrt()[:, None], torch.cat([z, torch.ones(len(z), 1)], 1)
        target = self.table[:, None]
        slopes = torch.linalg.lstsq(design * root, target * root, driver="gelsd").solution
        centred = target[:, 0] - (weights * target[:, 0]).sum() / weights.sum()
        rest, whole = (
            (weights * part**2).sum() for part in ((target - design @ slopes)[:, 0], centred)
        )
        return slopes[: self.n, 0], float(rest / whole) if whole > 0 else 0.0

    def owen(self, tree: Any) -> Tensor:
        """(n,) the mean over all orders that keep groups together."""
        every = list(_orders(tree))
        total = torch.zeros(self.n, dtype=torch.float64)
        for order in every:
            members = 0
            for player in order:
                total[player] += self.table[members | 1 << player] - self.table[members]
                members |= 1 << player
        return total / len(every)

    def independent(self) -> Tensor:
        """(n,) Shapley values where each absent player is drawn from a row of its own.

        Over all draws, or over `DRAWS` random ones where there are more.
        """
        count = len(self.rows)
        choices = (
            torch.cartesian_prod(*[torch.arange(count)] * self.n)
            if count**self.n <= DRAWS
            else (torch.randint(count, (DRAWS, self.n), generator=torch.Generator().manual_seed(1)))
        )
        drawn = self.rows[choices, torch.arange(self.n)]
        return replace(self, rows=drawn).shapley()


def _orders(tree: Any) -> Iterator[list[int]]:
    if isinstance(tree, int):
        yield [tree]
        return
    for branches in itertools.permutations(tree):
        for parts in itertools.product(*(list(_orders(branch)) for branch in branches)):
            yield list(itertools.chain.from_iterable(parts))


def games(n: int, seed: int) -> Iterator[Game]:
    """Easy and hard ones of n players."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inner, outer, slopes = normal(n, 16), normal(16), normal(n)
    one, zero = torch.ones(1, n, dtype=torch.float64), torch.zeros(1, n, dtype=torch.float64)
    x = normal(1, n)

    def smooth(z: Tensor) -> Tensor:
        return torch.tanh(z.double() @ inner * 0.4) @ outer

    def linear(z: Tensor) -> Tensor:
        return z.double() @ slopes

    def quadratic(z: Tensor) -> Tensor:
        return linear(z) + ((z.double() @ inner[:, :n]) * z.double()).sum(1)

    def rows(count: int, other: int) -> Tensor:
        drawn = torch.Generator().manual_seed(7919 * (other + 1) + seed)
        return torch.randn(count, n, generator=drawn, dtype=torch.float64)

    def repeated(count: int, other: int) -> Tensor:
        half = rows(count, other)[:, : n - n // 2]
        return torch.cat([half[:, : n // 2], half], 1)

    def still(count: int, other: int) -> Tensor:
        kept = rows(count, other)
        kept[:, ::2] = x[:, ::2]
        return kept

    def population(name: str, hard: bool, model: Model, x: Tensor, count: int, **more: Any) -> Game:
        drawn = more.get("drawn", rows)
        return Game(name, hard, model, x, drawn(count, 0), drawn)

    yield Game("linear", False, linear, x, zero)
    yield Game("products of two", False, quadratic, x, zero)
    yield Game("smooth", False, smooth, x, zero)
    yield Game("maximum", False, lambda z: z.double().amax(1), x.abs(), zero)
    yield population("background of 100", False, smooth, x, 100)
    yield population("background of 20", False, smooth, x, 20)
    yield Game("constant", True, lambda z: 5 + 0 * z[:, 0], x, zero)
    yield population("two background rows", True, smooth, x, 2)
    yield population("heavy tails", True, lambda z: torch.exp(linear(z)), 1.5 * x, 5)
    yield Game("saturated", True, lambda z: torch.sigmoid(20 * smooth(z)), x, zero)
    yield population("unlikely", True, lambda z: torch.sigmoid(8 * linear(z) - 20), one, 5)
    twice = torch.cat([x[:, : n // 2], x[:, : n - n // 2]], 1)
    yield population("duplicate columns", True, smooth, twice, 8, drawn=repeated)
    yield population("constant columns", True, smooth, x, 8, drawn=still)
    yield Game("one interaction", True, lambda z: z[:, 0] * z[:, 1], x, zero)
    yield Game("parity", True, lambda z: 1 - 2 * (z.sum(1) % 2), one, zero)
    yield Game("all or nothing", True, lambda z: (z.sum(1) > n - 0.5).double(), one, zero)
    yield Game("all but one", True, lambda z: (z.sum(1) > n - 1.5).double(), one, zero)
    yield Game("baseline far out", True, smooth, x, zero + 1e4)
    level = float(smooth(one) - smooth(zero))
    yield Game("no change of score", True, lambda z: smooth(z) - level * z.mean(1), one, zero)
    yield Game("half precision", True, lambda z: smooth(z).to(torch.float16), x.half(), zero.half())
    yield population("steps", True, lambda z: (smooth(z) > 0.3).double(), x, 3)


def coalition_cases(seeds: int) -> Iterator[Case]:
    """Every method of coalitions on every game, at budgets that do and do not suffice."""
    for seed in range(seeds):
        for game in games(8, seed):
            yield from _shapley(game, seed)
        for game in games(10, 100 + seed):
            for width in (None, 0.5, 0.25, 0.15):
                method = whyglass.LIME(width=width, budget=400, seed=seed)
                real = 0.75 * 10**0.5 if width is None else width
                label = game.name if width is None else f"{game.name}, narrow kernel"
                hard = game.hard or width is not None
                poor = game.unexplained(real) > POOR_FIT
                yield _case(
                    method,
                    game,
                    lambda g, w=real: g.regression(w),
                    label,
                    hard,
                    {"fit"} if poor else set(),
                )
        for game in games(4, 200 + seed):
            yield from _several_rows(game, seed)
    yield from _retrained(seeds)


def _case(
    method: whyglass.Method,
    game: Game,
    truth: Callable[[Game], Tensor],
    setting: str = "",
    hard: bool | None = None,
    deserved: Set[str] = frozenset(),
) -> Case:
    """`truth` of a game gives the values of the method."""
    baseline = game.baseline
    if method.baseline_is == "background" and isinstance(baseline, Tensor):
        baseline = whyglass.Background(baseline)
    arguments = {} if method.baseline_is == "unused" else {"baseline": baseline}
    others: list[Callable[[], Tensor]] = []
    if game.drawn is not None:
        others = [
            lambda s=seed: truth(game.over(len(game.rows), s)) for seed in range(1, 1 + OTHERS)
        ]
    return Case(
        method,
        setting or game.name,
        game.hard if hard is None else hard,
        game.model,
        game.x,
        lambda: truth(game),
        arguments,
        deserved=deserved,
        population=None if game.drawn is None else lambda: truth(game.over(POPULATION, 0)),
        other_backgrounds=others,
    )


def _shapley(game: Game, seed: int) -> Iterator[Case]:
    for budget in (100, 300):
        settings: dict[str, Any] = {"budget": budget, "seed": seed}
        for kind in (
            whyglass.PermutationShapley,
            whyglass.KernelSHAP,
            whyglass.RegressionAdjustedShapley,
        ):
            yield _case(kind(**settings), game, Game.shapley)
        yield _case(whyglass.Owen(hierarchy=TREE, **settings), game, lambda one: one.owen(TREE))
    for method in (
        whyglass.ExactShapley(),
        whyglass.LinearSHAP(),
        whyglass.LowOrderSHAP(order=2),
        whyglass.LowOrderSHAP(order=3),
    ):
        yield _case(method, game, Game.shapley)
    if len(game.rows) == 1:
        yield _case(whyglass.MaxSHAP(), game, Game.shapley)
        yield _case(whyglass.Occlusion(window=1), game, Game.alone)


def _several_rows(game: Game, seed: int) -> Iterator[Case]:
    if game.drawn is not None:
        # Its standard errors are those of the population's mean.
        whole = game.over(POPULATION, 0)
        yield _case(whyglass.FeaturePermutation(), game, lambda _: whole.alone())
    if len(game.rows) <= 5:
        method = whyglass.QII(budget=200, seed=seed)
        yield _case(method, game, Game.independent)
    yield _case(whyglass.QII(influence="unary", budget=200, seed=seed), game, Game.alone)


class LeastSquares:
    """An estimator that is fitted in closed form, of least norm where columns repeat."""

    def fit(self, data: np.ndarray, labels: np.ndarray) -> None:
        self.mean, self.middle = data.mean(0), labels.mean()
        self.slopes = np.linalg.pinv(data - self.mean) @ (labels - self.middle)

    def predict(self, data: np.ndarray) -> np.ndarray:
        return self.middle + (data - self.mean) @ self.slopes


def _retrained(seeds: int) -> Iterator[Case]:
    for seed in range(4 * seeds):
        generator = torch.Generator().manual_seed(300 + seed)
        data = torch.randn(12, 4, generator=generator, dtype=torch.float64)
        setting = ("easy", "duplicate columns", "constant columns", "few rows")[seed % 4]
        if setting == "duplicate columns":
            data[:, 1] = data[:, 0]
        elif setting == "constant columns":
            data[:, 2] = 1.0
        elif setting == "few rows":
            data = data[:3]
        labels = data @ torch.randn(4, generator=generator, dtype=torch.float64)
        x = torch.randn(1, 4, generator=generator, dtype=torch.float64)
        model = whyglass.Retrained(LeastSquares(), data, labels)

        def refit(z: Tensor, data: Tensor = data, labels: Tensor = labels) -> Tensor:
            scores: list[float] = []
            for row in z.numpy():
                present = ~np.isnan(row)
                estimator = LeastSquares()
                estimator.fit(data.numpy()[:, present], labels.numpy())
                absent = float(labels.mean())
                scores.append(
                    float(estimator.predict(row[None, present])[0]) if present.any() else absent
                )
            return torch.tensor(scores, dtype=torch.float64)

        game = Game(setting, seed % 4 > 0, refit, x, torch.full_like(x, torch.nan))
        yield Case(whyglass.ShapleyRegression(), setting, game.hard, model, x, game.shapley)
