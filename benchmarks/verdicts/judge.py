"""One explanation beside its truth: was the verdict right?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from whyglass import Explanation, Method, WhyglassError
from whyglass.core.checks import Verdict

Outcome = Literal["right pass", "false pass", "right alarm", "false alarm", "refused"]

# Checks that state how exact the values are; their tolerance is the one that an answer is held to.
ACCURACY = ("sampling error", "quadrature error", "completeness", "conservation")
WITHOUT_TOLERANCE = 0.01
SIGMAS = 3.0
# Roundings that a pass through a small network adds up.
ROUNDINGS = 16
# Backgrounds that differ by more than this share of the values are too small.
TOO_SMALL = 0.25
# An answer this close is right, whatever its standard error.
EXACT = 1e-9
# With which an estimate that was right although it warned is made again.
SEEDS = 16
CONSERVED, CANCELLED = 0.01, 100.0


@dataclass(frozen=True)
class Case:
    """A method on one row of a model whose right values are known.

    `promises` names the property that the method's verdict speaks of beside the values themselves:
    that relevance adds up to the score without much cancelling. `deserved` are checks whose warning is
    right: the property that they name does not hold. Where the background was drawn, `population` and
    `other_backgrounds` are the values over very many rows and over as many others.
    """

    method: Method
    setting: str
    hard: bool
    model: Callable[..., Any]
    inputs: Any
    truth: Callable[[], Tensor]
    arguments: dict[str, Any] = field(default_factory=dict[str, Any])
    promises: Literal["values", "conservation"] = "values"
    deserved: Set[str] = frozenset()
    population: Callable[[], Tensor] | None = None
    other_backgrounds: Sequence[Callable[[], Tensor]] = ()


@dataclass(frozen=True)
class Judgement:
    """What a case came to; `error` is relative, `sigmas` counts the stated standard errors."""

    method: str
    setting: str
    hard: bool
    verdict: Verdict | Literal["refused"]
    outcome: Outcome
    error: float
    sigmas: float | None
    tolerance: float
    checks: tuple[str, ...]


def judge(case: Case) -> Judgement:
    """Run the method and hold its verdict against the truth."""
    name = case.method.name
    try:
        explanation = case.method(case.model, case.inputs, **case.arguments)
        truth = case.truth().double().flatten()
    except WhyglassError as error:
        return Judgement(
            name, case.setting, case.hard, "refused", "refused", 0.0, None, 0.0, (str(error),)
        )
    score = float(explanation.score.double().abs().max())
    rounding = ROUNDINGS * torch.finfo(_dtype(case)).eps
    least = max(rounding, EXACT) * score
    off, size = _distance(explanation, truth, least)
    tolerance = max(_stated(explanation), rounding)
    sigmas = None
    if explanation.std_error is not None and (errors := _flat(explanation.std_error)).any():
        sigmas = max(off - rounding * max(size, score), 0.0) / float(errors.norm())
    right = off <= tolerance * size
    if explanation.verdict == "pass":
        wrong = not right if sigmas is None else sigmas > SIGMAS and off > EXACT * size
        outcome: Outcome = "false pass" if wrong else "right pass"
    else:
        warned = {check.name for check in explanation.checks if check.verdict != "pass"}
        deserved = bool(warned & case.deserved) or (warned == {"not flat"} and not truth.any())
        deserved = deserved or not _promise(case, truth, score)
        deserved = deserved or ("background" in warned and _small_background(case))
        deserved = deserved or not _adds_up(case, explanation, truth, tolerance * size)
        deserved = deserved or (
            hasattr(case.method, "seed") and _by_luck(case, truth, least, tolerance)
        )
        outcome = "false alarm" if right and not deserved else "right alarm"
    told = tuple(f"{c.verdict}: {c.name} {c.measured:.3g}" for c in explanation.checks)
    return Judgement(
        name,
        case.setting,
        case.hard,
        explanation.verdict,
        outcome,
        off / size,
        sigmas,
        tolerance,
        told,
    )


def _distance(explanation: Explanation, truth: Tensor, least: float) -> tuple[float, float]:
    """How far the values are from the truth, and how large that is, `least` or more.

    Levels count from their mean.
    """
    values = _flat(explanation.values)
    size = (truth - truth.mean() if explanation.levels else truth).norm()
    return float((values - truth).norm()), max(float(size), least, 1e-30)


def _adds_up(case: Case, explanation: Explanation, truth: Tensor, within: float) -> bool:
    """Whether the values have the right sum, where their method promises one."""
    promised = "completeness" in case.method.axioms
    return not promised or float((_flat(explanation.values).sum() - truth.sum()).abs()) <= within


def _small_background(case: Case) -> bool:
    """Whether backgrounds of that size differ from the population, in root mean square, too much."""
    if case.population is None:
        return False
    whole = case.population().double().flatten()
    squares = [
        float((other().double().flatten() - whole).norm()) ** 2 for other in case.other_backgrounds
    ]
    typical = (sum(squares) / len(squares)) ** 0.5
    return typical > TOO_SMALL * float(whole.norm())


def _promise(case: Case, truth: Tensor, score: float) -> bool:
    """Whether the property that the verdict speaks of holds of the right values."""
    if case.promises == "values":
        return True
    size = float(truth.abs().sum())
    gap = abs(abs(float(truth.sum())) - score)
    return gap <= CONSERVED * max(score, size / 100) and size <= CANCELLED * score


def _by_luck(case: Case, truth: Tensor, least: float, tolerance: float) -> bool:
    """Whether other seeds are further off, in root mean square, than the tolerance."""
    squares = 0.0
    for seed in range(1000, 1000 + SEEDS):
        method = dataclasses.replace(case.method, seed=seed)
        explanation = method(case.model, case.inputs, **case.arguments)
        off, size = _distance(explanation, truth, least)
        squares += (off / size) ** 2
    return (squares / SEEDS) ** 0.5 > tolerance


def _stated(explanation: Explanation) -> float:
    for name in ACCURACY:
        for check in explanation.checks:
            if check.name == name:
                return check.tolerance if name != "completeness" else max(check.tolerance, 1e-3)
    return WITHOUT_TOLERANCE


def _flat(values: Any) -> Tensor:
    leaves = [values] if isinstance(values, Tensor) else list(values)
    return torch.cat([leaf.detach().double().cpu().flatten() for leaf in leaves])


def _dtype(case: Case) -> torch.dtype:
    leaves = [case.inputs] if isinstance(case.inputs, Tensor) else list(case.inputs)
    return next(leaf.dtype for leaf in leaves if leaf.is_floating_point())
