"""Completeness of changes near the rounding of the scores."""

from __future__ import annotations

import pytest
import torch

from whyglass.core.checks import completeness

ULP = 2.0**-23


@pytest.mark.parametrize(("off", "gap"), [(0.0, 0.0), (16.0, 0.0), (32.0, 0.1), (176.0, 1.0)])
def test_a_change_is_known_to_sixteen_roundings_of_the_scores(off: float, gap: float) -> None:
    score, before = torch.tensor([1 + 160 * ULP]), torch.tensor([1.0])
    value = torch.tensor([[(160 + off) * ULP]], dtype=torch.float64)
    found = completeness((value,), score, before, 1e-3)
    assert found.measured == pytest.approx(gap, abs=1e-4)
    assert found.verdict == ("pass" if gap == 0 else "fail")


@pytest.mark.parametrize(
    ("off", "bound", "verdict"),
    [
        (0.5, 0.0, "fail"),
        (0.5, 0.4, "fail"),
        (0.5, 0.6, "warn"),
        (5e-7, 6e-7, "pass"),
        (0, 9, "pass"),
    ],
)
@pytest.mark.parametrize("targets", [0, 3])
def test_a_gap_within_measured_rounding_warns_unless_it_is_negligible(
    off: float, bound: float, verdict: str, targets: int
) -> None:
    score = torch.ones((2, targets) if targets else 2, dtype=torch.float64)
    values = torch.zeros((2, 4, targets) if targets else (2, 4), dtype=torch.float64)
    values[1, 0] += off
    found = completeness((values,), score, score, 1e-3, torch.tensor([0.0, bound]))
    assert found.verdict == verdict
    assert ("float64 resolve more" in found.text) == (verdict == "warn")


def test_nothing_is_excused_where_scores_are_nothing() -> None:
    zero = torch.zeros(1)
    assert completeness((torch.tensor([[1e-20]]),), zero, zero, 1e-3).verdict == "fail"
