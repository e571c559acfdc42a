"""The Shapley interaction index against its definition, exactly and by sampling."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.game.test_game import game_of
from tests.coalition.games import Worth, lookup, ones, random_table, worth_of
from tests.coalition.shapley.test_permutation_shapley import knotted
from tests.zoo.networks import ZOO
from whyglass import Background, BadInput, Several, interactions
from whyglass.coalition.shapley.interactions import _sampled


def naive(worth: Worth, n: int) -> Tensor:
    """Grabisch & Roubens (1999), the sum as it stands."""
    found = torch.zeros(n, n, dtype=torch.float64)
    for i, j in itertools.permutations(range(n), 2):
        rest = [p for p in range(n) if p not in (i, j)]
        for size in range(n - 1):
            weight = math.factorial(size) * math.factorial(n - size - 2) / math.factorial(n - 1)
            for chosen in itertools.combinations(rest, size):
                s = frozenset(chosen)
                gain = worth(s | {i, j}) - worth(s | {i}) - worth(s | {j}) + worth(s)
                found[i, j] += weight * gain
    return found


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 6), seed=st.integers(0, 1000))
def test_exact(n: int, seed: int) -> None:
    table = random_table(n, seed)
    found = interactions(lookup(table), ones(n))
    torch.testing.assert_close(found.values[0], naive(worth_of(table), n))
    assert not found.std_error.any()
    assert found.evaluations == 2**n


def test_one_player_and_products() -> None:
    assert interactions(lambda x: x[:, 0], ones(1)).values.tolist() == [[[0.0]]]
    found = interactions(lambda x: 3 * x[:, 0] * x[:, 1] * x[:, 2] - x[:, 2] * x[:, 3], ones(4))
    expected = torch.zeros(4, 4).double()
    for i, j, value in ((0, 1, 1.5), (0, 2, 1.5), (1, 2, 1.5), (2, 3, -1.0)):
        expected[i, j] = expected[j, i] = value
    torch.testing.assert_close(found.values[0], expected)


@pytest.mark.parametrize("columns", [5, 6])
@pytest.mark.parametrize("count", [1, 3])
def test_sampling_covers(columns: int, count: int) -> None:
    def model(x: Tensor) -> Tensor:
        return knotted(x[:, :5]) + (x[:, -1] * x[:, 0] * x[:, 2]).sin()

    generator = torch.Generator().manual_seed(2)
    x, data = (torch.randn(c, columns, generator=generator).double() for c in (1, count))
    exact = interactions(model, x, baseline=Background(data), budget=10**6)
    assert not exact.std_error.any()
    off = ~torch.eye(columns, dtype=torch.bool)
    hits, total = 0, 0
    errors = []
    for seed in range(40):
        # Within a budget for all coalitions, which the function itself would spend on them.
        game = game_of(model, x, Background(data))
        values, said = _sampled(game, 30, seed)
        error = (values[0, :, :, 0] - exact.values[0])[off]
        hits += int((error.abs() <= 1.96 * said[0, :, :, 0][off] + 1e-12).sum())
        total += len(error)
        errors.append(error)
    assert 0.9 <= hits / total <= 0.99
    stacked = torch.stack(errors)
    assert (stacked.mean(0).abs() <= 5 * stacked.std(0) / 40**0.5 + 1e-12).all()


def test_budget_seed_and_symmetry() -> None:
    x = ones(12)
    model = lambda g: (g.cumsum(1) ** 2).sum(1).sin()  # noqa: E731  shorter so
    found = interactions(model, x, budget=1200, seed=3)
    assert found.evaluations <= 1200
    torch.testing.assert_close(found.values, found.values.transpose(1, 2))
    assert (found.std_error[0] > 0).sum() > 120
    again = interactions(model, x, budget=1200, seed=3)
    assert torch.equal(again.values, found.values)
    assert not torch.equal(interactions(model, x, budget=1200, seed=4).values, found.values)
    with pytest.raises(BadInput, match="530 evaluations"):
        interactions(model, x, budget=529)


def test_many_targets_and_groups() -> None:
    network = ZOO["gap-cnn"]
    both = interactions(network.make(), network.inputs(), target=Several(0, 2), players=2)
    assert both.values.shape == (3, 4, 4, 2)
    one = interactions(network.make(), network.inputs(), target=2, players=2)
    torch.testing.assert_close(both.values[..., 1], one.values)
