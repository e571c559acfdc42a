"""Owen values against all orders that a hierarchy allows."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.coalition.games import lookup, ones, random_table, worth_of
from whyglass import BadInput, ExactShapley, Owen, PermutationShapley
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.shapley.owen import halves


def orders(tree: Any) -> list[list[int]]:
    """Owen (1977): all orders in which no group is interrupted, on every level."""
    if isinstance(tree, int):
        return [[tree]]
    return [
        list(itertools.chain.from_iterable(parts))
        for branches in itertools.permutations(tree)
        for parts in itertools.product(*map(orders, branches))
    ]


def naive(table: Tensor, tree: Any, n: int) -> Tensor:
    worth, every = worth_of(table), orders(tree)
    total = torch.zeros(n, dtype=torch.float64)
    for order in every:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            total[player] += worth(before | {player}) - worth(before)
    return total / len(every)


TREES: list[Any] = [
    ((0, 1), (2, 3, 4)),
    ((0, (1, 2)), (3, 4)),
    (0, 1, (2, 3, 4)),
    (4, (3, (2, (1, 0)))),
]


@pytest.mark.parametrize("tree", TREES)
def test_all_allowed_orders(tree: Any) -> None:
    table = random_table(5, 1)
    expected = naive(table, tree, 5)
    found = Owen(hierarchy=tree, budget=6000)(lookup(table), ones(5))
    error = (found.values[0] - expected).abs()
    assert (error <= 4.5 * found.std_error[0] + 1e-12).all()
    assert error.norm() < 0.2 * expected.norm()
    torch.testing.assert_close(found.values.sum(1), table[-1:] - table[0])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_group_gets_what_it_would_get_as_one_player(seed: int) -> None:
    table = random_table(4, seed)
    found = Owen(hierarchy=((0, 1), (2, 3)), budget=2000)(lookup(table), ones(4)).values[0]
    whole = ExactShapley(players=(0, 0, 1, 1))(lookup(table), ones(4)).player_values[0]
    torch.testing.assert_close(torch.stack([found[:2].sum(), found[2:].sum()]), whole)


def test_one_group_is_no_group() -> None:
    table = random_table(6, 0)
    found = Owen(hierarchy=tuple(range(6)), budget=400)(lookup(table), ones(6))
    same = PermutationShapley(budget=400)(lookup(table), ones(6))
    torch.testing.assert_close(found.values, same.values)


def test_halves_of_a_table_and_an_image() -> None:
    assert halves(FeatureGroups(5, (torch.arange(5),))) == ((0, 1), (2, (3, 4)))
    image = FeatureGroups(8, (torch.arange(8).reshape(1, 2, 4),))
    assert halves(image) == (((0, 1), (4, 5)), ((2, 3), (6, 7)))
    two = FeatureGroups(3, (torch.arange(2), torch.tensor([2, -1])))
    assert halves(two) == [(0, 1), 2]


@pytest.mark.parametrize(
    "tree", [((0, 1), 2), (0, 1, 2, 3, 4), (0, 0, 1, 2), (("a", 1), 2, 3), (0.5,)]
)
def test_hierarchies_that_make_no_sense(tree: Any) -> None:
    with pytest.raises(BadInput, match="hierarchy"):
        Owen(hierarchy=tree)(lambda x: x.sum(1), ones(4))
