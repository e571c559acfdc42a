"""Intervals of every method with standard errors, where they are hard to get right.

Of all values of a case, 90 in 100 lie within 1.96 standard errors of the truth, or the row's verdict is
not a pass. Truth is enumeration where the method's budget can pay for that, and else a run so long that
its own error hardly counts. Errors below a thousandth of a row's values are no matter. In every case
the draws show what is hard about it: nothing can tell of what no draw has shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.contract.cases import fields
from tests.contract.hard import SCORES, games, images, rows
from whyglass import METHODS, Background, Explanation, Method

SEEDS = range(1, 21)
# It fits a surrogate for each row.
SLOW = {"regression-adjusted-shapley": range(1, 4)}
PLAYERS = 8


@dataclass(frozen=True)
class Case:
    """One method where it is hard: an explanation for each seed, and one for the truth."""

    explain: Callable[[int], Explanation]
    truth: Callable[[], Explanation]
    seeds: range = SEEDS


def is_sampled(kind: type[Method]) -> bool:
    """Whether its values depend on draws, by its own seed or by the rows of a background."""
    own = fields(kind)
    return bool("seed" in own and {"samples", "budget"} & own) or kind.baseline_is == "background"


def passed(explanation: Explanation) -> Tensor:
    """(B,) whether every check of a row passes.

    That of the background is of another error, save where it is the only one.
    """
    own = [check for check in explanation.checks if check.name != "background"]
    checks = [
        torch.tensor(check.rows) <= check.tolerance
        if check.rows
        else torch.full((len(explanation),), check.verdict == "pass")
        for check in own or explanation.checks
    ]
    return torch.stack(checks).all(0)


def believed_and_wrong(case: Case) -> float:
    """Share of the values that are outside their interval in a row that passes."""
    truth = case.truth()
    size = flat(truth.values).norm(dim=1, keepdim=True)
    shares: list[Tensor] = []
    for seed in case.seeds:
        found = case.explain(seed)
        error = (flat(found.values) - flat(truth.values)).abs()
        spread = (flat(found.std_error) ** 2 + flat(truth.std_error) ** 2).sqrt()
        wrong = error > 1.96 * spread + 1e-3 * size + 1e-12
        shares.append((wrong & passed(found)[:, None]).double().mean())
    return float(torch.stack(shares).mean())


def flat(values: Any) -> Tensor:
    first = values[0] if isinstance(values, tuple) else values
    return first.flatten(1).double()


def on_games(kind: type[Method], **settings: Any) -> dict[str, Case]:
    """All games of coalitions at once, a row each."""
    tables = torch.stack(list(games(PLAYERS).values()))
    x = torch.ones(len(tables), PLAYERS).double(), torch.arange(len(tables))[:, None]

    def model(z: Tensor, game: Tensor) -> Tensor:
        return tables[game[:, 0], ((z > 0.5).long() << torch.arange(PLAYERS)).sum(1)]

    return {
        "games": Case(
            lambda seed: kind(budget=110, seed=seed, **settings)(model, x),
            lambda: kind(budget=30_000, **settings)(model, x),
            SLOW.get(kind.name, SEEDS),
        )
    }


def on_background(kind: type[Method]) -> dict[str, Case]:
    """A background of three rows, and of forty."""

    def case(score: Any, count: int, budget: int) -> Case:
        x, data = rows(2, 1), Background(rows(count, 2))
        return Case(
            lambda seed: kind(budget=budget, seed=seed)(score, x, baseline=data),
            lambda: kind(budget=30_000)(score, x, baseline=data),
            SLOW.get(kind.name, SEEDS),
        )

    return {
        f"{name}, {count} rows": case(score, count, budget)
        for name, score in SCORES.items()
        for count, budget in ((3, 70), (40, 140))
    }


def on_samples(
    kind: type[Method], scores: dict[str, Any], x: Tensor, **given: Any
) -> dict[str, Case]:
    """Few samples, and more."""

    def case(score: Any, samples: int, truth: Callable[[], Explanation]) -> Case:
        return Case(
            lambda seed: kind(samples=samples, seed=seed)(score, x, **given), truth, SEEDS[:12]
        )

    long = {
        name: cache(lambda score=score: kind(samples=4096)(score, x, **given))
        for name, score in scores.items()
    }
    return {
        f"{name}, {samples} samples": case(score, samples, long[name])
        for name, score in scores.items()
        for samples in (8 if x.dim() < 4 else 16, 32, 100)
    }


def on_populations(kind: type[Method]) -> dict[str, Case]:
    """A background drawn from a population of a thousand rows."""
    population = rows(1000, 3)

    def explain(score: Any, data: Tensor) -> Explanation:
        return kind()(score, rows(3, 1), baseline=Background(data))

    def case(score: Any, count: int) -> Case:
        def drawn(seed: int) -> Explanation:
            order = torch.randperm(1000, generator=torch.Generator().manual_seed(seed))
            return explain(score, population[order[:count]])

        return Case(drawn, lambda: explain(score, population))

    return {
        f"{name}, {count} rows": case(score, count)
        for name, score in SCORES.items()
        for count in (1, 3, 12, 40)
    }


def cases(kind: type[Method]) -> dict[str, Case]:
    """The hard cases that suit a method, by what it draws."""
    own = fields(kind)
    if "budget" in own:
        found = on_background(kind)
        if kind.baseline_is != "background":
            found |= on_games(kind)
        if "width" in own:
            narrow = [on_games(kind, width=width) for width in (1.0, 0.5, 0.3, 0.15)]
            found |= {f"games, narrow {i}": case["games"] for i, case in enumerate(narrow)}
        return found
    if "samples" in own:
        if "images" in kind.needs:
            x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 2 + 0.5
            return on_samples(kind, images(), x.double())
        data = {"baseline": Background(rows(10, 2))} if kind.baseline_is == "background" else {}
        return on_samples(kind, SCORES, rows(6, 1), **data)
    return on_populations(kind)


SAMPLED = [
    pytest.param(kind, id=name)
    for name, kind in METHODS.items()
    if is_sampled(kind) and "retraining" not in kind.needs
]


@pytest.mark.parametrize("kind", SAMPLED)
def test_intervals_cover_or_the_verdict_is_no_pass(kind: type[Method]) -> None:
    wrong = {name: believed_and_wrong(case) for name, case in cases(kind).items()}
    assert not {name: share for name, share in wrong.items() if share > 0.1}
