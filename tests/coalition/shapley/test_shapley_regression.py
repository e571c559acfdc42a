"""Shapley regression values against refits one by one, and where a closed form is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.coalition.games import naive_shapley
from whyglass import BadInput, Legend, Retrained, ShapleyRegression, explain, r_squared_shares


class LeastSquares:
    """With an intercept. Counts its fits over all copies."""

    def __init__(self) -> None:
        self.fits: list[int] = []

    def __deepcopy__(self, memo: Any) -> LeastSquares:
        made = LeastSquares()
        made.fits = self.fits
        return made

    def fit(self, data: Any, labels: Any) -> None:
        self.fits.append(data.shape[1])
        whole = np.column_stack([np.ones(len(data)), data])
        self.slopes = np.linalg.lstsq(whole, labels, rcond=None)[0]

    def predict(self, data: Any) -> Any:
        return np.column_stack([np.ones(len(data)), data]) @ self.slopes


class Frequencies:
    """Of the classes among rows with the sign of the first column."""

    def fit(self, data: Any, labels: Any) -> None:
        self.rows, self.labels = data, labels

    def predict(self, data: Any) -> Any:
        raise AssertionError("probabilities are asked for")

    def predict_proba(self, data: Any) -> Any:
        names = np.unique(self.labels)
        same = (data[:, None, 0] > 0) == (self.rows[None, :, 0] > 0)
        counts = (same[:, :, None] * (self.labels[:, None] == names)).sum(1) + 1.0
        return counts / counts.sum(1, keepdims=True)


def table(columns: int, rows: int = 30, seed: int = 0) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    data = generator.normal(size=(rows, columns)) @ generator.normal(size=(columns, columns))
    noise = generator.normal(size=rows)
    return data, 3 + data @ generator.normal(size=columns) + data[:, 0] * data[:, 1] + noise


def predicted(data: Any, labels: Any, rows: Any, columns: list[int]) -> Any:
    """By the normal equations of the columns less their means."""
    if not columns:
        return np.full(len(rows), labels.mean())
    middle = data[:, columns].mean(0)
    x = data[:, columns] - middle
    slopes = np.linalg.solve(x.T @ x, x.T @ (labels - labels.mean()))
    return labels.mean() + (rows[:, columns] - middle) @ slopes


def test_every_order_and_every_refit_one_by_one() -> None:
    data, labels = table(5)
    rows = np.random.default_rng(1).normal(size=(3, 5))
    estimator = LeastSquares()
    model = Retrained(estimator, data, torch.from_numpy(labels))
    found = explain(model, torch.from_numpy(rows), method="shapley-regression")
    for row in range(3):
        one = rows[row : row + 1]
        naive = naive_shapley(lambda s, r=one: predicted(data, labels, r, sorted(s))[0], 5)
        torch.testing.assert_close(found.values[row], naive)
    assert not found.std_error.any()
    assert found.baseline_score.tolist() == pytest.approx(3 * [labels.mean()])
    torch.testing.assert_close(found.values.sum(1), found.score - labels.mean())
    assert found.verdict == "pass"
    assert len(estimator.fits) == 2**5 - 1
    assert not hasattr(estimator, "slopes")


def test_orthogonal_columns_keep_their_slopes() -> None:
    """Then every refit has the same slopes, and a value is slope times distance from the mean."""
    x = np.linalg.qr(np.random.default_rng(2).normal(size=(20, 4)) - 0.3)[0]
    x = np.linalg.qr(x - x.mean(0))[0]
    data = x - x.mean(0) + 5
    labels = 1 + data @ [1.0, -2.0, 0.5, 0.0] + np.random.default_rng(3).normal(size=20)
    slopes = (data - 5).T @ (labels - labels.mean())
    model, rows = Retrained(LeastSquares(), data, labels), torch.randn(2, 4).double()
    found = ShapleyRegression()(model, rows)
    torch.testing.assert_close(found.values, torch.from_numpy(slopes) * (rows - 5))
    shares = slopes**2 / ((labels - labels.mean()) ** 2).sum()
    torch.testing.assert_close(r_squared_shares(model), torch.from_numpy(shares))


def test_of_two_copies_of_a_column_both_get_half() -> None:
    data, labels = table(2)
    twice = np.column_stack([data, data[:, 1]])
    rows = torch.tensor([[0.5, -1.0, -1.0]]).double()
    found = ShapleyRegression()(Retrained(LeastSquares(), twice, labels), rows).values[0]
    assert found[1] == pytest.approx(float(found[2]))
    alone = predicted(data, labels, rows.numpy(), [1])[0] - labels.mean()
    both = predicted(data, labels, rows.numpy(), [0, 1])[0]
    joined = both - predicted(data, labels, rows.numpy(), [0])[0]
    # First of its kind in half the orders; before the other column in one third of all, after in 1/6.
    assert float(found[1]) == pytest.approx(alone / 3 + joined / 6)


def test_shares_of_r_squared_by_every_order() -> None:
    data, labels = table(4)

    def worth(columns: frozenset[int]) -> float:
        off = labels - predicted(data, labels, data, sorted(columns))
        return 1 - float((off**2).sum() / ((labels - labels.mean()) ** 2).sum())

    found = r_squared_shares(Retrained(LeastSquares(), data, labels))
    torch.testing.assert_close(found, naive_shapley(worth, 4))
    assert (found > 0).all()


def test_a_group_of_columns_is_one_player() -> None:
    data, labels = table(4)
    rows = torch.ones(1, 4).double()
    found = ShapleyRegression(players=(0, 0, 1, -1))(Retrained(LeastSquares(), data, labels), rows)

    def worth(players: frozenset[int]) -> float:
        columns = [0, 1] * (0 in players) + [2] * (1 in players) + [3]
        return float(predicted(data, labels, rows.numpy(), columns)[0])

    torch.testing.assert_close(found.player_values[0], naive_shapley(worth, 2))


def test_probabilities_of_a_classifier_and_its_prior() -> None:
    data = np.array([[1.0, -1.0], [2.0, 1.0], [-1.0, 1.0], [3.0, -2.0], [-2.0, 3.0]])
    labels = np.array(["no", "yes", "yes", "no", "no"])
    model = Retrained(Frequencies(), data, labels)
    x = torch.tensor([[1.0, -3.0]]).double()
    found = ShapleyRegression()(model, x, target="no", legend=Legend(class_names=["no", "yes"]))

    def worth(columns: frozenset[int]) -> float:
        if not columns:
            return 3 / 5
        estimator, kept = Frequencies(), sorted(columns)
        estimator.fit(data[:, kept], labels)
        return float(estimator.predict_proba(x.numpy()[:, kept])[0, 0])

    torch.testing.assert_close(found.values[0], naive_shapley(worth, 2))
    assert found.baseline_score.item() == pytest.approx(0.6)


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_a_refit_serves_its_rows_in_whatever_batches(batch_size: Any) -> None:
    data, labels = table(4)
    estimator = LeastSquares()
    rows = torch.from_numpy(data[:7])
    found = ShapleyRegression()(Retrained(estimator, data, labels), rows, batch_size=batch_size)
    assert len(estimator.fits) == 2**4 - 1
    alone = ShapleyRegression()(Retrained(LeastSquares(), data, labels), rows[3:4])
    torch.testing.assert_close(found.values[3], alone.values[0])


def test_estimators_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import SVC

    data, labels = table(4)
    rows = torch.from_numpy(data[:2])
    ours = ShapleyRegression()(Retrained(LeastSquares(), data, labels), rows)
    theirs = ShapleyRegression()(Retrained(LinearRegression(), data, labels), rows)
    torch.testing.assert_close(theirs.values, ours.values)
    forest = RandomForestClassifier(5, random_state=0)
    found = ShapleyRegression()(Retrained(forest, data, labels > 3), rows, target=1)
    torch.testing.assert_close(found.values.sum(1), found.score - float((labels > 3).mean()))
    assert not hasattr(forest, "estimators_")
    with pytest.raises(BadInput, match="predict_proba"):
        ShapleyRegression()(Retrained(SVC(), data, labels > 3), rows)


GOOD = (LeastSquares(), np.eye(3), np.arange(3.0))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((lambda rows: rows, *GOOD[1:]), "no method fit"),
        ((LeastSquares, *GOOD[1:]), "is the class LeastSquares"),
        ((GOOD[0], np.ones(3), GOOD[2]), "table"),
        ((GOOD[0], np.ones((0, 3)), np.ones(0)), "table"),
        ((GOOD[0], np.array([["a", "b"]]), np.ones(1)), "numbers"),
        ((GOOD[0], GOOD[1], np.ones(4)), r"shape \(3,\)"),
        ((GOOD[0], np.full((3, 3), np.nan), GOOD[2]), "data of the training table must be finite"),
        ((GOOD[0], GOOD[1], np.array([1, np.inf, 2])), "labels of the training table"),
        ((GOOD[0], GOOD[1], np.array(["a", "b", "c"])), "labels of a regression"),
    ],
)
def test_what_is_no_estimator_with_its_table(arguments: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Retrained(*arguments)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.ones(1, 4), "3 columns"),
        (torch.tensor([[1.0, torch.nan, 0.0]]), "NaN"),
        (torch.ones(1, 3, dtype=torch.long), "floats"),
    ],
)
def test_rows_that_do_not_suit_the_table(inputs: Any, words: str) -> None:
    estimator = LeastSquares()
    with pytest.raises(BadInput, match=words):
        ShapleyRegression()(Retrained(estimator, *GOOD[1:]), inputs)
    assert not estimator.fits


def test_too_many_columns_are_refused_with_the_number_of_fits() -> None:
    estimator = LeastSquares()
    model = Retrained(estimator, np.ones((2, 20)), np.arange(2.0))
    with pytest.raises(BadInput, match="1,048,575 fits"):
        ShapleyRegression()(model, torch.ones(1, 20))
    with pytest.raises(BadInput, match="1,048,575 fits"):
        r_squared_shares(model)
    assert not estimator.fits
    assert ShapleyRegression(players=2)(model, torch.ones(1, 20)).evaluations == 4


def test_a_model_that_cannot_be_retrained_is_refused() -> None:
    with pytest.raises(BadInput, match=r"whyglass\.Retrained\(estimator"):
        ShapleyRegression()(lambda x: x.sum(1), torch.ones(1, 3))


def test_r_squared_is_of_a_regression_on_labels_that_vary() -> None:
    with pytest.raises(BadInput, match="classifier"):
        r_squared_shares(Retrained(Frequencies(), np.eye(2), np.arange(2)))
    with pytest.raises(BadInput, match="all the same"):
        r_squared_shares(Retrained(LeastSquares(), np.eye(2), np.ones(2)))


def test_what_the_estimator_refuses_names_the_columns() -> None:
    class Picky(LeastSquares):
        def __deepcopy__(self, memo: Any) -> Picky:
            return self

        def fit(self, data: Any, labels: Any) -> None:
            if data.shape[1] < 3:
                raise ValueError("too narrow")
            super().fit(data, labels)

    with pytest.raises(BadInput, match=r"columns \[0\]: too narrow"):
        ShapleyRegression()(Retrained(Picky(), *GOOD[1:]), torch.ones(1, 3))
