"""Functions of numpy arrays as models: scikit-learn, a flaky service."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whyglass import (
    METHODS,
    Background,
    BadInput,
    ExactShapley,
    NumpyModel,
    Occlusion,
    Saliency,
    Unsupported,
    explain,
)

X = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 2.0]])


def test_a_pipeline_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    data = generator.normal(size=(80, 3))
    fitted = make_pipeline(StandardScaler(), LogisticRegression())
    fitted.fit(data, data[:, 0] - data[:, 2] > 0)
    x = X.double()
    found = ExactShapley()(NumpyModel(fitted.predict_proba), x, target=1)
    whole = fitted.predict_proba(x.numpy())[:, 1] - fitted.predict_proba(np.zeros((1, 3)))[:, 1]
    torch.testing.assert_close(found.values.sum(1), torch.from_numpy(whole))
    linear = ExactShapley()(NumpyModel(fitted.decision_function), x).values
    slope = fitted[1].coef_[0] / fitted[0].scale_
    torch.testing.assert_close(linear, x * torch.from_numpy(slope))


class Flaky:
    """A service that fails now and then."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls = failures, 0

    def __call__(self, rows: Any) -> Any:
        self.calls += 1
        if self.calls <= self.failures:
            raise ConnectionResetError("try later")
        return rows.sum(1)


def test_a_service_is_asked_again() -> None:
    service = Flaky(2)
    found = NumpyModel(service, retries=2, wait=0.0)(X)
    assert found.tolist() == [3.5, 1.0]
    assert service.calls == 3
    with pytest.raises(ConnectionResetError):
        NumpyModel(Flaky(3), retries=2, wait=0.0)(X)
    with pytest.raises(ConnectionResetError):
        NumpyModel(Flaky(1))(X)


def test_other_errors_are_not_hidden() -> None:
    calls: list[int] = []

    def broken(rows: Any) -> Any:
        calls.append(len(rows))
        raise KeyError("column")

    with pytest.raises(KeyError):
        NumpyModel(broken, retries=5, wait=0.0)(X)
    assert len(calls) == 1


def test_what_it_returns() -> None:
    assert NumpyModel(lambda rows: (rows.sum(1) > 2).tolist())(X).tolist() == [1.0, 0.0]
    assert NumpyModel(lambda rows: rows.sum(1))(X).dtype == torch.float32
    with pytest.raises(BadInput, match="predict_proba"):
        NumpyModel(lambda rows: np.array(["cat"] * len(rows)))(X)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"predict": 3}, "function"), ({"retries": -1}, "retries"), ({"wait": -1.0}, "wait")],
)
def test_bad_arguments(given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        NumpyModel(**{"predict": np.sum} | given)


def test_who_can_explain_it() -> None:
    model = NumpyModel(lambda rows: rows[:, 0] * rows[:, 1])
    assert Occlusion()(model, X).values.tolist() == [[2, 2, 0], [0, 0, 0]]
    with pytest.raises(Unsupported, match="no gradients"):
        Saliency()(model, X)


class Mixed(nn.Module):
    """A network whose last layer computes in numpy."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.tanh(self.linear(x).numpy()))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x.numpy()[:, :2],
        lambda x: np.asarray(x)[:, :2],
        lambda x: torch.from_numpy(np.tanh((x * 2).numpy())),
        Mixed().eval(),
    ],
    ids=["returns", "takes", "inside", "module"],
)
@pytest.mark.parametrize(
    "name", [name for name in METHODS if METHODS[name].needs in ((), ("gradients",))]
)
def test_numpy_inside_a_model_has_no_gradient(model: Any, name: str) -> None:
    """The error of torch is told as ours, whose way out works; methods without gradients run."""
    background = METHODS[name].baseline_is == "background"
    options: dict[str, Any] = {"target": 1, "method": name}
    if background:
        options["baseline"] = Background(torch.randn(8, 4))
    x = torch.randn(2, 4)
    if METHODS[name].needs:
        with pytest.raises(
            Unsupported, match=r"no gradients.*method=.permutation-shapley"
        ) as refusal:
            explain(model, x, **options)
        assert "numpy" in str(refusal.value)
    else:
        explain(model, x, **options)
