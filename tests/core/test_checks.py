"""Completeness of changes near the rounding of the scores."""

from __future__ import annotations

import pytest
import torch

from whyglass.core.checks import completeness

ULP = 2.0**-23


@pytest.mark.parametrize(("off", "gap"), [(0.0, 0.0), (1.0, 0.0), (2.0, 0.1), (11.0, 1.0)])
def test_a_change_is_known_to_one_rounding_of_the_scores(off: float, gap: float) -> None:
    score, before = torch.tensor([1 + 10 * ULP]), torch.tensor([1.0])
    value = torch.tensor([[(10 + off) * ULP]], dtype=torch.float64)
    found = completeness((value,), score, before, 1e-3)
    assert found.measured == pytest.approx(gap, abs=1e-5)
    assert found.verdict == ("pass" if gap == 0 else "fail")


def test_nothing_is_excused_where_scores_are_nothing() -> None:
    zero = torch.zeros(1)
    assert completeness((torch.tensor([[1e-20]]),), zero, zero, 1e-3).verdict == "fail"
