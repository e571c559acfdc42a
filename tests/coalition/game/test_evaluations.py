"""Evaluations made ready, and plans kept from call to call."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coalition.games import lookup, ones, random_table
from whyglass import LIME, KernelSHAP, PermutationShapley
from whyglass.coalition.game.evaluations import MOST_CACHED, Evaluations, cached_plan


@settings(deadline=None)
@given(
    n=st.integers(1, 40), size=st.integers(0, 60), count=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_each_evaluation_is_asked_once_and_put_in_place(
    n: int, size: int, count: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    coalitions = torch.rand(size, min(n, 3), generator=generator) < 0.5
    coalitions = coalitions[:, torch.arange(n) % 3 % coalitions.shape[1]]
    background_rows = torch.randint(count, (size,), generator=generator)
    made = Evaluations(coalitions, background_rows)
    inside = [
        (*row, at)
        for row, at in zip(coalitions.tolist(), background_rows.tolist(), strict=True)
        if 0 < sum(row) < n
    ]
    asked = [
        (*c, w)
        for c, w in zip(made.coalitions.tolist(), made.background_rows.tolist(), strict=True)
    ]
    assert len(asked) == len(set(asked))
    assert set(asked) == set(inside)
    # A worth that tells everything apart comes back at each evaluation's own place.
    code = torch.randn(n, generator=generator).double()
    scores = made.coalitions.double() @ code + 100 * made.background_rows
    result = made.expand(
        scores[None, :, None],
        code.sum().reshape(1, 1),
        100 * torch.arange(count).double()[None, :, None],
    )
    expected = coalitions.double() @ code + 100 * background_rows * (coalitions.sum(1) < n)
    torch.testing.assert_close(result[0, :, 0], expected)


def test_the_last_four_small_results_are_kept() -> None:
    made: list[int] = []

    @cached_plan
    def square(x: int) -> int:
        made.append(x)
        return x * x

    for x in (1, 2, 3, 4, 1, 2, 3, 4):
        assert square(1, x) == x * x
    assert made == [1, 2, 3, 4]
    assert square(1, 5) == 25
    assert square(1, 1) == 1
    assert made[4:] == [5, 1]
    for _ in range(2):
        square(MOST_CACHED + 1, 7)
    assert made[6:] == [7, 7]


def test_kept_plans_change_no_answer() -> None:
    """The same call again, and after calls with other tables, rows and a tolerance."""
    n, table = 7, random_table(7, 0)
    methods = (
        KernelSHAP(budget=100),
        KernelSHAP(budget=100, tol=0.3),
        KernelSHAP(budget=100, features=3),
        PermutationShapley(budget=100),
        PermutationShapley(budget=200, tol=0.3),
        LIME(budget=100),
        LIME(budget=100, tol=0.3),
        LIME(budget=100, regulariser="ridge"),
        LIME(budget=100, regulariser="lasso", features=3),
    )
    first = [method(lookup(table), ones(n)) for method in methods]
    for method in methods:
        method(lookup(random_table(7, 1)), ones(n, rows=3))
    for method, result in zip(methods, first, strict=True):
        again = method(lookup(table), ones(n))
        assert torch.equal(again.values, result.values), method
        assert torch.equal(again.std_error, result.std_error), method


def test_a_kernel_that_changes_is_asked_again() -> None:
    width = [10.0]

    def kernel(coalitions: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(~coalitions).sum(1) / width[0])

    table, method = random_table(6, 0), LIME(budget=40, kernel=kernel)
    before = method(lookup(table), ones(6)).values
    width[0] = 0.5
    after = method(lookup(table), ones(6)).values
    assert not torch.allclose(before, after)
