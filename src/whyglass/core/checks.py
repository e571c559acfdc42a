"""Checks: named, measured properties of an explanation, each with its tolerance and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from whyglass.core.inputs import flat_sum

Verdict: TypeAlias = Literal["pass", "warn", "fail"]
# How large standard errors may be beside the values.
PRECISION = 0.25
VERDICTS: tuple[Verdict, ...] = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Check:
    """One property. `measured` is the worst row's figure, `rows` every row's (worst target)."""

    name: str
    measured: float
    tolerance: float
    verdict: Verdict
    text: str
    rows: tuple[float, ...] = ()


def completeness_gap(
    values: Sequence[Tensor], change: Tensor, known_to: Tensor | float = 0.0
) -> Tensor:
    r"""Relative gap |sum_i R_i - change| / max(|change|, sum_i |R_i| / 100), shaped as `change`.

    The second term keeps a change of nearly zero, where large values cancel, from looking broken. What
    the change itself is known to is no gap.
    """
    many = change.dim() == 2
    gap = ((flat_sum(values, many) - change.double()).abs() - known_to).clamp_min(0)
    size = flat_sum([value.abs() for value in values], many)
    return gap / torch.maximum(change.double().abs(), size / 100).clamp_min(1e-30)


# A network's score is off by about so many roundings; half precision is summed up in float32.
MANY = 16
ROUNDINGS = {torch.float64: MANY, torch.float32: MANY}
# A rounding error below this share of the score, or as many roundings of it, is no reason to warn.
NEGLIGIBLE = 1e-6


def completeness(
    values: Sequence[Tensor],
    score: Tensor,
    baseline_score: Tensor,
    tolerance: float,
    rounding: Tensor | float = 0.0,
    eps: float = 0.0,
) -> Check:
    """The values add up to the change of score from baseline to input, row by row.

    The change is known to 16 roundings of the larger score. `rounding` (B,) or (B, K) is how far
    rounding can move the sum, where a method measures that: a gap within it does not fail, and warns
    unless it is small beside the score, or within 16 roundings of it in the coarsest format that the
    pass met, of which `eps` is the relative spacing.
    """
    scale = torch.maximum(score.abs(), baseline_score.abs()).double()
    change = score.double() - baseline_score.double()
    bound = torch.as_tensor(rounding).to(scale)
    bound = bound[:, None] if bound.dim() < scale.dim() and bound.dim() else bound
    resolved = ROUNDINGS.get(score.dtype, 1) * torch.finfo(score.dtype).eps * scale
    known_to = resolved + torch.minimum(bound, max(NEGLIGIBLE, MANY * eps) * scale)
    gap = completeness_gap(values, change, known_to)
    rows = worst_target(gap)
    worst = max(rows)
    broken = completeness_gap(values, change, resolved + bound) > tolerance
    text = f"the values add up to the change of score within {worst:.1%} of it"
    verdict: Verdict = "pass" if worst <= tolerance else "fail"
    if verdict == "fail" and not bool(broken.any()):
        verdict = "warn"
        text += (
            f", and rounding can move their sum by {float(bound.max()):.1g}: a model and inputs in "
            "float64 resolve more"
        )
    return Check("completeness", worst, tolerance, verdict, text, rows)


FLAT = "the score is flat there, and integrated gradients can still explain it"


def not_flat(values: Sequence[Tensor], many: bool, meaning: str = FLAT) -> Check:
    """Warn where a map is zero everywhere, with what that means."""
    text = "every row has a value that is not zero"
    passed = Check("not flat", 0.0, 0.0, "pass", text, (0.0,) * len(values[0]))
    # Mostly the first column, or channel, reacts in every row, and that is soon seen.
    first = values[0].select(1, 0) if values[0].dim() > 1 + many else values[0]
    if first.all():
        return passed
    # A sum of absolute values is zero only if all of them are, in any precision.
    sizes = [
        value.abs().reshape(len(value), -1, value.shape[-1] if many else 1).sum(1)
        for value in values
    ]
    size = sum(sizes[1:], sizes[0])
    if size.all():
        return passed
    rows = tuple((size == 0).any(1).double().tolist())
    text = f"{sum(map(int, rows))} of {len(rows)} rows are zero everywhere: {meaning}"
    return Check("not flat", sum(rows) / len(rows), 0.0, "warn", text, rows)


def precision(
    values: Sequence[Tensor], errors: Sequence[Tensor], many: bool, tolerance: float
) -> Check:
    """How large the sampling error is beside the values."""
    rows = worst_target(relative_error(values, errors, many))
    worst = max(rows)
    return Check(
        "sampling error",
        worst,
        tolerance,
        "pass" if worst <= tolerance else "warn",
        f"the standard errors are {worst:.0%} of the values (Euclidean norms); four times the samples "
        "halve that",
        rows,
    )


def enough_background(values: Sequence[Tensor], errors: Tensor, size: int, many: bool) -> Check:
    """How far another background of as many rows would move the values; one row does not tell.

    `errors` (B,) or (B, K) are standard errors over the background: of the baseline's score, which the
    values add up to, or the Euclidean norm of those of the values.
    """
    length = flat_sum([value.double() ** 2 for value in values], many).sqrt().cpu()
    error = errors.double().cpu() if size > 1 else torch.full_like(length, torch.inf)
    rows = worst_target(torch.where(error > 0, error / length, 0.0))
    worst = max(rows)
    text = (
        f"another background of {size} rows would move the values by {worst:.0%} of them (one "
        "standard error, Euclidean norms); four times the rows halve that"
        if size > 1
        else "one background row does not tell how far another would move the values: give more"
    )
    return Check(
        "background",
        worst,
        PRECISION,
        "pass" if worst <= PRECISION else "warn",
        text,
        rows,
    )


def relative_error(values: Sequence[Tensor], errors: Sequence[Tensor], many: bool) -> Tensor:
    """|standard errors| / |values|, Euclidean norms over a row: (B,) or (B, K), zero for 0 / 0."""
    noise = flat_sum([error**2 for error in errors], many)
    size = flat_sum([value**2 for value in values], many)
    return torch.where(noise == 0, torch.zeros_like(noise), (noise / size).sqrt()).cpu()


def worst_target(figures: Tensor) -> tuple[float, ...]:
    """(B,) or (B, K) figures as one a row: the largest over targets."""
    return tuple((figures.amax(1) if figures.dim() == 2 else figures).tolist())


def together(parts: Sequence[tuple[Tensor, Sequence[Check]]], count: int) -> tuple[Check, ...]:
    """The checks of parts of a batch of `count` rows, each with its rows, as checks of the batch.

    A row without a figure, for it is in no part, has zero.
    """
    by_name: dict[str, list[tuple[Tensor, Check]]] = {}
    for rows, checks in parts:
        for check in checks:
            by_name.setdefault(check.name, []).append((rows, check))
    merged: list[Check] = []
    for same in by_name.values():
        figures = [0.0] * count
        for rows, check in same:
            for row, figure in zip(rows.tolist(), check.rows, strict=False):
                figures[row] = figure
        worst = max(
            (check for _, check in same), key=lambda c: (VERDICTS.index(c.verdict), c.measured)
        )
        merged.append(dataclasses.replace(worst, rows=tuple(figures) if worst.rows else ()))
    return tuple(merged)


def verdict(checks: Sequence[Check]) -> Verdict:
    """The worst verdict."""
    return VERDICTS[max((VERDICTS.index(check.verdict) for check in checks), default=0)]
