"""The vocabulary of baselines, each word against a naive version."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.zoo.networks import ZOO, TokenClassifier
from whyglass import (
    Background,
    BadInput,
    Blur,
    ExactShapley,
    ExpectedGradients,
    Explanation,
    IntegratedGradients,
    Mean,
    Nearest,
    PerChannel,
    explain,
)

RULE = IntegratedGradients(steps=6, rule="midpoint")


def _images() -> Tensor:
    made = ZOO["gap-cnn"].inputs()
    assert isinstance(made, Tensor)
    return made


def _explained(baseline: Any, **more: Any) -> Explanation:
    return RULE(ZOO["gap-cnn"].make(), _images(), baseline=baseline, **more)


def _is(explanation: Explanation, expected: Tensor) -> None:
    """The baseline recorded is this, and the values are those of this."""
    torch.testing.assert_close(explanation.baseline, expected)
    model, inputs = ZOO["gap-cnn"].make(), _images()
    torch.testing.assert_close(
        explanation.baseline_score,
        model(expected).gather(1, model(inputs).argmax(1, keepdim=True))[:, 0].detach(),
    )
    torch.testing.assert_close(explanation.values, _explained(expected).values)


@pytest.mark.parametrize(
    ("baseline", "constant"), [(None, 0.0), (0.0, 0.0), (0, 0.0), (-1.5, -1.5), (2, 2.0)]
)
def test_constant(baseline: Any, constant: float) -> None:
    _is(_explained(baseline), torch.full_like(_images(), constant))


def test_tensor_for_each_row_or_one_for_all() -> None:
    rows = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _is(_explained(rows), rows)
    _is(_explained(rows[:1]), rows[:1].expand(3, -1, -1, -1))
    _is(_explained(rows[0]), rows[:1].expand(3, -1, -1, -1))


def test_per_channel() -> None:
    expected = torch.zeros_like(_images())
    for channel, value in enumerate((0.485, -1.0, 3.0)):
        expected[:, channel] = value
    _is(_explained(PerChannel((0.485, -1.0, 3.0))), expected)


@pytest.mark.parametrize("sigma", [0.7, 2.0, 30.0])
def test_blur(sigma: float) -> None:
    """The naive double sum: each pixel the weighted mean of all pixels of its image."""
    images = _images().numpy()
    expected = np.zeros_like(images)
    for i in range(8):
        for j in range(8):
            weights = np.array(
                [
                    [math.exp(-((i - a) ** 2 + (j - b) ** 2) / (2 * sigma**2)) for b in range(8)]
                    for a in range(8)
                ]
            )
            expected[:, :, i, j] = (images * weights).sum((2, 3)) / weights.sum()
    _is(_explained(Blur(sigma)), torch.from_numpy(expected))


def test_blur_keeps_a_constant_image_and_its_channels_apart() -> None:
    images = torch.arange(3.0)[None, :, None, None].expand(2, 3, 5, 9)
    torch.testing.assert_close(Blur(3.0)(images), images)


def test_mean() -> None:
    data = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _is(_explained(Mean(data)), torch.from_numpy(data.numpy().mean(0))[None].expand(3, -1, -1, -1))


def test_nearest_example_of_another_class() -> None:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(20, 3, 8, 8, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (20,), generator=generator)
    own = torch.tensor([0, 2, 1])
    expected = []
    for image, label in zip(_images(), own, strict=True):
        distances = [
            math.inf if other == label else float(((example - image) ** 2).sum().sqrt())
            for example, other in zip(data, labels, strict=True)
        ]
        expected.append(data[int(np.argmin(distances))])
    _is(_explained(Nearest(data, labels, own)), torch.stack(expected))


def test_callable() -> None:
    _is(_explained(lambda images: images.flip(-1) / 2), _images().flip(-1) / 2)
    _is(_explained(lambda _images: -1.0), torch.full_like(_images(), -1.0))


def test_callable_of_several_inputs() -> None:
    pair = ZOO["two-inputs"]
    inputs = pair.inputs()
    found = RULE(pair.make(), inputs, baseline=lambda given: tuple(-leaf for leaf in given))
    expected = RULE(pair.make(), inputs, baseline=tuple(-leaf for leaf in inputs))
    for a, b in zip(found.values, expected.values, strict=True):
        torch.testing.assert_close(a, b)


def test_tuple_and_dict() -> None:
    pair, named = ZOO["two-inputs"], ZOO["dict-input"]
    a, b = torch.ones(1, 4, dtype=torch.float64), torch.full((3,), 2.0, dtype=torch.float64)
    inputs = pair.inputs()
    found = RULE(pair.make(), inputs, baseline=(a, b))
    assert isinstance(found.baseline, tuple)
    torch.testing.assert_close(found.baseline[0], a.expand(3, -1))
    torch.testing.assert_close(found.baseline[1], b.expand(3, -1))
    by_name = RULE(named.make(), {"b": inputs[1], "a": inputs[0]}, baseline={"b": b, "a": a})
    torch.testing.assert_close(by_name.values["a"], found.values[0])
    torch.testing.assert_close(by_name.values["b"], found.values[1])
    torch.testing.assert_close(by_name.baseline["a"], found.baseline[0])


def test_names_of_a_dict_count_and_not_their_order() -> None:
    """A baseline whose keys come in another order than those of the inputs."""
    named = ZOO["dict-input"]
    inputs = named.inputs()
    assert list(inputs) == ["b", "a"]
    a, b = torch.ones(1, 4, dtype=torch.float64), torch.ones(1, 3, dtype=torch.float64)
    found = RULE(named.make(), inputs, baseline={"a": a, "b": b})
    expected = RULE(named.make(), inputs, baseline={"b": b, "a": a})
    torch.testing.assert_close(found.values["a"], expected.values["a"])


def test_names_of_a_dict_with_equal_shapes_are_not_mixed_up() -> None:
    def model(x: Tensor, y: Tensor) -> Tensor:
        return (x * y**2).sum(1)

    inputs = {"x": torch.full((1, 2), 2.0), "y": torch.full((1, 2), 3.0)}
    ones, twos = torch.ones(1, 2), torch.full((1, 2), 2.0)
    found = RULE(model, inputs, baseline={"y": ones, "x": twos})
    expected = RULE(model, inputs, baseline={"x": twos, "y": ones})
    torch.testing.assert_close(found.values["x"], expected.values["x"])
    torch.testing.assert_close(found.values["y"], expected.values["y"])
    with pytest.raises(BadInput, match="baseline"):
        RULE(model, inputs, baseline={"x": twos, "z": ones})


class TestAtALayer:
    """The embedding of integer tokens as what is explained."""

    def _explained(self, baseline: Any) -> Explanation:
        tokens = ZOO["tokens"]
        return RULE(tokens.make(), tokens.inputs(), at="embedding", baseline=baseline)

    def test_constant_is_one_of_the_layer(self) -> None:
        found = self._explained(None)
        torch.testing.assert_close(found.baseline, torch.zeros(3, 6, 8, dtype=torch.float64))

    def test_token_ids_become_what_the_layer_makes_of_them(self) -> None:
        model = ZOO["tokens"].make()
        assert isinstance(model, TokenClassifier)
        padding = torch.full((1, 6), 4)
        expected = model.embedding(padding).detach().expand(3, -1, -1)
        for given in (padding, padding[0], padding.expand(3, -1)):
            found = self._explained(given)
            torch.testing.assert_close(found.baseline, expected)
            torch.testing.assert_close(found.values, self._explained(expected).values)

    def test_cost_of_the_token_ids_is_counted(self) -> None:
        found = self._explained(torch.full((1, 6), 4))
        by_embedding = self._explained(None)
        assert found.evaluations == by_embedding.evaluations + 3

    def test_inputs_before_a_layer(self) -> None:
        """Where input and layer are both floats, the shape says which is meant."""
        network = ZOO["gap-cnn"]
        model: Any = network.make()
        black = torch.full((1, 3, 8, 8), -1.0, dtype=torch.float64)
        found = RULE(model, _images(), at="conv2", baseline=black)
        expected = model.conv2(torch.relu(model.conv1(black))).detach().expand(3, -1, -1, -1)
        torch.testing.assert_close(found.baseline, expected)

    def test_neither(self) -> None:
        with pytest.raises(BadInput, match="baseline"):
            self._explained(torch.zeros(1, 7, 8, dtype=torch.float64))


class TestBackground:
    """Sets of rows."""

    def test_recorded_as_its_mean(self) -> None:
        data = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        network = ZOO["mlp"]
        for given in (data, Background(data)):
            found = ExpectedGradients(samples=4)(network.make(), network.inputs(), baseline=given)
            torch.testing.assert_close(found.baseline, data.mean(0, keepdim=True))
            scores = network.make()(data)
            chosen = network.make()(network.inputs()).argmax(1)
            torch.testing.assert_close(found.baseline_score, scores[:, chosen].mean(0).detach())

    def test_of_a_dict(self) -> None:
        named = ZOO["dict-input"]
        data = named.inputs(6, seed=3)
        found = ExpectedGradients(samples=4)(
            named.make(), named.inputs(), baseline=Background(data)
        )
        assert set(found.values) == {"a", "b"}
        for name in ("a", "b"):
            torch.testing.assert_close(found.baseline[name], data[name].mean(0, keepdim=True))

    def test_is_refused_by_a_method_that_takes_one_baseline_a_row(self) -> None:
        with pytest.raises(BadInput, match="expected-gradients"):
            _explained(Background(_images()))

    @pytest.mark.parametrize("bad", [None, 0.0, 3])
    def test_is_needed_by_a_method_that_averages(self, bad: Any) -> None:
        network = ZOO["mlp"]
        with pytest.raises(BadInput, match="Background"):
            ExpectedGradients()(network.make(), network.inputs(), baseline=bad)


nan, inf = math.nan, math.inf
IMAGE = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
BAD: dict[str, tuple[Any, list[str]]] = {
    "nan": (nan, ["baseline", "nan", "finite"]),
    "infinity": (inf, ["baseline", "inf", "finite"]),
    "nan tensor": (IMAGE * nan, ["baseline", "NaN"]),
    "nan from a callable": (lambda images: images / 0, ["baseline", "NaN"]),
    "columns": (
        torch.zeros(1, 3, 8, 7, dtype=torch.float64),
        ["baseline", "(1, 3, 8, 7)", "(3, 3, 8, 8)"],
    ),
    "rows": (
        torch.zeros(2, 3, 8, 8, dtype=torch.float64),
        ["baseline", "(2, 3, 8, 8)", "(3, 3, 8, 8)"],
    ),
    "dtype": (IMAGE.float(), ["baseline", "float32", "float64"]),
    "integers": (IMAGE.long(), ["baseline", "int64", "float64"]),
    "too many": ((IMAGE, IMAGE), ["baseline", "2 tensors", "1"]),
    "word": ("black", ["baseline", "str"]),
    "list of numbers": ([1.0, 2.0, 3.0], ["baseline"]),
    "object": (object(), ["baseline", "object"]),
    "flag": (True, ["baseline", "True"]),
    "channels": (PerChannel((1.0, 2.0)), ["PerChannel", "2 values", "(3, 3, 8, 8)"]),
    "nan channel": (PerChannel((1.0, nan, 2.0)), ["baseline", "NaN"]),
    "no blur": (Blur(0.0), ["Blur", "sigma", "0.0", "positive"]),
    "negative blur": (Blur(-1.0), ["Blur", "-1.0"]),
    "nan blur": (Blur(nan), ["Blur", "nan"]),
    "mean of other shape": (Mean(torch.zeros(4, 3, 8, 7)), ["Mean"]),
    "no other class": (
        Nearest(IMAGE, torch.tensor([0]), torch.tensor([0, 0, 0])),
        ["Nearest", "another class"],
    ),
    "labels": (
        Nearest(IMAGE, torch.tensor([0, 1]), torch.tensor([0, 0, 0])),
        ["Nearest", "2 labels", "1"],
    ),
    "own labels": (
        Nearest(IMAGE, torch.tensor([1]), torch.tensor([0])),
        ["Nearest", "1 own", "3 rows"],
    ),
    "nearest of other shape": (
        Nearest(IMAGE[..., 1:], torch.tensor([1]), torch.tensor([0, 0, 0])),
        ["Nearest"],
    ),
    "device": (IMAGE.to("meta"), ["baseline", "meta"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_baselines(name: str) -> None:
    baseline, words = BAD[name]
    with pytest.raises(BadInput) as refusal:
        _explained(baseline)
    for word in words:
        assert word in str(refusal.value)


def test_blur_of_a_table() -> None:
    with pytest.raises(BadInput, match=r"Blur.*\(B, C, H, W\)"):
        RULE(ZOO["mlp"].make(), ZOO["mlp"].inputs(), baseline=Blur())


BAD_BACKGROUND: list[tuple[Any, list[str]]] = [
    (torch.zeros(0, 5, dtype=torch.float64), ["background", "empty"]),
    (torch.zeros(4, 6, dtype=torch.float64), ["background", "(6,)", "(5,)"]),
    (torch.full((4, 5), nan, dtype=torch.float64), ["NaN"]),
    ((torch.zeros(4, 5), torch.zeros(4, 5)), ["2 tensors"]),
]


@pytest.mark.parametrize(("data", "words"), BAD_BACKGROUND)
def test_bad_backgrounds(data: Any, words: list[str]) -> None:
    network = ZOO["mlp"]
    with pytest.raises(BadInput) as refusal:
        ExpectedGradients()(network.make(), network.inputs(), baseline=Background(data))
    for word in words:
        assert word in str(refusal.value)


def test_background_leaves_of_different_length() -> None:
    pair = ZOO["two-inputs"]
    a, b = pair.inputs(4)
    with pytest.raises(BadInput, match="different numbers of rows"):
        ExpectedGradients()(pair.make(), pair.inputs(), baseline=Background((a, b[:2])))


def test_baseline_equal_to_the_input_is_zeros_and_a_note() -> None:
    inputs = _images()
    for method in (RULE, IntegratedGradients()):
        found = method(ZOO["gap-cnn"].make(), inputs, baseline=inputs.clone())
        assert not found.values.any()
        assert found.verdict == "pass"
        assert any("equal" in note and "3 rows" in note for note in found.notes)
        assert not any("nan" in check.text or math.isnan(check.measured) for check in found.checks)
    one = inputs.clone()
    one[1:] = 0
    found = IntegratedGradients()(ZOO["gap-cnn"].make(), inputs, baseline=one)
    assert not found.values[0].any()
    assert found.values[1].any()
    assert any("1 row" in note for note in found.notes)
    assert not any("nan" in check.text or math.isnan(check.measured) for check in found.checks)


def test_the_same_row_scores_the_same_in_any_batch() -> None:
    """Kernels round otherwise for other numbers of rows; a row at its baseline has no change."""
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for method in (RULE, IntegratedGradients()):
        found = method(lambda g: g.square().sum(1) * (1 + 2e-15 * len(g)), x, baseline=x.clone())
        assert found.verdict == "pass"
        assert torch.equal(found.score, found.baseline_score)


def test_a_layer_whose_output_is_made_of_the_mean_of_a_background() -> None:
    """Mean of layer activations is a tensor of the layer's shape."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    data = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = RULE(model, ZOO["mlp"].inputs(), at="0", baseline=Mean(data))
    torch.testing.assert_close(found.baseline, data.mean(0).expand(3, -1))


def test_rows_that_stand_for_absence_together_are_a_background() -> None:
    """The message names the two ways out, and both work."""
    x, data = torch.randn(2, 3), torch.randn(5, 3)
    for method in (IntegratedGradients(), ExactShapley()):
        with pytest.raises(BadInput, match=r"Background\(data\).*Mean\(data\)"):
            method(lambda x: x.sum(1), x, baseline=data)
        method(lambda x: x.sum(1), x, baseline=Mean(data))
    ExactShapley()(lambda x: x.sum(1), x, baseline=Background(data))


def test_named_baselines_of_integers() -> None:
    """Blur rounds; a mean is no integer; the nearest example is an example."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 8, 8), generator=generator)
    for dtype in (torch.uint8, torch.int64):
        blurred = Blur(2.0)(images.to(dtype))
        assert blurred.dtype == dtype
        assert torch.equal(blurred, Blur(2.0)(images.float()).round().to(dtype))
    table = torch.randint(0, 9, (6, 4), generator=generator)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    near = Nearest(table, labels, torch.tensor([0]))(table[:1])
    distances = (table[3:] - table[:1]).double().norm(dim=1)
    assert torch.equal(near, table[3:][distances.argmin()][None])
    with pytest.raises(BadInput, match=r"a mean is no integer.*inputs.float\(\)"):
        Mean(table)(table[:2])
    torch.testing.assert_close(Mean(table)(table[:1].float()), table.float().mean(0, keepdim=True))


@pytest.mark.parametrize(
    "baseline",
    [
        PerChannel((0.0,)),
        Blur(),
        Mean(torch.ones(3, 4)),
        Nearest(torch.ones(2, 4), torch.arange(2), torch.zeros(2)),
    ],
    ids=lambda baseline: type(baseline).__name__,
)
def test_a_baseline_of_one_tensor_says_how_several_inputs_get_theirs(baseline: Any) -> None:
    inputs = (torch.rand(2, 4), torch.rand(2, 1, 6, 6))

    def model(table: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return table.sum(1) + images.mean((1, 2, 3))

    with pytest.raises(BadInput, match="is for one tensor, and the inputs are 2: give a callable"):
        IntegratedGradients()(model, inputs, baseline=baseline)
    why = IntegratedGradients()(
        model, inputs, baseline=lambda given: (torch.zeros_like(given[0]), Blur(2.0)(given[1]))
    )
    assert why.verdict == "pass"


@pytest.mark.parametrize("name", ["occlusion", "exact-shapley", "kernel-shap"])
@pytest.mark.parametrize("absent", [False, True])
def test_a_truth_value_is_a_baseline_of_truth_values_alone(name: str, absent: bool) -> None:
    rows = torch.tensor([[True, False, True], [False, False, True]])
    weights = torch.tensor([1.0, 2.0, -3.0])

    def model(z: Tensor) -> Tensor:
        return z.float() @ weights

    explanation = explain(model, rows, method=name, baseline=absent)
    expected = (rows.float() - float(absent)) * weights
    assert isinstance(explanation.values, Tensor)
    torch.testing.assert_close(explanation.values.float(), expected)
    for numbers in (rows.float(), rows.long()):
        with pytest.raises(BadInput, match="must be a finite number"):
            explain(model, numbers, method=name, baseline=absent)
