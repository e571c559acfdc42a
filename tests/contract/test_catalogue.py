"""Every entry of the catalogue: its name, its papers, its seed, its settings, and its explanation."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import whyglass
from tests.contract.cases import (
    METHOD_CASES,
    NETWORK_CASES,
    ON_NETWORKS,
    applies,
    arguments,
    assert_same,
    cheap,
    fields,
    home,
    leaves,
    pairs,
    plain,
    small,
)
from tests.zoo.networks import ZOO, Network
from whyglass import METHODS, BadInput, Explanation, Method, Several
from whyglass.catalogue import table

NEEDS = {"gradients", "layer", "images", "attention", "retraining"}


@pytest.mark.parametrize("kind", METHOD_CASES)
class TestEntry:
    def test_name_is_kebab_case_and_the_class_the_same_in_camel_case(
        self, kind: type[Method]
    ) -> None:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", kind.name)
        assert METHODS[kind.name] is kind
        assert kind.name.replace("-", "") == kind.__name__.lower()
        assert getattr(whyglass, kind.__name__) is kind
        assert kind.__name__ in whyglass.__all__

    def test_paper_and_words(self, kind: type[Method]) -> None:
        assert kind.paper.authors
        assert kind.paper.title
        assert kind.paper.venue
        assert 1950 <= kind.paper.year <= 2030
        assert kind.paper.url.startswith("https://")
        assert kind.family in {"gradient", "cam", "coalition", "propagation", "combined"}
        assert kind.cost
        assert set(kind.needs) <= NEEDS
        assert kind.baseline_is in {"unused", "row", "background", "either"}
        assert kind.data

    def test_docstring_has_sentence_formula_units_source_and_example(
        self, kind: type[Method]
    ) -> None:
        text = inspect.getdoc(kind) or ""
        first, _, rest = text.partition("\n\n")
        assert "\n" not in first
        assert first.endswith(".")
        assert ".. math::" in rest
        assert "Units:" in rest
        assert re.search(r"Source: \S+.*\(\d{4}\)", rest, re.DOTALL)
        assert f"({kind.paper.year})" in rest
        assert ">>> " in rest

    def test_every_setting_is_documented_and_plain(self, kind: type[Method]) -> None:
        documented = "\n".join(inspect.getdoc(base) or "" for base in kind.__mro__)
        for name in fields(kind):
            assert re.search(
                rf"^ *{name}:|^ *(\w+, )+{name}(, \w+)*:|^ *{name}(, \w+)+:",
                documented,
                re.MULTILINE,
            ), name

    def test_is_frozen_and_takes_keywords_only(self, kind: type[Method]) -> None:
        method = kind()
        with pytest.raises(dataclasses.FrozenInstanceError):
            method.steps = 3  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(TypeError, match="positional"):
            kind(3)  # pyright: ignore[reportCallIssue]
        assert kind() == kind()
        assert hash(kind()) == hash(kind())

    def test_a_setting_it_lacks_is_refused(self, kind: type[Method]) -> None:
        with pytest.raises(BadInput, match="stepz") as refusal:
            whyglass.explain(lambda x: x, torch.ones(1, 1), method=kind.name, stepz=3)
        assert kind.name in str(refusal.value)
        for name in fields(kind):
            assert name in str(refusal.value)


@pytest.mark.parametrize("kind", NETWORK_CASES)
class TestExplained:
    def test_explain_by_name_is_the_same_call(self, kind: type[Method]) -> None:
        network, chosen = home(kind), cheap(kind)
        given = arguments(kind, network, target=1)
        by_name = whyglass.explain(
            network.make(), network.inputs(), method=kind.name, **chosen, **given
        )
        by_value = whyglass.explain(
            network.make(), network.inputs(), method=kind(**chosen), **given
        )
        assert_same(by_name, by_value, 0, 0)
        assert by_name.method == kind.name
        assert set(by_name.settings) == fields(kind)

    def test_settings_survive_json(self, kind: type[Method]) -> None:
        network = home(kind)
        found = small(kind)(network.make(), network.inputs(), **arguments(kind, network))
        assert json.loads(json.dumps(dict(found.settings))) == dict(found.settings)

    def test_citation(self, kind: type[Method]) -> None:
        network = home(kind)
        found = small(kind)(network.make(), network.inputs(1), **arguments(kind, network))
        entry = found.cite()
        assert re.match(r"@\w+\{\w+,\n", entry)
        assert entry.count("{") == entry.count("}")
        for part in (kind.paper.title, kind.paper.authors.split()[-1], str(kind.paper.year)):
            assert part in entry


@pytest.mark.parametrize("name", [n for n, k in ON_NETWORKS.items() if k.baseline_is == "unused"])
def test_a_baseline_that_is_not_used_is_refused(name: str) -> None:
    network = home(METHODS[name])
    with pytest.raises(BadInput, match="baseline"):
        METHODS[name]()(network.make(), network.inputs(), baseline=0.0)


# The seed of a method without samples is that of a check, and its values do not depend on it.
SEEDED = [case for case in METHOD_CASES if {"seed", "samples"} <= fields(case.values[0])]


@pytest.mark.parametrize("kind", SEEDED)
class TestSeeded:
    def test_returns_standard_errors_and_its_seed(self, kind: type[Method]) -> None:
        several = [ZOO[name] for name in ("two-inputs", "dict-input") if applies(kind, ZOO[name])]
        for network in (plain(kind), *several):
            found = small(kind, seed=7)(
                network.make(), network.inputs(), **arguments(kind, network)
            )
            assert found.seed == 7
            assert type(found.std_error) is type(found.values)
            for error, value in zip(leaves(found.std_error), leaves(found.values), strict=True):
                assert error.shape == value.shape
                assert (error >= 0).all()
            assert any(error.any() for error in leaves(found.std_error))

    def test_same_seed_same_numbers_other_seed_others(self, kind: type[Method]) -> None:
        network = plain(kind)
        given = arguments(kind, network)

        def answer(seed: int) -> Explanation:
            torch.manual_seed(torch.seed() % 1000)  # what the global generator holds is no matter
            return small(kind, seed=seed)(network.make(), network.inputs(), **given)

        with torch.random.fork_rng(devices=[]):
            assert_same(answer(3), answer(3), 0, 0)
            assert not torch.equal(answer(3).values, answer(4).values)

    def test_more_samples_continue_the_same_draws(self, kind: type[Method]) -> None:
        """A tolerance that is never met gives what the count alone gives."""
        network = plain(kind)
        given = arguments(kind, network)
        budget: dict[str, Any] = {"samples": 20} if "samples" in fields(kind) else {"budget": 26}
        by_count = kind(**budget)(network.make(), network.inputs(), **given)
        by_tol = kind(**budget, tol=1e-9)(network.make(), network.inputs(), **given)
        assert_same(by_tol, by_count)
        assert by_tol.gradients == by_count.gradients
        assert by_tol.evaluations == by_count.evaluations

    def test_batch_size_does_not_matter(self, kind: type[Method]) -> None:
        network = plain(kind)
        given = arguments(kind, network)
        whole = small(kind)(network.make(), network.inputs(), **given)
        for size in (1, 2, 4, 5, 7):
            found = small(kind)(network.make(), network.inputs(), **given, batch_size=size)
            assert_same(found, whole)


def test_methods_that_draw_have_a_seed() -> None:
    """A generator appears only in methods with a seed."""
    for kind in METHODS.values():
        source = "".join(
            inspect.getsource(base)
            for base in kind.__mro__[:-1]
            if base.__module__.startswith("whyglass")
        )
        assert ("Generator(" in source) == ("seed" in fields(kind)), kind


@pytest.mark.parametrize(("kind", "network"), pairs())
def test_saved_and_loaded_is_the_same(kind: type[Method], network: Network, tmp_path: Path) -> None:
    found = small(kind)(network.make(), network.inputs(), **arguments(kind, network))
    path = tmp_path / "explanation.safetensors"
    found.save(path)
    again = Explanation.load(path)
    assert_loaded(again, found)


def assert_loaded(again: Explanation, found: Explanation) -> None:
    for name in (
        "values",
        "inputs",
        "std_error",
        "players",
        "player_values",
        "player_std_error",
        "baseline",
        "score",
        "baseline_score",
        "classes",
    ):
        mine, others = getattr(again, name), getattr(found, name)
        assert type(mine) is type(others), name
        if isinstance(mine, dict):
            assert list(mine) == list(others)
        for a, b in zip(leaves(mine), leaves(others), strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b), name
    for name in (
        "method",
        "paper",
        "at",
        "evaluations",
        "gradients",
        "seconds",
        "checks",
        "notes",
        "targets",
        "verdict",
        "seed",
        "legend",
        "levels",
    ):
        assert getattr(again, name) == getattr(found, name), name
    assert dict(again.settings) == dict(found.settings)
    assert again.fingerprint() == found.fingerprint()
    assert again.cite() == found.cite()
    assert again.model is None


@pytest.mark.parametrize("kind", NETWORK_CASES)
def test_several_targets_saved_and_loaded(kind: type[Method], tmp_path: Path) -> None:
    network = home(kind)
    target = Several(1, 2)
    found = small(kind)(network.make(), network.inputs(), **arguments(kind, network, target=target))
    found.save(tmp_path / "several.safetensors")
    assert_loaded(Explanation.load(tmp_path / "several.safetensors"), found)
    assert found.score.shape == (3, 2)
    assert leaves(found.values)[0].shape[-1] == 2


@pytest.mark.parametrize("kind", NETWORK_CASES)
def test_each_target_of_several_is_the_answer_alone(kind: type[Method]) -> None:
    network = home(kind)
    model, inputs = network.make(), network.inputs()
    exact: dict[str, Any] = {"rule": "midpoint"} if {"rule", "steps"} <= fields(kind) else {}
    many = small(kind, **exact)(
        model, inputs, **arguments(kind, network, target=Several(1, [0, 3, 2]))
    )
    for k, target in enumerate((1, [0, 3, 2])):
        one = small(kind, **exact)(model, inputs, **arguments(kind, network, target=target))
        torch.testing.assert_close(many.values[..., k], one.values)
        torch.testing.assert_close(many.score[:, k], one.score)
        assert [row[k] for row in many.targets] == [row[0] for row in one.targets]


def test_table_has_a_row_a_method() -> None:
    rows = table()
    assert [row["name"] for row in rows] == list(METHODS)
    for row in rows:
        assert all(isinstance(value, str) for value in row.values())
        assert row["shows"].endswith(".")
        assert re.fullmatch(r"\S+ \d{4}", row["paper"]), row["paper"]
