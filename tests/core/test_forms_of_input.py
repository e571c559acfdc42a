"""What people pass first: one row, arrays, an encoding, an estimator's method, token ids."""

from __future__ import annotations

from collections import UserDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.core.test_layer_calls import NAMES, make
from whyglass import (
    METHODS,
    Background,
    BadInput,
    ExactShapley,
    NumpyModel,
    Saliency,
    Unsupported,
    explain,
)

BY_SCORES = ["exact-shapley", "permutation-shapley", "kernel-shap", "lime", "occlusion"]


@pytest.fixture(autouse=True)
def _own_generator() -> Any:
    state = torch.get_rng_state()
    torch.manual_seed(0)
    yield
    torch.set_rng_state(state)


ROWS: dict[str, Any] = {
    "dense": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), (6,)),
    "one layer": (lambda: nn.Linear(6, 2), (6,)),
    "scalar": (lambda: nn.Linear(6, 1), (6,)),
    "convolution": (lambda: _cnn(nn.Flatten()), (3, 6, 6)),
    "normalised": (lambda: _cnn(nn.BatchNorm2d(4), nn.Flatten()), (3, 6, 6)),
    "signal": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2)
        ),
        (2, 9),
    ),
}


class TestOneRow:
    """A row without its batch axis is told, with the way out, which works."""

    @pytest.mark.parametrize("name", ["integrated-gradients", "saliency", "lime", "deeplift"])
    @pytest.mark.parametrize("row", ROWS)
    def test_is_told(self, row: str, name: str) -> None:
        build, shape = ROWS[row]
        model, x = build().double().eval(), torch.randn(shape).double()
        with pytest.raises(BadInput) as refusal:
            make(name)(model, x)
        for word in (f"shape {tuple(x.shape)}", "without its batch axis", "inputs[None]"):
            assert word in str(refusal.value)
        assert make(name)(model, x[None]).score.shape == (1,)

    def test_of_several_inputs(self) -> None:
        row = {"input_ids": torch.arange(4), "attention_mask": torch.ones(4).long()}
        with pytest.raises(BadInput, match=r"\(4,\), \(4,\) seem to be one row.*tensor\[None\]"):
            explain(Reader(), row)
        batch = {key: leaf[None] for key, leaf in row.items()}
        assert explain(Reader(), batch).score.shape == (1,)

    def test_of_inputs_of_different_lengths(self) -> None:
        with pytest.raises(BadInput, match=r"has 4 rows and .* has 3.*leaf\[None\]"):
            explain(nn.Bilinear(3, 4, 2), (torch.randn(3), torch.randn(4)))

    def test_other_errors_stay_as_they_are(self) -> None:
        """Too few columns fail with an axis more, too; and the model may run, and its gradient not."""
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            Saliency()(nn.Linear(6, 2), torch.randn(4, 5))

        def refuses_gradients(rows: Tensor) -> Tensor:
            if rows.requires_grad:
                raise ValueError("no gradients today")
            return rows.flatten(1).sum(1)

        with pytest.raises(ValueError, match="no gradients today"):
            Saliency()(refuses_gradients, torch.randn(4, 5))


def _cnn(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *middle, nn.Linear(64, 3))


class TestForms:
    def test_a_mapping_is_a_dict(self) -> None:
        model = nn.Bilinear(3, 4, 2)
        named = {"input1": torch.randn(2, 3), "input2": torch.randn(2, 4)}
        result = explain(model, UserDict(named), target=1)  # pyright: ignore[reportArgumentType]  users pass encodings
        torch.testing.assert_close(result.values, explain(model, named, target=1).values)

    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_arrays_are_tensors_of_the_type_of_the_model(self, dtype: Any) -> None:
        model, x = nn.Linear(3, 2), torch.randn(4, 3)
        expected = explain(model, x, target=1).values
        array = x.numpy().astype(dtype)
        for inputs in (array, [array], {"input": array}):
            result = explain(model, inputs, target=1)  # pyright: ignore[reportArgumentType]  users pass arrays
            leaves = result.values
            if isinstance(leaves, dict):
                leaves = leaves["input"]
            torch.testing.assert_close(leaves[0] if isinstance(leaves, tuple) else leaves, expected)

    @pytest.mark.parametrize(
        ("inputs", "way"),
        [
            ([[1.0, 2.0]], "torch.tensor(inputs)"),
            ({"input_ids": [[3, 4]]}, "return_tensors='pt'"),
            (SimpleNamespace(to_numpy=None), "torch.tensor(inputs.to_numpy())"),
        ],
    )
    def test_what_is_no_tensor_is_told_how_to_become_one(self, inputs: Any, way: str) -> None:
        with pytest.raises(BadInput) as refusal:
            explain(nn.Linear(2, 1), inputs)
        assert way in str(refusal.value)


class Estimator:
    """As in scikit-learn: it computes with arrays and has two outputs where told so."""

    def __init__(self, outputs: tuple[int, ...] = ()) -> None:
        self.outputs = outputs

    def fit(self, rows: Any) -> Estimator:
        return self

    def get_params(self) -> dict[str, Any]:
        return {}

    def predict_proba(self, rows: Any) -> Any:
        assert isinstance(rows, np.ndarray)
        logits = np.stack([rows[:, 0] * rows[:, 1], rows[:, 2] ** 2, rows.sum(1)], 1)
        if not self.outputs:
            return logits
        return [logits[:, :count] for count in self.outputs]


def _torch(rows: Tensor) -> Tensor:
    return torch.stack([rows[:, 0] * rows[:, 1], rows[:, 2] ** 2, rows.sum(1)], 1)


def by_array(rows: Any) -> Any:
    """A function that tensors have no methods for."""
    return Estimator().predict_proba(rows.astype(np.float64).copy())


def through_array(rows: Any) -> Any:
    """A function that tensors pass through, and come out as an array."""
    return Estimator().predict_proba(np.asarray(rows))


class TestFunctionsOfArrays:
    @pytest.mark.parametrize("name", BY_SCORES)
    @pytest.mark.parametrize(
        "model",
        [Estimator().predict_proba, by_array, through_array, NumpyModel(by_array)],
        ids=["method", "by array", "through array", "NumpyModel"],
    )
    def test_methods_on_scores_explain_them(self, model: Any, name: str) -> None:
        x = torch.randn(3, 3).double()
        result, expected = make(name)(model, x, target=0), make(name)(_torch, x, target=0)
        torch.testing.assert_close(result.values, expected.values)
        told = any("NumpyModel" in note for note in result.notes)
        assert told != isinstance(model, NumpyModel)
        extra = int(model is by_array)
        assert result.evaluations == expected.evaluations + extra

    @pytest.mark.parametrize("name", ["saliency", "integrated-gradients", "smoothgrad", "deeplift"])
    @pytest.mark.parametrize(
        "model",
        [Estimator().predict_proba, by_array, through_array, NumpyModel(by_array)],
        ids=["method", "by array", "through array", "NumpyModel"],
    )
    def test_methods_on_gradients_name_those_that_do(self, model: Any, name: str) -> None:
        with pytest.raises(Unsupported, match=r"no gradients.*permutation-shapley"):
            make(name)(model, torch.randn(2, 3).double(), target=0)

    def test_the_default_method_of_an_estimator_needs_no_gradients(self) -> None:
        result = explain(Estimator().predict_proba, torch.randn(2, 3).double(), target=0)
        assert result.method == "permutation-shapley"
        assert "permutation-shapley" in result.notes[0]

    def test_an_estimator_names_its_methods(self) -> None:
        estimator: Any = Estimator()
        estimator.predict = estimator.predict_proba
        with pytest.raises(BadInput, match="predict_proba"):
            explain(estimator, torch.randn(2, 3))

    @pytest.mark.parametrize("outputs", [(2, 2), (2, 3), (3, 3, 3)])
    def test_several_outputs_are_picked_by_number(self, outputs: tuple[int, ...]) -> None:
        """Also where the list of arrays would pass for one array of shape (B, B, C)."""
        x = torch.randn(len(outputs), 3).double()
        for model in (
            Estimator(outputs).predict_proba,
            NumpyModel(Estimator(outputs).predict_proba),
        ):
            with pytest.raises(BadInput, match=r"output=, one of 0, 1"):
                ExactShapley()(model, x)
            result = ExactShapley()(model, x, output=1, target=1)
            torch.testing.assert_close(result.values, ExactShapley()(_torch, x, target=1).values)


class Reader(nn.Module):
    """A classifier of token ids with the interface of transformers."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(12, 3)
        self.copy = nn.Embedding(12, 3)
        self.positions = nn.Embedding(9, 3)
        self.head = nn.Linear(3, 2)
        self.tied = tied
        if tied:
            self.copy.weight = self.words.weight

    def get_input_embeddings(self) -> nn.Module:
        return self.words

    def above(self, embedded: Tensor, mask: Tensor) -> Tensor:
        where = self.positions(torch.arange(embedded.shape[1]))
        return torch.tanh(self.head(((embedded + where) * mask[..., None]).mean(1)))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Any]:
        embedded = (self.copy if self.tied else self.words)(input_ids)
        return {"logits": self.above(embedded, attention_mask), "states": embedded, "cache": None}


class TestTokenIds:
    @pytest.mark.parametrize("mask_type", [torch.long, torch.float64])
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n].needs])
    def test_lead_to_the_embedding_and_the_logits(
        self, name: str, tied: bool, mask_type: torch.dtype
    ) -> None:
        model = Reader(tied).double().eval()
        mask = torch.ones(2, 4).to(mask_type)
        mask[1, 2:] = 0
        inputs = {"input_ids": torch.randint(12, (2, 4)), "attention_mask": mask}
        given = (
            {"baseline": Background(inputs)} if METHODS[name].baseline_is == "background" else {}
        )
        place = "copy" if tied else "words"
        result = make(name)(model, inputs, target=1, **given)
        expected = make(name)(model, inputs, at=place, output="logits", target=1, **given)
        torch.testing.assert_close(result.values, expected.values)
        assert result.at == expected.at == place
        assert any("'logits'" in note for note in result.notes)
        assert any(f"at='{place}'" in note for note in result.notes)
        assert len(result.notes) == len(expected.notes) + 2

    def test_are_explained_themselves_by_coalitions(self) -> None:
        model = Reader().double().eval()
        inputs = {"input_ids": torch.randint(12, (2, 4)), "attention_mask": torch.ones(2, 4).long()}
        result = ExactShapley()(model, inputs, target=1, baseline=0)
        assert result.at is None
        assert result.values["input_ids"].shape == (2, 4)  # pyright: ignore[reportArgumentType, reportCallIssue]  a dict

    def test_a_token_as_baseline_is_not_taken_for_a_constant(self) -> None:
        model = Reader().double().eval()
        ids, mask = torch.randint(12, (2, 4)), torch.ones(2, 4).long()
        inputs = {"input_ids": ids, "attention_mask": mask}
        with pytest.raises(BadInput, match=r"constant of the embedding.*full_like"):
            explain(model, inputs, baseline=3)
        padding = {"input_ids": torch.full_like(ids, 3), "attention_mask": mask}
        result = explain(model, inputs, target=1, baseline=padding)
        assert isinstance(result.baseline, Tensor)
        torch.testing.assert_close(result.baseline[0, 0], model.words.weight[3])

    def test_without_that_interface_name_the_embedding(self) -> None:
        model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
        ids = torch.randint(9, (2, 3))
        with pytest.raises(BadInput, match="at='0'"):
            explain(model, ids)
        assert explain(model, ids, at="0").at == "0"


class TestOutput:
    @pytest.mark.parametrize(
        ("wrap", "noted"),
        [
            (lambda y: {"logits": y, "hidden": y[:, :1]}, True),
            (lambda y: (None, y), True),
            (lambda y: {"scores": y}, False),
            (lambda y: SimpleNamespace(y=y).y, False),
        ],
    )
    def test_the_sensible_part_is_taken_and_noted(self, wrap: Any, noted: bool) -> None:
        inner, x = nn.Linear(3, 2), torch.randn(4, 3)
        result = Saliency()(lambda rows: wrap(inner(rows)), x)
        torch.testing.assert_close(result.values, Saliency()(inner, x).values)
        assert [("was explained, of" in note) for note in result.notes] == [True] * noted


WEIGHTS = torch.tensor([[0.7, -1.2, 0.4], [0.3, 0.9, -0.8]]).double()


def alone(age: Tensor) -> Tensor:
    return torch.relu(1.5 * age - 0.2) - torch.relu(0.4 - age)


def beside(age: Tensor, rows: Tensor) -> Tensor:
    hidden = torch.relu(rows @ WEIGHTS.T + age[:, None])
    return (hidden @ torch.tensor([[1.0], [-2.0]]).double())[:, 0] + age


class TestInputsWithoutFeatures:
    """An age or a timestamp, (B,), alone or beside others, is what (B, 1) is."""

    @pytest.mark.parametrize("rows", [1, 3])
    @pytest.mark.parametrize("name", [*NAMES, "midpoint", "own path"])
    def test_are_features(self, name: str, rows: int) -> None:
        kind = {"midpoint": "integrated-gradients", "own path": "path-gradients"}.get(name, name)
        method: Any = make(kind)
        if name == "midpoint":
            method = METHODS[kind](steps=8, rule="midpoint")  # pyright: ignore[reportCallIssue]  has both
        elif name == "own path":
            method = METHODS[kind](path=lambda start, end, alpha: start + alpha**2 * (end - start))  # pyright: ignore[reportCallIssue]  has it
        age, table = torch.randn(rows).double(), torch.randn(rows, 3).double()
        many, more = torch.randn(5).double(), torch.randn(5, 3).double()
        ways: list[tuple[Any, Any, Any]] = [
            (None, None, None),
            (0.5, 0.5, 0.5),
            (many[:rows], many[:rows, None], (many[:rows], more[:rows])),
        ]
        if METHODS[kind].baseline_is == "unused":
            ways = ways[:1]
        elif METHODS[kind].baseline_is == "background":
            ways = [(Background(many), Background(many[:, None]), Background((many, more)))]
        elif METHODS[kind].baseline_is == "either":
            ways.append((Background(many), Background(many[:, None]), Background((many, more))))
        for one, column, both in ways:
            expected = method(lambda a: alone(a[:, 0]), age[:, None], **_baseline(column))
            result = method(alone, age, **_baseline(one))
            torch.testing.assert_close(result.values, expected.values[:, 0])
            assert result.verdict == expected.verdict
            columns = both
            if isinstance(both, tuple):
                columns = (both[0][:, None], both[1])
            elif isinstance(both, Background):
                columns = Background((many[:, None], more))
            wide = method(
                lambda a, x: beside(a[:, 0], x), (age[:, None], table), **_baseline(columns)
            )
            result = method(beside, (age, table), **_baseline(both))
            torch.testing.assert_close(result.values[0], wide.values[0][:, 0])
            torch.testing.assert_close(result.values[1], wide.values[1])

    @pytest.mark.parametrize("name", NAMES)
    def test_of_a_layer(self, name: str) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.squeeze = nn.Flatten(0)

            def forward(self, age: Tensor) -> Tensor:
                return alone(self.squeeze(age))

        age, many = torch.randn(3, 1).double(), torch.randn(5, 1).double()
        given: dict[str, Any] = {}
        given_flat: dict[str, Any] = {}
        if METHODS[name].baseline_is == "background":
            given, given_flat = _baseline(Background(many)), _baseline(Background(many[:, 0]))
        result = make(name)(Model(), age, at="squeeze", **given)
        expected = make(name)(alone, age[:, 0], **given_flat)
        torch.testing.assert_close(result.values, expected.values)


def _baseline(baseline: Any) -> dict[str, Any]:
    return {} if baseline is None else {"baseline": baseline}
