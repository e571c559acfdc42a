"""QII and feature permutation against the definitions, by loops over values drawn anew."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from tests.coalition.games import naive_shapley
from tests.coalition.shapley.test_permutation_shapley import knotted, rows
from whyglass import (
    QII,
    Background,
    BadInput,
    ExactShapley,
    FeaturePermutation,
    Saliency,
    group_disparity,
)


def anew(x: Tensor, data: Tensor, drawn: tuple[int, ...]) -> Tensor:
    """Datta et al. (2016), set QII: the mean score with features S independent, over all draws."""
    total = torch.zeros((), dtype=torch.float64)
    every = list(itertools.product(range(len(data)), repeat=len(drawn)))
    for choice in every:
        point = x.clone()
        for feature, row in zip(drawn, choice, strict=True):
            point[feature] = data[row, feature]
        total += knotted(point[None])[0]
    return total / len(every)


def test_unary() -> None:
    x, data = rows(2, 0), rows(4, 1)
    found = QII(influence="unary")(knotted, x, baseline=Background(data))
    for row, feature in itertools.product(range(2), range(5)):
        expected = knotted(x[row : row + 1])[0] - anew(x[row], data, (feature,))
        torch.testing.assert_close(found.values[row, feature], expected)
    assert not found.std_error.any()


def test_a_set_is_a_group_of_players() -> None:
    x, data = rows(1, 0), rows(3, 1)
    method = QII(influence="unary", players=(0, 0, -1, 1, -1), budget=9000)
    found = method(knotted, x, baseline=Background(data))
    for player, features in enumerate(((0, 1), (3,))):
        expected = knotted(x)[0] - anew(x[0], data, features)
        error = found.player_std_error[0, player]
        assert (found.player_values[0, player] - expected).abs() <= 4 * error + 1e-9
        assert error < 0.05


def test_shapley_of_independent_features() -> None:
    x, data = rows(1, 0), rows(2, 1)

    def worth(present: frozenset[int]) -> float:
        return float(anew(x[0], data, tuple(i for i in range(5) if i not in present)))

    exact = naive_shapley(worth, 5)
    joint = ExactShapley()(knotted, x, baseline=Background(data)).values[0]
    found = QII(budget=20000)(knotted, x, baseline=Background(data))
    assert ((found.values[0] - exact).abs() <= 4 * found.std_error[0]).all()
    # The whole rows of a background are another question, and this budget tells them apart.
    assert ((found.values[0] - joint).abs() > 6 * found.std_error[0]).any()
    assert found.checks[0].name == "completeness"
    assert found.checks[0].verdict == "pass"


@pytest.mark.slow
def test_intervals_cover() -> None:
    x, data = rows(1, 0), rows(2, 1)
    exact = QII(budget=200_000, seed=5)(knotted, x, baseline=Background(data)).values
    hits = torch.zeros(5)
    for seed in range(300):
        found = QII(budget=900, seed=1000 + seed)(knotted, x, baseline=Background(data))
        hits += ((found.values - exact).abs() <= 1.96 * found.std_error)[0]
    rate = hits / 300
    assert ((rate >= 0.91) & (rate <= 0.98)).all(), rate


def test_what_is_refused() -> None:
    data = Background(torch.zeros(3, 5))
    with pytest.raises(BadInput, match="influence"):
        QII(influence="other")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="tol"):
        QII(influence="unary", tol=0.1)
    with pytest.raises(BadInput, match="19 evaluations"):
        QII(budget=18)(lambda x: x.sum(1), torch.ones(1, 5), baseline=data)
    with pytest.raises(BadInput, match="background"):
        QII()(lambda x: x.sum(1), torch.ones(1, 5), baseline=0.0)


class TestDisparity:
    """Between a group and the rest."""

    def test_adds_up_to_the_difference_of_mean_scores(self) -> None:
        x = rows(12, 3)
        group = x[:, 0] > 0
        found = group_disparity(ExactShapley()(knotted, x, baseline=Background(x)), group)
        scores = knotted(x)
        torch.testing.assert_close(found.total, scores[group].mean() - scores[~group].mean())
        torch.testing.assert_close(found.values.sum(), found.total)
        assert not found.std_error.any()

    def test_unary_is_the_definition(self) -> None:
        """Drawing a feature anew for everybody, and the disparity before less that after."""
        x = rows(6, 3)
        group = torch.tensor([True, True, False, False, False, True])
        explained = QII(influence="unary")(knotted, x, baseline=Background(x))
        found = group_disparity(explained, group)
        for feature in range(5):
            after = torch.stack([anew(row, x, (feature,)) for row in x])
            difference = knotted(x) - after
            expected = difference[group].mean() - difference[~group].mean()
            torch.testing.assert_close(found.values[feature], expected)

    def test_what_is_refused(self) -> None:
        explained = ExactShapley()(knotted, rows(3, 0))
        for group in (torch.ones(3), torch.ones(2, dtype=torch.bool), torch.ones(3).bool()):
            with pytest.raises(BadInput, match="group"):
                group_disparity(explained, group)
        with pytest.raises(BadInput, match="players"):
            group_disparity(Saliency()(knotted, rows(3, 0)), torch.tensor([True, False, True]))


def test_feature_permutation() -> None:
    """Fisher et al. (2019), with every row of the data for each row explained."""
    x, data = rows(3, 0), rows(6, 1)
    found = FeaturePermutation()(knotted, x, baseline=Background(data))
    falls = torch.zeros(3, 5, 6, dtype=torch.float64)
    for row, feature, other in itertools.product(range(3), range(5), range(6)):
        point = x[row].clone()
        point[feature] = data[other, feature]
        falls[row, feature, other] = (knotted(x[row : row + 1]) - knotted(point[None]))[0]
    torch.testing.assert_close(found.values, falls.mean(2))
    torch.testing.assert_close(found.std_error, falls.std(2) / 6**0.5)
    assert found.evaluations == 3 * (1 + 6 + 5 * 6)
    groups = FeaturePermutation(players=(0, 0, 1, 1, 1))(knotted, x, baseline=Background(data))
    both = torch.stack([torch.cat([row[:2], x[0, 2:]]) for row in data])
    torch.testing.assert_close(groups.player_values[0, 0], (knotted(x)[0] - knotted(both)).mean())
