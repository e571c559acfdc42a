"""Every bad input answers with a sentence: the argument, the value, what was wrong, the way out.

What can be known without the model is refused before the model runs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.networks import MLP, ZOO
from whyglass import (
    CAM,
    METHODS,
    RISE,
    Background,
    BadInput,
    ExpectedGradients,
    GradCAM,
    IntegratedGradients,
    Layer,
    LayerCall,
    Method,
    Occlusion,
    PathGradients,
    Saliency,
    ScoreCAM,
    SmoothGrad,
    SmoothGradSquared,
    Unsupported,
    VarGrad,
    WhyglassError,
    explain,
)

GRADIENT: list[Method] = [
    Saliency(),
    SmoothGrad(samples=2),
    IntegratedGradients(steps=4),
    IntegratedGradients(steps=4, rule="midpoint"),
]
nan, inf = math.nan, math.inf


class Counting(nn.Module):
    """A network that counts its calls."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.calls = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.body(*args, **kwargs)


def mlp(dtype: torch.dtype = torch.float64) -> Counting:
    return Counting(ZOO["mlp"].make(dtype=dtype))


def x(rows: int = 3) -> Tensor:
    made = ZOO["mlp"].inputs(rows)
    assert isinstance(made, Tensor)
    return made


@contextmanager
def refused(
    *words: str, kind: type[WhyglassError] = BadInput, before: Counting | None = None
) -> Iterator[None]:
    """Within, an error of this kind that holds these words, before `before` is called."""
    with pytest.raises(kind) as refusal:
        yield
    text = str(refusal.value)
    for word in words:
        assert word in text, text
    assert before is None or before.calls == 0


def spoiled(value: float, place: tuple[int, int] = (1, 2)) -> Tensor:
    made = x()
    made[place] = value
    return made


class TestNotFinite:
    @pytest.mark.parametrize("value", [nan, inf, -inf])
    @pytest.mark.parametrize("name", METHODS)
    def test_input(self, name: str, value: float) -> None:
        model = Counting(ZOO["gap-cnn"].make())
        images = ZOO["gap-cnn"].inputs()
        images[1, 2, 3, 4] = value
        if METHODS[name].takes_missing and value != value:
            pytest.skip("a model may take missing values itself")
        with refused("inputs", "NaN or infinity", "1 of 576", "nan_to_num", before=model):
            METHODS[name]()(model, images)

    @pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].takes_missing])
    def test_missing_values_that_the_model_does_not_take(self, name: str) -> None:
        model, given = mlp(), spoiled(nan)
        baseline = {"baseline": Background(x(4))} if name in {"qii", "feature-permutation"} else {}
        with refused("inputs", "NaN", "1 of 15", "not finite", "coalitions"):
            METHODS[name]()(model, given, target=0, **baseline)
        assert model.calls == 1

    def test_input_is_named(self) -> None:
        pair = ZOO["two-inputs"]
        a, b = pair.inputs()
        model = Counting(pair.make())
        with refused("inputs[1]", "NaN", before=model):
            Saliency()(model, (a, b * nan))
        with refused("inputs['b']", "NaN", before=model):
            Saliency()(model, {"a": a, "b": b * nan})

    def test_opposite_infinities_do_not_hide_each_other(self) -> None:
        made = x()
        made[0, 0], made[0, 1] = inf, -inf
        with refused("2 of 15"):
            Saliency()(mlp(), made)

    def test_a_sum_that_overflows_is_no_infinity(self) -> None:
        big = torch.full((1, 3), 3e38)
        assert torch.isfinite(Saliency()(lambda given: given[:, 0] * 0.1, big).values).all()

    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    @pytest.mark.parametrize("value", [nan, inf])
    def test_parameter(self, method: Method, value: float) -> None:
        model = mlp()
        with torch.no_grad():
            model.get_parameter("body.second.weight")[2, 3] = value
        with refused("parameter", "body.second.weight", "NaN or infinity"):
            method(model, x())
        assert model.calls <= 1

    @pytest.mark.parametrize("value", [nan, inf])
    def test_parameter_of_another_class(self, value: float) -> None:
        """The score that is asked for does not see it, and yet the network is broken."""
        model = mlp()
        with torch.no_grad():
            model.get_parameter("body.last.weight")[2, 3] = value
        with refused("parameter", "body.last.weight", "NaN or infinity"):
            Saliency()(model, x(), target=1)

    def test_buffer(self) -> None:
        model = ZOO["residual"].make()
        model.get_buffer("norms.1.running_mean")[0] = nan
        with refused("norms.1.running_mean", "NaN or infinity"):
            Saliency()(model, ZOO["residual"].inputs())

    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    def test_output(self, method: Method) -> None:
        with refused("score", "NaN or infinite", "outside the range"):
            method(lambda given: given.abs().sum(1).neg().log(), x())

    def test_gradient(self) -> None:
        with refused("gradient", "sqrt"):
            Saliency()(lambda given: given.sum(1).sqrt(), torch.zeros(1, 3))

    @pytest.mark.parametrize("rule", ["adaptive", "midpoint"])
    def test_baseline(self, rule: Any) -> None:
        model = mlp()
        method = IntegratedGradients(steps=4, rule=rule)
        for baseline in (nan, inf, x() * nan):
            with refused("baseline", before=model):
                method(model, x(), baseline=baseline)

    @pytest.mark.parametrize(
        "method",
        [
            IntegratedGradients(),
            IntegratedGradients(rule="midpoint"),
            Occlusion(),
            RISE(samples=50),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("rows", [1, 3])
    def test_score_away_from_the_input(self, method: Method, rows: int) -> None:
        """Finite at the input: the message blames what replaces it."""

        def model(image: Tensor) -> Tensor:
            return (image.amin((1, 2, 3)) - 0.5).log() + image.sum((1, 2, 3))

        with refused("away from the input", "baseline="):
            method(model, torch.ones(rows, 1, 8, 8), baseline=0.0)

    def test_the_window_is_named(self) -> None:
        with refused("row 1", "[2:3]"):
            Occlusion()(lambda y: (y[:, 2] + y[:, 3]).log() + y[:, 0], 1 - torch.eye(4)[[0, 3]])

    def test_score_of_the_background(self) -> None:
        data = Background(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))
        with refused("score", "infinite"):
            ExpectedGradients(samples=2)(lambda y: y.log().sum(1), torch.ones(1, 2), baseline=data)

    def test_on_the_path_only(self) -> None:
        """Finite at both ends, infinite between."""
        with refused("score"):
            IntegratedGradients()(lambda given: 1 / given[:, 0], torch.ones(1, 1), baseline=-1.0)


class TestForm:
    @pytest.mark.parametrize("name", METHODS)
    def test_empty_batch(self, name: str) -> None:
        model = Counting(ZOO["gap-cnn"].make())
        with refused("inputs", "empty batch", "(0, 3, 8, 8)", before=model):
            METHODS[name]()(model, torch.zeros(0, 3, 8, 8).double())

    @pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.uint8, torch.bool])
    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    def test_integers(self, method: Method, dtype: torch.dtype) -> None:
        model = Counting(ZOO["tokens"].make())
        ids = ZOO["tokens"].inputs().to(dtype)
        with refused("inputs", str(dtype), "at=", "embedding", "float()", before=model):
            method(model, ids)

    def test_no_batch_axis(self) -> None:
        model = mlp()
        with refused("inputs", "batch axis", "(B, ...)", before=model):
            Saliency()(model, torch.tensor(3.0))

    @pytest.mark.parametrize(
        ("bad", "words"),
        [
            (None, ["inputs", "NoneType"]),
            ([[1.0, 2.0]], ["inputs", "tensor", "list"]),
            (np.array([["a"]]), ["inputs", "tensor", "ndarray"]),
            ((), ["inputs", "tuple"]),
            ({}, ["inputs", "dict"]),
            ((torch.ones(1, 5), None), ["inputs[1]", "tensor", "NoneType"]),
            ({"a": 3.0}, ["inputs['a']", "tensor", "float"]),
            ((torch.ones(2, 5), torch.ones(3, 5)), ["inputs[1]", "3 rows", "inputs[0]", "2"]),
        ],
    )
    def test_no_tensor(self, bad: Any, words: list[str]) -> None:
        model = mlp()
        with refused(*words, before=model):
            Saliency()(model, bad)

    def test_no_model(self) -> None:
        with refused("model", "callable", "str"):
            Saliency()("resnet50", x())  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    def test_device(self, method: Method) -> None:
        model = mlp().to("meta")
        with refused("inputs", "cpu", "meta", ".to('meta')", before=model):
            method(model, x())

    def test_device_of_the_inputs(self) -> None:
        model = mlp()
        with refused("inputs", "meta", "cpu", before=model):
            Saliency()(model, x().to("meta"))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_dtype(self, dtype: torch.dtype) -> None:
        model = mlp()
        with refused("inputs", str(dtype), "float64", "inputs.to(torch.float64)", before=model):
            Saliency()(model, x().to(dtype))

    @pytest.mark.parametrize("name", ["cam", "grad-cam", "eigen-cam", "score-cam"])
    def test_no_image(self, name: str) -> None:
        """Rows of numbers may be a signal: the first pass tells that nothing convolves them."""
        with refused("class activation map", "(B, C, H, W)", "(B, C, L)", "(3, 5)"):
            METHODS[name]()(mlp(), x())


BASELINES: dict[str, Any] = {
    "columns": torch.zeros(3, 4).double(),
    "rows": torch.zeros(2, 5).double(),
    "dtype": torch.zeros(3, 5),
    "integers": torch.zeros(3, 5).long(),
    "device": torch.zeros(3, 5, device="meta").double(),
    "too many": (torch.zeros(3, 5).double(),) * 2,
    "word": "black",
}
BACKGROUNDS: dict[str, tuple[Any, list[str]]] = {
    "none": (None, ["Background"]),
    "number": (0.0, ["Background"]),
    "empty": (Background(torch.zeros(0, 5).double()), ["background", "empty"]),
    "columns": (Background(torch.zeros(4, 6).double()), ["background", "(6,)", "(5,)"]),
    "nan": (Background(torch.full((4, 5), nan).double()), ["baseline", "NaN"]),
}


class TestBeforeAnyWork:
    """Arguments that are wrong whatever the model says."""

    @pytest.mark.parametrize(
        "target",
        [1.0, True, "tabby", [0, 1], torch.tensor([0.0, 1.0, 2.0]), [0.5, 1, 2], object()],
        ids=["float", "flag", "name", "too few", "floats", "mixed", "object"],
    )
    def test_target(self, target: Any) -> None:
        model = mlp()
        with refused("target", before=model):
            Saliency()(model, x(), target=target)

    @pytest.mark.parametrize("kind", BASELINES)
    @pytest.mark.parametrize("rule", ["adaptive", "midpoint"])
    def test_baseline(self, kind: str, rule: Any) -> None:
        model = mlp()
        with refused("baseline", before=model):
            IntegratedGradients(steps=4, rule=rule)(model, x(), baseline=BASELINES[kind])

    @pytest.mark.parametrize("kind", BACKGROUNDS)
    def test_background(self, kind: str) -> None:
        model = mlp()
        with refused(*BACKGROUNDS[kind][1], before=model):
            ExpectedGradients()(model, x(), baseline=BACKGROUNDS[kind][0])

    def test_path(self) -> None:
        model = mlp()
        with refused("path", "alpha=1", "input", before=model):
            PathGradients(path=lambda start, end, alpha: start)(model, x())

    def test_window(self) -> None:
        model = Counting(ZOO["gap-cnn"].make())
        with refused("window", "9", "larger than the input", "8", before=model):
            Occlusion(window=9)(model, ZOO["gap-cnn"].inputs())
        with refused("window", "(2, 2, 2)", "3 axes", before=model):
            Occlusion(window=(2, 2, 2))(model, ZOO["gap-cnn"].inputs())
        with refused("stride", "3", "window", before=model):
            Occlusion(window=2, stride=3)(model, ZOO["gap-cnn"].inputs())

    def test_a_baseline_that_is_not_used(self) -> None:
        model = mlp()
        with refused("saliency", "baseline", before=model):
            Saliency()(model, x(), baseline=0.0)

    def test_method(self) -> None:
        model = mlp()
        with refused("'integrated-gradient'", "did you mean integrated-gradients", before=model):
            explain(model, x(), method="integrated-gradient")
        with refused("'steps'", "saliency", "none", before=model):
            explain(model, x(), method="saliency", steps=3)
        with refused("integrated-gradients", "steps", "already", before=model):
            explain(model, x(), method=IntegratedGradients(), steps=3)


COUNTS: list[tuple[Callable[..., Method], str]] = [
    (IntegratedGradients, "steps"),
    (PathGradients, "steps"),
    (SmoothGrad, "samples"),
    (SmoothGradSquared, "samples"),
    (VarGrad, "samples"),
    (ExpectedGradients, "samples"),
    (Occlusion, "window"),
    (Occlusion, "stride"),
    (RISE, "samples"),
    (RISE, "cells"),
]


class TestSettings:
    @pytest.mark.parametrize(("kind", "name"), COUNTS)
    @pytest.mark.parametrize("value", [0, -3, 2.5, 8.0, True, "many", nan])
    def test_counts(self, kind: Callable[..., Method], name: str, value: Any) -> None:
        with refused(name, repr(value), "positive integer"):
            kind(**{name: value})

    @pytest.mark.parametrize("kind", [SmoothGrad, SmoothGradSquared, VarGrad, ExpectedGradients])
    def test_one_sample_has_no_error(self, kind: Callable[..., Method]) -> None:
        with refused("samples", "2 or more"):
            kind(samples=1)

    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (SmoothGrad, "noise"),
            (SmoothGrad, "tol"),
            (VarGrad, "noise"),
            (VarGrad, "tol"),
            (ExpectedGradients, "tol"),
            (IntegratedGradients, "tol"),
            (PathGradients, "tol"),
        ],
    )
    @pytest.mark.parametrize("value", [0, 0.0, -1, nan, inf, "small", True])
    def test_positive_numbers(self, kind: Callable[..., Method], name: str, value: Any) -> None:
        with refused(name, repr(value), "positive"):
            kind(**{name: value})

    @pytest.mark.parametrize("kind", [SmoothGrad, VarGrad, ExpectedGradients])
    @pytest.mark.parametrize("value", [1.5, "zero", None])
    def test_seed(self, kind: Callable[..., Method], value: Any) -> None:
        with refused("seed", repr(value)):
            kind(seed=value)

    def test_rule(self) -> None:
        with refused("'simpson'", "adaptive", "gauss-legendre", "midpoint"):
            IntegratedGradients(rule="simpson")  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("rule", ["adaptive", "endpoints", "trapezoid"])
    def test_both_ends_need_two_points(self, rule: Any) -> None:
        with refused(repr(rule), "2 or more"):
            IntegratedGradients(steps=1, rule=rule)


class TestOutput:
    @pytest.mark.parametrize(
        ("several", "parts"),
        [
            (lambda y: {"first": y, "second": y}, ["'first'", "'second'"]),
            (lambda y: (y, y), ["0", "1"]),
            (lambda y: {"loss": None}, ["'loss'"]),
        ],
    )
    def test_no_sensible_part_and_no_selector(self, several: Any, parts: list[str]) -> None:
        inner: Any = mlp()
        with refused("output=", *parts):
            Saliency()(lambda given: several(inner(given)), x())

    def test_a_part_that_is_not_there(self) -> None:
        with refused("output='logit'", "'loss'", "'logits'"):
            Saliency()(ZOO["dict-output"].make(), x(), output="logit")
        with refused("output=5", "0, 1"):
            Saliency()(ZOO["tuple-output"].make(), x(), output=5)
        with refused("output='logits'", "a tensor"):
            Saliency()(mlp(), x(), output="logits")

    def test_a_part_that_is_no_tensor(self) -> None:
        with refused("NoneType", "output="):
            Saliency()(ZOO["dict-output"].make(), x(), output="loss")
        with refused("float", "output="):
            Saliency()(mlp(), x(), output=lambda _result: 3.0)

    @pytest.mark.parametrize(
        "model",
        [
            lambda given: given.detach().sum(1),
            lambda given: torch.from_numpy(given.detach().numpy().sum(1)),
            lambda given: given.argmax(1).double(),
            lambda given: torch.tensor([row.sum().item() for row in given]),
            lambda given: torch.ones(len(given)),
        ],
        ids=["detach", "numpy", "argmax", "item", "constant"],
    )
    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    def test_detached(self, model: Any, method: Method) -> None:
        with refused("output", "detached from the input", ".detach()"):
            method(model, x())

    def test_detached_with_parameters_in_the_graph(self) -> None:
        """The output has a graph, but it does not lead to the input."""
        model: Any = ZOO["mlp"].make()
        with refused("output", "detached from the input"):
            Saliency()(lambda given: model(given.detach()), x())

    def test_no_grad_within(self) -> None:
        model = ZOO["mlp"].make()
        with refused("output", "torch.no_grad()"):
            Saliency()(torch.no_grad()(model.forward), x())

    @pytest.mark.parametrize(
        ("model", "shape"),
        [
            (lambda given: given.sum(), "()"),
            (lambda given: given.sum(0), "(5,)"),
            (lambda given: given.mT, "(5, 3)"),
            (lambda given: given[:1], "(1, 5)"),
        ],
    )
    def test_no_batch_axis(self, model: Any, shape: str) -> None:
        with refused("output", f"shape {shape}", "3 rows", "batch"):
            Saliency()(model, x())

    def test_an_output_that_mixes_rows_cannot_pass_as_a_batch(self) -> None:
        """Fewer axes than rows is told by the shape even where the counts agree by chance."""
        with refused("target"):
            Saliency()(lambda given: given.sum(0), x(5), target=0)


class TestRandomness:
    @pytest.mark.parametrize("name", METHODS)
    def test_dropout_in_training_mode(self, name: str) -> None:
        model = Counting(ZOO["vgg"].make())
        model.body.get_submodule("classifier.2").train()
        with refused(
            "'body.classifier.2'", "Dropout", "training mode", "model.eval()", before=model
        ):
            METHODS[name]()(model, ZOO["vgg"].inputs())

    def test_batch_norm_in_training_mode(self) -> None:
        model = Counting(ZOO["residual"].make().train())
        before = model.body.get_buffer("norms.0.running_mean").clone()
        with refused("'body.norms.0'", "BatchNorm2d", "model.eval()", before=model):
            Saliency()(model, ZOO["residual"].inputs())
        assert torch.equal(model.body.get_buffer("norms.0.running_mean"), before)

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Dropout(0.1),
            nn.Dropout1d(0.1),
            nn.AlphaDropout(0.1),
            nn.FeatureAlphaDropout(0.1),
            nn.BatchNorm1d(5),
            nn.LSTM(5, 4, num_layers=2, dropout=0.1),
            nn.MultiheadAttention(4, 2, dropout=0.1),
            nn.SyncBatchNorm(5),
            nn.InstanceNorm1d(5, track_running_stats=True),
        ],
        ids=lambda layer: type(layer).__name__,
    )
    def test_layers_that_depend_on_training(self, layer: nn.Module) -> None:
        class Holder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = layer.train()

            def forward(self, given: Tensor) -> Tensor:
                raise AssertionError

        with refused("'inner'", type(layer).__name__, "training mode"):
            Saliency()(Holder(), x().float())

    def test_a_random_activation(self) -> None:
        with refused("model.eval()"):
            Saliency()(nn.RReLU(), x(), target=lambda output: output.sum(1))

    @pytest.mark.parametrize(
        "layer",
        [nn.Dropout(0.0), nn.LayerNorm(5), nn.InstanceNorm1d(3), nn.LSTM(5, 5), nn.ReLU()],
        ids=lambda layer: type(layer).__name__,
    )
    def test_layers_that_do_not(self, layer: nn.Module) -> None:
        def first(result: Any) -> Tensor:
            return result[0] if isinstance(result, tuple) else result

        inner = layer.train()
        model = nn.Sequential(inner, nn.Flatten()) if not isinstance(layer, nn.LSTM) else layer
        given = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
        found = Saliency()(model, given, output=lambda r: first(r).flatten(1).sum(1))
        assert found.values.any()

    @pytest.mark.parametrize(
        "method",
        [*GRADIENT, Occlusion(), ExpectedGradients(samples=2)],
        ids=repr,
    )
    def test_dropout_that_is_always_on(self, method: Method) -> None:
        def model(given: Tensor) -> Tensor:
            return F.dropout(given, 0.5, training=True).sum(1)

        baseline = Background(x()) if isinstance(method, ExpectedGradients) else None
        with refused("two forward passes", "differ", "random"):
            method(model, x(), baseline=baseline)

    @pytest.mark.parametrize("kind", [GradCAM, CAM, ScoreCAM])
    def test_random_forward_of_a_frozen_network(self, kind: Callable[..., Method]) -> None:
        inner: Any = ZOO["gap-cnn"].make().requires_grad_(False)

        def model(images: Tensor) -> Tensor:
            return inner(images + torch.rand_like(images))

        with refused("differ", "random"):
            kind()(model, ZOO["gap-cnn"].inputs())

    def test_draws_that_do_not_matter_are_no_error(self) -> None:
        def model(given: Tensor) -> Tensor:
            torch.rand(3)
            return (given**2).sum(1)

        found = Saliency()(model, x())
        torch.testing.assert_close(found.values, 2 * x().abs())


class TestLayer:
    def test_not_there(self) -> None:
        model = Counting(ZOO["vgg"].make())
        with refused("'body.features.30'", "nearest", "body.features.3", before=model):
            Saliency()(model, ZOO["vgg"].inputs(), at="body.features.30")

    def test_of_another_model(self) -> None:
        model = mlp()
        with refused("at=", "Linear", "not a submodule", before=model):
            Saliency()(model, x(), at=nn.Linear(2, 2))

    @pytest.mark.parametrize("at", [True, 3, ["first"], ""])
    def test_no_layer_at_all(self, at: Any) -> None:
        model = mlp()
        no_name = at is True or isinstance(at, list)
        with refused("not a submodule" if no_name else "no layer", before=model):
            Saliency()(model, x(), at=at)

    @pytest.mark.parametrize("method", GRADIENT, ids=repr)
    def test_never_runs(self, method: Method) -> None:
        model = ZOO["mlp"].make()
        model.spare = nn.Linear(5, 5)
        with refused("'spare'", "never runs"):
            method(model, x(), at="spare")

    def test_a_call_that_is_not_there(self) -> None:
        with refused("'relu.one'", "runs 2 times", "call 2", "0 to 1"):
            Saliency()(ZOO["mlp-reused"].make(), x(), at=LayerCall("relu.one", 2))

    @pytest.mark.parametrize("call", [-1, 0.5, True, "0"])
    def test_a_call_that_is_no_number(self, call: Any) -> None:
        with refused("LayerCall", repr(call)):
            LayerCall("relu.one", call)

    def test_scored_although_it_runs_twice(self) -> None:
        model = ZOO["mlp-reused"].make()
        with refused("'relu.one'", "runs 2 times", "Layer(LayerCall('relu.one', 0))"):
            Saliency()(model, x(), output=Layer("relu.one"), target=0)
        assert Saliency()(model, x(), output=Layer(LayerCall("relu.one", 0)), target=0)

    def test_of_a_plain_callable(self) -> None:
        with refused("at=", "torch.nn.Module", "callable"):
            Saliency()(lambda given: given, x(), at="first")

    def test_that_returns_no_tensor(self) -> None:
        class Odd(nn.Module):
            def forward(self, given: Tensor) -> dict[str, Tensor]:
                return {"y": given}

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.odd = Odd()

            def forward(self, given: Tensor) -> Tensor:
                return self.odd(given)["y"].sum(1)

        with refused("'odd'", "dict"):
            Saliency()(Model(), x(), at="odd")

    def test_that_returns_integers(self) -> None:
        class Round(nn.Module):
            def forward(self, given: Tensor) -> Tensor:
                return given.long()

        model = nn.Sequential(Round(), nn.Flatten())
        with refused("'0'", "int64", "no gradient"):
            Saliency()(model, x(), at="0")

    def test_that_has_no_space_for_a_map(self) -> None:
        with refused("(3, 4)", "(B, C, H, W)", "at="):
            GradCAM()(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs(), at="head")

    def test_of_cam_is_refused(self) -> None:
        with refused("cam", "at="):
            CAM()(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs(), at="conv2")

    def test_of_a_network_without_space(self) -> None:
        flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).double()
        with refused("no spatial activation", "at="):
            GradCAM()(flat, ZOO["gap-cnn"].inputs())


class TestInferenceMode:
    @pytest.mark.parametrize("name", [n for n, k in METHODS.items() if "gradients" in k.needs])
    def test_call_within(self, name: str) -> None:
        model = Counting(ZOO["gap-cnn"].make())
        images = ZOO["gap-cnn"].inputs()
        with torch.inference_mode(), refused("inference_mode", "no_grad", before=model):
            METHODS[name]()(model, images)

    def test_inputs_made_within(self) -> None:
        model = mlp()
        with torch.inference_mode():
            made = x()
        with refused("inputs", "inference_mode", "clone()", before=model):
            Saliency()(model, made)

    def test_a_method_without_gradients_works_within(self) -> None:
        with torch.inference_mode():
            found = Occlusion()(ZOO["mlp"].make(), x())
        expected = Occlusion()(ZOO["mlp"].make(), x())
        torch.testing.assert_close(found.values.clone(), expected.values)


@contextmanager
def _quietly() -> Iterator[None]:
    """The converters themselves are deprecated in recent PyTorch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class TestModelsThatHideTheirOperations:
    def test_torchscript(self) -> None:
        with _quietly():
            script = torch.jit.trace(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs())
        images = ZOO["gap-cnn"].inputs()
        for name in METHODS:
            if "layer" in METHODS[name].needs:
                with refused("TorchScript", "module", kind=Unsupported):
                    METHODS[name]()(script, images)
        with refused("TorchScript", "module", kind=Unsupported):
            Saliency()(script, images, at="conv2")
        expected = Saliency()(ZOO["gap-cnn"].make(), images)
        torch.testing.assert_close(Saliency()(script, images).values, expected.values)

    def test_quantised(self) -> None:
        with _quietly():
            model = torch.ao.quantization.quantize_dynamic(
                MLP().eval(), {nn.Linear}, dtype=torch.qint8
            )
        for method in GRADIENT:
            with refused("quantised", "float model", kind=Unsupported):
                method(model, x().float())
        assert Occlusion()(model, x().float()).values.any()

    def test_compiled(self) -> None:
        torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage]
        model = ZOO["gap-cnn"].make()
        compiled = torch.compile(model, backend="eager")
        images = ZOO["gap-cnn"].inputs()
        with _quietly():
            expected = Saliency()(model, images)
            torch.testing.assert_close(Saliency()(compiled, images).values, expected.values)
            for call in (
                lambda: GradCAM()(compiled, images),
                lambda: Saliency()(compiled, images, at="_orig_mod.conv2"),
            ):
                with refused("compiled", "module", kind=Unsupported):
                    call()


class TestChecksThatFail:
    """Out of tolerance is a failed check and no exception."""

    def test_completeness(self) -> None:
        method = IntegratedGradients(steps=2, rule="left")
        found = method(mlp(), x(), baseline=-3.0)
        check = next(check for check in found.checks if check.name == "completeness")
        assert check.verdict == "fail"
        assert check.measured > check.tolerance
        assert found.verdict == "fail"
        assert len(check.rows) == 3
        assert f"{check.measured:.1%}" in check.text

    def test_a_flat_score_is_a_warning(self) -> None:
        found = Saliency()(lambda given: torch.relu(given - 9).sum(1), x())
        assert found.verdict == "warn"
        assert not found.values.any()
        assert "3 of 3 rows" in found.checks[0].text

    def test_too_few_samples_are_a_warning(self) -> None:
        found = SmoothGrad(samples=2, noise=2.0)(mlp(), x())
        assert {check.name: check.verdict for check in found.checks}["sampling error"] == "warn"


class TestNoErrors:
    """What is unusual, and right."""

    def test_one_baseline_for_the_batch(self) -> None:
        one = x(1)
        found = IntegratedGradients(steps=8)(mlp(), x(), baseline=one)
        expected = IntegratedGradients(steps=8)(mlp(), x(), baseline=one.expand(3, -1))
        torch.testing.assert_close(found.values, expected.values)

    def test_a_batch_of_one(self) -> None:
        assert Saliency()(mlp(), x(1)).values.shape == (1, 5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, dtype: torch.dtype) -> None:
        model, given = mlp(dtype), x().to(dtype)
        exact = mlp()
        exact.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
        for method in (
            Saliency(),
            SmoothGrad(samples=8),
            IntegratedGradients(steps=16, rule="midpoint"),
        ):
            found = method(model, given, target=1)
            expected = method(exact, given.double(), target=1)
            error = (found.values.double() - expected.values).norm() / expected.values.norm()
            assert found.values.dtype == torch.float32
            assert error < 0.1

    def test_extreme_but_finite_inputs(self) -> None:
        found = IntegratedGradients(steps=8)(lambda given: given.sum(1), torch.full((1, 3), 1e30))
        torch.testing.assert_close(found.values, torch.full((1, 3), 1e30))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("name", ["integrated-gradients", "kernel-shap", "occlusion", "saliency"])
def test_rows_that_are_scored_against_each_other(rows: int, name: str) -> None:
    """As images against texts: of another number of rows the output has another number of columns."""
    image, text = torch.randn(rows, 4), torch.randn(rows, 4)

    def model(image: Tensor, text: Tensor) -> Tensor:
        return image.tanh() @ text.tanh().T

    options: dict[str, Any] = {"method": name, "target": 0}
    options |= {"batch_size": 3} if name == "saliency" else {"baseline": 0.0}
    if name != "saliency" or rows == 5:
        with refused("scored against the others", "hold one side fixed"):
            explain(model, (image, text), **options)
    texts = torch.randn(2, 4)
    explain(lambda image: model(image, texts), image, **options)
