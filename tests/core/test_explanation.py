"""The frozen result: saved, loaded, cited, converted."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.contract.cases import arguments, leaves
from tests.contract.test_catalogue import assert_loaded
from tests.zoo.networks import ZOO
from whyglass import (
    BadInput,
    Blur,
    Contrast,
    Explanation,
    GradCAM,
    GradientXInput,
    IntegratedGradients,
    Legend,
    MissingExtra,
    Occlusion,
    PathGradients,
    Saliency,
    Several,
    SmoothGrad,
)

RULE = IntegratedGradients(steps=4, rule="midpoint")


def _explained(**more: Any) -> Explanation:
    return RULE(ZOO["mlp"].make(), ZOO["mlp"].inputs(), **more)


def _again(explanation: Explanation, folder: Path) -> Explanation:
    path = folder / "saved.safetensors"
    explanation.save(path)
    return Explanation.load(path)


FORMS: dict[str, Any] = {
    "tensor": lambda: _explained(target=None),
    "tuple": lambda: RULE(ZOO["two-inputs"].make(), ZOO["two-inputs"].inputs()),
    "dict": lambda: RULE(ZOO["dict-input"].make(), ZOO["dict-input"].inputs()),
    "mask": lambda: Saliency()(ZOO["masked"].make(), ZOO["masked"].inputs()),
    "tokens": lambda: RULE(ZOO["tokens"].make(), ZOO["tokens"].inputs(), at="embedding"),
    "several": lambda: _explained(target=Several(0, 2, Contrast(1, 0))),
    "several of a tuple": lambda: RULE(
        ZOO["two-inputs"].make(), ZOO["two-inputs"].inputs(), target=Several(0, 1)
    ),
    "callable": lambda: _explained(target=lambda y: y.sum(1)),
    "standard errors": lambda: SmoothGrad(samples=3, seed=5)(
        ZOO["mlp"].make(), ZOO["mlp"].inputs()
    ),
    "adaptive": lambda: IntegratedGradients(steps=12)(ZOO["mlp"].make(), ZOO["mlp"].inputs()),
    "map": lambda: GradCAM()(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs()),
    "blur": lambda: RULE(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs(), baseline=Blur(2.0)),
    "half": lambda: Saliency()(
        ZOO["mlp"].make(dtype=torch.bfloat16), ZOO["mlp"].inputs(dtype=torch.bfloat16)
    ),
    "no module": lambda: Saliency()(lambda x: x**2, torch.ones(2, 1)),
    "eleven inputs": lambda: Saliency()(
        lambda *x: sum(i * leaf.sum(1) for i, leaf in enumerate(x)),
        tuple(torch.full((1, 2), float(i)) for i in range(11)),
    ),
    "a path": lambda: PathGradients(path=_bow, steps=4, rule="midpoint")(
        ZOO["mlp"].make(), ZOO["mlp"].inputs()
    ),
    "scattered": lambda: GradientXInput()(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs().mT),
}


def _bow(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    return start + (end - start) * alpha**2


@pytest.mark.parametrize("form", FORMS)
def test_saved_and_loaded(form: str, tmp_path: Path) -> None:
    found = FORMS[form]()
    assert_loaded(_again(found, tmp_path), found)


def test_saved_twice_is_the_same(tmp_path: Path) -> None:
    once = _again(FORMS["adaptive"](), tmp_path)
    assert_loaded(_again(once, tmp_path), once)


def test_the_legend_travels_along(tmp_path: Path) -> None:
    legend = Legend(
        class_names=["κύων", "猫", 'tab"by', "</script>"],
        feature_names=[f"säule {i}" for i in range(5)],
        titles=["a", "b", "c"],
        tokens=[["el", "niño", "no", "duerme", "."]] * 3,
        pixel_mean=[0.5],
        pixel_std=[0.2],
    )
    found = _explained(legend=legend, target="猫")
    again = _again(found, tmp_path)
    assert again.legend == legend
    assert again.targets == [["猫"]] * 3


def test_the_file_is_safetensors_and_json(tmp_path: Path) -> None:
    found = FORMS["several of a tuple"]()
    path = tmp_path / "x.safetensors"
    found.save(str(path))
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["whyglass"])
        names = set(file.keys())
    assert record["method"] == "integrated-gradients"
    assert record["format"] == 1
    assert {"values.0", "values.1", "inputs.0", "inputs.1", "score", "baseline_score"} <= names
    assert not any(b"pickle" in line for line in path.read_bytes().splitlines())


def test_saving_does_not_change_the_explanation(tmp_path: Path) -> None:
    """Values that are the inputs, and inputs that share memory, are saved apart."""
    x = torch.ones(2, 3)
    found = Saliency()(lambda a, b: (a * b).sum(1), (x, x))
    again = _again(found, tmp_path)
    assert torch.equal(again.inputs[0], again.inputs[1])


def _foreign(folder: Path) -> dict[str, Path]:
    path = folder / "good.safetensors"
    _explained().save(path)
    good = path.read_bytes()
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["whyglass"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
    paths = {
        name: folder / name
        for name in (
            "empty",
            "text",
            "cut",
            "other",
            "not json",
            "a list",
            "newer",
            "no structures",
            "no values",
            "strange legend",
            "strange check",
            "pickle",
        )
    }
    paths["empty"].write_bytes(b"")
    paths["text"].write_text("values: 1 2 3\n")
    paths["cut"].write_bytes(good[: len(good) // 2])
    torch.save({"values": torch.ones(2)}, paths["pickle"])
    save_file({"weight": torch.ones(2)}, paths["other"])

    def write(name: str, header: Any, keep: dict[str, Tensor] = tensors) -> None:
        text = header if isinstance(header, str) else json.dumps(header)
        save_file(keep, paths[name], {"whyglass": text})

    write("not json", "{")
    write("a list", [1, 2])
    write("newer", record | {"format": 999})
    write("no structures", {k: v for k, v in record.items() if k != "structures"})
    write("no values", record, {"score": tensors["score"]})
    write("strange legend", record | {"legend": {"colour": "red"}})
    write("strange check", record | {"checks": [{"name": "x"}]})
    return paths


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "text",
        "cut",
        "other",
        "not json",
        "a list",
        "newer",
        "no structures",
        "no values",
        "strange legend",
        "strange check",
        "pickle",
    ],
)
def test_a_foreign_file_is_refused(name: str, tmp_path: Path) -> None:
    path = _foreign(tmp_path)[name]
    with pytest.raises(BadInput) as refusal:
        Explanation.load(path)
    assert str(path) in str(refusal.value)


def test_a_newer_format_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"999.*reads 1"):
        Explanation.load(_foreign(tmp_path)["newer"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, BadInput)) as refusal:
        Explanation.load(tmp_path / "nowhere.safetensors")
    assert "nowhere" in str(refusal.value)


class TestFingerprint:
    """The hash of the state dict."""

    def _of(self, model: Any) -> str | None:
        x = torch.ones(1, 5, dtype=next(model.parameters()).dtype)
        return Saliency()(model, x).fingerprint()

    def test_is_that_of_the_weights(self) -> None:
        assert self._of(ZOO["mlp"].make()) == self._of(ZOO["mlp"].make())
        assert self._of(ZOO["mlp"].make(0)) != self._of(ZOO["mlp"].make(1))

    def test_changes_with_one_bit_of_one_weight(self) -> None:
        model: Any = ZOO["mlp"].make()
        before = self._of(model)
        with torch.no_grad():
            model.last.bias[0] = torch.nextafter(model.last.bias[0], torch.tensor(9.0).double())
        assert self._of(model) != before

    def test_tells_types_shapes_and_names_apart(self) -> None:
        model = nn.Sequential(nn.Linear(5, 4, bias=False))
        nn.init.zeros_(model[0].weight)
        other = nn.Sequential(nn.Identity(), nn.Linear(5, 4, bias=False))
        nn.init.zeros_(other[1].weight)
        half = nn.Sequential(nn.Linear(5, 8, bias=False)).bfloat16()
        nn.init.zeros_(half[0].weight)
        found = {self._of(model), self._of(other), self._of(half)}
        assert len(found) == 3

    def test_is_64_hexadecimal_digits_and_survives_saving(self, tmp_path: Path) -> None:
        found = _explained()
        digest = found.fingerprint()
        assert digest is not None
        assert len(digest) == 64
        int(digest, 16)
        assert _again(found, tmp_path).fingerprint() == digest

    def test_of_no_module_is_none(self, tmp_path: Path) -> None:
        found = FORMS["no module"]()
        assert found.fingerprint() is None
        assert _again(found, tmp_path).fingerprint() is None

    def test_of_buffers_and_integers(self) -> None:
        model = ZOO["residual"].make()
        x = ZOO["residual"].inputs(1)
        before = Saliency()(model, x).fingerprint()
        model.get_buffer("norms.0.num_batches_tracked").add_(1)
        assert Saliency()(model, x).fingerprint() != before


def test_is_frozen() -> None:
    found = _explained()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.values = torch.zeros(1)  # pyright: ignore[reportAttributeAccessIssue]


def test_repr_says_what_matters() -> None:
    text = repr(FORMS["tuple"]())
    for part in ("integrated-gradients", "3 rows", "(3, 4)", "(3, 3)", "evaluations", "gradients"):
        assert part in text
    assert "tensor(" not in text


def test_length_seed_and_targets() -> None:
    found = FORMS["standard errors"]()
    assert len(found) == 3
    assert found.seed == 5
    assert _explained().seed is None
    several = FORMS["several"]()
    assert several.targets[0] == ["0", "2", "1 rather than 0"]
    assert several.classes.tolist() == [[0, 2, 1]] * 3


def test_cite_is_bibtex() -> None:
    entry = _explained().cite()
    assert entry.startswith("@inproceedings{sundararajan2017axiomatic,\n")
    assert "title = {Axiomatic Attribution for Deep Networks}" in entry
    assert "year = {2017}" in entry
    assert entry.endswith("}\n")


def test_bibtex_separates_authors_with_and() -> None:
    """BibTeX reads a comma as the end of a family name, so commas cannot separate authors."""
    authors = next(line for line in _explained().cite().splitlines() if "author" in line)
    people = authors.split("{")[1].split("}")[0].split(" and ")
    assert len(people) == 3
    assert all(person.count(",") <= 1 for person in people)


class FakeShap(types.SimpleNamespace):
    """Stands for the package, to see what it is given."""

    class Explanation:
        def __init__(self, **given: Any) -> None:
            self.given = given


def test_to_shap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", FakeShap())
    names = Legend(feature_names=list("abcde"))
    found = _explained(target=Several(0, 1), legend=names)
    given = found.to_shap().given
    assert given["values"].shape == (3, 5, 2)
    assert given["base_values"].shape == (3, 2)
    assert given["data"].shape == (3, 5)
    assert given["feature_names"] == list("abcde")
    total = given["values"].sum(1) + given["base_values"]
    assert abs(total - found.score.numpy()).max() < 0.2
    without = Saliency()(ZOO["mlp"].make(), ZOO["mlp"].inputs()).to_shap().given
    assert without["base_values"].tolist() == [0, 0, 0]
    assert without["feature_names"] is None


def test_to_shap_of_several_inputs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", FakeShap())
    with pytest.raises(BadInput, match="one tensor"):
        FORMS["tuple"]().to_shap()


def test_to_shap_without_shap_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(MissingExtra, match=r"run: pip install shap$"):
        _explained().to_shap()


@pytest.mark.parametrize("name", [n for n in ZOO if ZOO[n].at is None and ZOO[n].layer])
@pytest.mark.parametrize("target", [1, Several(0, 1)])
def test_to_shap_refuses_a_layers_values(
    monkeypatch: pytest.MonkeyPatch, name: str, target: Any
) -> None:
    monkeypatch.setitem(sys.modules, "shap", FakeShap())
    network = ZOO[name]
    why = Saliency()(
        network.make(), network.inputs(), at=network.layer, target=target, output=network.output
    )
    with pytest.raises(BadInput, match=r"pairs each value|one tensor"):
        why.to_shap()


def test_to_shap_refuses_the_values_of_a_layer_as_wide_as_the_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "shap", FakeShap())
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 2)).eval()
    why = Saliency()(model, torch.ones(2, 3), at="0", target=1)
    with pytest.raises(BadInput, match="layer '0'"):
        why.to_shap()


def test_to_shap_refuses_a_map_of_one_channel_over_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", FakeShap())
    network = ZOO["gap-cnn"]
    why = Occlusion(window=4)(network.make(), network.inputs(), target=1)
    with pytest.raises(BadInput, match=r"a map of occlusion, \(3, 1, 8, 8\)"):
        why.to_shap()


def test_saving_makes_the_folder_and_says_where_it_cannot(tmp_path: Path) -> None:
    why = _explained()
    path = tmp_path / "new" / "folder" / "why.safetensors"
    why.save(path)
    torch.testing.assert_close(Explanation.load(path).values, why.values)
    for bad in (path / "inside-a-file", path.parent):
        with pytest.raises(BadInput, match="cannot be written"):
            why.save(bad)


def test_plot_takes_a_target_by_position_or_label() -> None:
    names = Legend(class_names=["benign", "malignant", "c", "d"])
    several = _explained(target=Several("benign", "malignant"), legend=names)
    for target in (1, "malignant"):
        assert "malignant" in several.plot(2, target).axes[0].get_title()
    assert (
        "malignant"
        in _explained(target=1, legend=names).plot(target="malignant").axes[0].get_title()
    )
    for bad in ("c", 2, -1):
        with pytest.raises(BadInput, match=r"was not explained: row 0 has 2 \(benign, malignant\)"):
            several.plot(target=bad)
    with pytest.raises(BadInput, match="row 3 is out of range"):
        several.plot(3)


def test_a_legend_may_be_a_dict() -> None:
    by_dict = _explained(target="b", legend={"class_names": list("abcd")})
    assert by_dict.legend == Legend(class_names=list("abcd"))
    for bad in ({"classes": list("abcd")}, ["a"], "ab"):
        with pytest.raises(BadInput, match="legend must be a Legend or a dict of class_names"):
            _explained(legend=bad)


def test_a_legend_takes_lists_arrays_tensors_and_numbered_names(tmp_path: Path) -> None:
    numbered = {str(i): name for i, name in enumerate("abcd")}
    for classes in (list("abcd"), tuple("abcd"), np.array(list("abcd")), numbered):
        legend = Legend(class_names=classes, feature_names=np.array(list("vwxyz")))  # pyright: ignore[reportArgumentType]
        assert legend == Legend(class_names=("a", "b", "c", "d"), feature_names=tuple("vwxyz"))
        assert _again(_explained(legend=legend), tmp_path).legend == legend
    for mean in (0.5, [0.5], torch.tensor([0.5]), np.array(0.5)):
        legend = Legend(pixel_mean=mean, pixel_std=mean)  # pyright: ignore[reportArgumentType]
        assert legend == Legend(pixel_mean=(0.5,), pixel_std=(0.5,))
        assert _again(_explained(legend=legend), tmp_path).legend == legend


@pytest.mark.parametrize(
    "fields",
    [
        {"class_names": "abcd"},
        {"class_names": {1: "a", 2: "b"}},
        {"feature_names": 5},
        {"titles": "abc"},
        {"tokens": "abc"},
        {"tokens": ["abc"] * 3},
        {"pixel_mean": "grey"},
    ],
    ids=str,
)
def test_what_is_no_list_of_names_is_refused_where_it_is_written(fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"legend {next(iter(fields))} .*must"):
        Legend(**fields)


MISFITS: dict[str, tuple[Legend, str]] = {
    "too few features": (Legend(feature_names=["a", "b"]), r"2 feature_names .*\(5,\)"),
    "too many features": (Legend(feature_names=list("abcdef")), "6 feature_names"),
    "too few classes": (Legend(class_names=["no"]), "1 class_names and the output 4"),
    "too many classes": (Legend(class_names=list("abcde")), "5 class_names and the output 4"),
    "too few titles": (Legend(titles=["a"]), "1 titles for 3 rows"),
    "tokens of one row": (Legend(tokens=[list("abcde")]), "1 lists of tokens for 3 rows"),
    "too few tokens": (
        Legend(tokens=[list("abcde"), list("abc"), list("abcde")]),
        "3 tokens in row 1",
    ),
    "a mean alone": (Legend(pixel_mean=[0.5]), "together"),
    "channels": (Legend(pixel_mean=[0.5] * 3, pixel_std=[0.5] * 3), "3 numbers in pixel_mean"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_legend_that_does_not_fit_is_refused(name: str) -> None:
    legend, words = MISFITS[name]
    with pytest.raises(BadInput, match=words):
        _explained(legend=legend)


def test_a_layer_may_bear_its_own_names_or_those_of_the_input() -> None:
    network = ZOO["mlp"]
    for count in (5, 16):
        names = Legend(feature_names=[str(i) for i in range(count)])
        assert (
            Saliency()(network.make(), network.inputs(), at="first", legend=names).legend == names
        )
    with pytest.raises(BadInput, match="7 feature_names"):
        Saliency()(
            network.make(),
            network.inputs(),
            at="first",
            legend=Legend(feature_names=list("abcdefg")),
        )


def test_to_shap_with_the_package_itself() -> None:
    shap = pytest.importorskip("shap")
    made = _explained().to_shap()
    assert isinstance(made, shap.Explanation)
    assert made.values.shape == (3, 5)


def test_held_inputs_are_noted() -> None:
    network = ZOO["masked"]
    found = Saliency()(network.make(), network.inputs(), **arguments(Saliency, network))
    assert any("mask" in note and "bool" in note for note in found.notes)
    assert not leaves(found.values)[1].any()
