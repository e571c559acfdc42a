"""Degrees of freedom against their definition, and what they say of samples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whyglass.core.standard_errors import (
    LEAST_FREEDOM,
    NONE,
    SampledFeatures,
    degrees_of_freedom,
    freedom_check,
    mean_check,
    sampled_mean,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@settings(max_examples=20, deadline=None)
@given(draws=st.integers(3, 40), seed=st.integers(0, 1000), fitted=st.integers(0, 2))
def test_satterthwaite(draws: int, seed: int, fitted: int) -> None:
    """Twice the squared variance over the variance of the sum of its parts, one at a time."""
    squares = normal(draws, seed=seed) ** 2
    total, mean = float(squares.sum()), float(squares.mean())
    of_sum = sum((float(c) - mean) ** 2 for c in squares)
    expected = min(2 * total**2 / of_sum, draws - fitted)
    found = degrees_of_freedom(squares.sum(), (squares**2).sum(), draws, fitted)
    assert float(found) == pytest.approx(expected)


def test_normal_draws_have_as_many_as_there_are_and_a_lone_one_has_two() -> None:
    many = sampled_mean(normal(4000, 5), 0).freedom
    assert (many > 3000).all()
    lone = torch.zeros(50, 1).double()
    lone[7] = 1
    assert float(sampled_mean(lone, 0).freedom) == pytest.approx(2, rel=0.1)


def test_a_mean_leaves_out_what_was_not_drawn() -> None:
    draws = normal(9, 2, 3)
    draws[5:, 1] = math.nan
    mean = sampled_mean(draws, 0)
    torch.testing.assert_close(mean.values[1], draws[:5, 1].mean(0))
    torch.testing.assert_close(mean.errors[1], draws[:5, 1].std(0) / 5**0.5)
    torch.testing.assert_close(mean.errors[0], draws[:, 0].std(0) / 3)


def test_one_draw_or_as_many_unknowns_as_draws_tell_nothing() -> None:
    one = sampled_mean(normal(1, 2), 0)
    assert (one.freedom == NONE).all()
    assert mean_check(normal(1, 3, 2), "").verdict == "warn"
    fitted = degrees_of_freedom(torch.tensor(0.0), torch.tensor(0.0), 6, 6.0)
    assert float(fitted) == NONE
    assert float(degrees_of_freedom(torch.tensor(0.0), torch.tensor(0.0), 0, 6.0)) == math.inf


def test_the_figure_of_a_row_is_weighted_by_variances() -> None:
    values, errors = torch.ones(2, 3).double(), torch.tensor([[3.0, 1.0, 0.0], [1e-5] * 3]).double()
    freedom = torch.tensor([[4.0, 50.0, 2.0], [2.0] * 3]).double()
    check = freedom_check((values,), (errors,), (freedom,), False, "more rows")
    expected = ((9 / 8 + 1 / 100) / 10) ** 0.5
    assert check.rows == pytest.approx((expected, 0.0))
    assert check.verdict == "warn"
    assert check.tolerance == pytest.approx(1 / (2 * LEAST_FREEDOM) ** 0.5)
    assert check.text.endswith("more rows")


def test_features_are_spread_over_the_leaves_and_hold_every_draw() -> None:
    leaves = (
        torch.zeros(2, 3).double(),
        torch.zeros(2, 2, dtype=torch.long),
        torch.zeros(2).double(),
    )
    kept = SampledFeatures(leaves, 1, 4)
    assert kept.draws.shape == (4, 2, 4)
    drawn, rows = torch.tensor([0, 0, 3]), torch.tensor([0, 1, 1])
    made = normal(3, 3), torch.zeros(3, 2), normal(3, seed=1)
    kept.add(drawn, rows, made)
    torch.testing.assert_close(kept.draws[drawn, rows], torch.cat([made[0], made[2][:, None]], 1))
    assert kept.draws[1:3].isnan().all()
    large = SampledFeatures((torch.zeros(2, 100_000),), 1, 4)
    assert large.draws.shape[2] == 256
