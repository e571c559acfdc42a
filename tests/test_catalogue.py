"""Methods by the names that people type, and settings by those of other libraries."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import whyglass
from tests.zoo.networks import ZOO
from whyglass import (
    LRP,
    METHODS,
    BadInput,
    Explanation,
    IntegratedGradients,
    NumpyModel,
    Saliency,
    explain,
)
from whyglass.catalogue import ALIASES, SYNONYMS, make_method, method_class

X = torch.tensor([[1.0, 2.0, -1.0]])


def model(x: torch.Tensor) -> torch.Tensor:
    return (x**2).sum(1)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_known_by_any_spelling_of_its_name(name: str) -> None:
    cls = METHODS[name]
    spellings = (name, name.upper(), name.replace("-", "_"), name.replace("-", " "), cls.__name__)
    assert {method_class(spelling) for spelling in spellings} == {cls}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("ig", "integrated-gradients"),
        ("shap", "kernel-shap"),
        ("gradcam", "grad-cam"),
        ("GradCAM++", "grad-cam-plus-plus"),
        ("DeepExplainer", "deep-shap"),
        ("deep", "deep-shap"),
        ("gradient explainer", "expected-gradients"),
        ("input_x_gradient", "gradient-x-input"),
        ("Lime", "lime"),
        ("deep lift shap", "deep-shap"),
    ],
)
def test_the_name_of_another_library(name: str, method: str) -> None:
    assert method_class(name) is METHODS[method]


def test_aliases_lead_to_methods_and_take_no_name_away() -> None:
    assert set(ALIASES.values()) <= set(METHODS)
    for alias, name in ALIASES.items():
        assert method_class(alias) is METHODS[name]


@pytest.mark.parametrize("preset", ["EpsilonPlusFlat", "epsilon_alpha2_beta1", "z-plus"])
def test_a_composite_of_zennit_is_lrp_with_that_rule(preset: str) -> None:
    made = make_method(preset, {"bias": "share"})
    assert isinstance(made, LRP)
    assert (made.bias, isinstance(made.rule, str)) == ("share", True)


@pytest.mark.parametrize("name", ["tcav", "influence", "hires", ""])
def test_a_method_that_is_not_there_is_answered_with_those_that_are(name: str) -> None:
    with pytest.raises(BadInput) as refusal:
        explain(model, X, method=name)
    assert all(known in str(refusal.value) for known in METHODS)


def test_an_attribute_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(AttributeError) as refusal:
        whyglass.Influence  # noqa: B018  the look-up itself is what is tested
    assert all(cls.__name__ in str(refusal.value) for cls in METHODS.values())
    with pytest.raises(AttributeError, match="did you mean IntegratedGradients"):
        whyglass.IntegratedGradient  # noqa: B018  as above
    assert not hasattr(whyglass, "Influence")


@pytest.mark.parametrize(
    ("method", "setting", "meant"),
    [
        ("integrated-gradients", "baselines", "baseline="),
        ("integrated-gradients", "n_steps", "steps="),
        ("integrated-gradients", "samples", "steps="),
        ("smoothgrad", "nt_samples", "samples="),
        ("smoothgrad", "stdevs", "noise="),
        ("kernel-shap", "nsamples", "budget="),
        ("kernel-shap", "feature_mask", "players="),
        ("lime", "num_features", "features="),
        ("occlusion", "sliding_window_shapes", "window="),
        ("grad-cam", "target_layers", "at="),
        ("lrp", "composite", "rule="),
        ("saliency", "targets", "target="),
        ("rise", "sample", "samples="),
    ],
)
def test_a_setting_of_another_name_is_answered_with_ours(
    method: str, setting: str, meant: str
) -> None:
    with pytest.raises(BadInput, match=rf"no setting '{setting}': did you mean {meant}\?"):
        explain(model, X, method=method, **{setting: 3})


def test_synonyms_mean_settings_or_arguments_that_there_are() -> None:
    settings = {field.name for cls in METHODS.values() for field in dataclasses.fields(cls)}
    arguments = {"target", "baseline", "at", "batch_size", "legend"}
    assert {name for names in SYNONYMS.values() for name in names} <= settings | arguments


def test_a_setting_like_no_other_is_answered_with_those_of_the_method() -> None:
    with pytest.raises(BadInput, match="it has steps, rule, tol"):
        explain(model, X, frobnicate=1)
    with pytest.raises(BadInput, match="it has none"):
        explain(model, X, method="saliency", frobnicate=1)


def test_a_method_given_as_its_class() -> None:
    by_class = explain(model, X, method=IntegratedGradients, steps=8, rule="midpoint")
    by_value = explain(model, X, method=IntegratedGradients(steps=8, rule="midpoint"))
    torch.testing.assert_close(by_class.values, by_value.values)
    assert explain(model, X, method=Saliency).method == "saliency"
    for method in (Explanation, 3, model):
        with pytest.raises(BadInput, match="method must be"):
            explain(model, X, method=method)  # pyright: ignore[reportArgumentType]


def test_without_gradients_the_default_is_a_shapley_method_and_says_so() -> None:
    predict = NumpyModel(lambda rows: rows[:, 0] * rows[:, 1] + np.abs(rows[:, 2]))
    why = explain(predict, X)
    assert why.method == "permutation-shapley"
    assert "NumpyModel gives no gradients" in why.notes[0]
    torch.testing.assert_close(why.values.sum(1), predict(X).float())
    assert explain(ZOO["mlp"].make(), ZOO["mlp"].inputs()).method == "integrated-gradients"
