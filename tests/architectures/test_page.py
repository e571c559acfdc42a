"""The page of architectures says of each case what the benchmark measured."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.architectures import DIFFERENTIABLE, Outcome
from benchmarks.architectures_page import GROUPS, Sentences, accounted, cell, page


def row(method: str, result: str = "answered", **figures: Any) -> Outcome:
    return Outcome(family="LeNet", method=method, result=result, **figures)


@pytest.mark.parametrize(
    ("figures", "text", "right"),
    [
        ({"gap": 2e-3}, "conserved", True),
        ({"gap": 0.4, "absorbed": 0.395, "unaccounted": 0.005}, "absorbed 40%", True),
        ({"gap": 0.4, "absorbed": 0.2, "unaccounted": 0.2}, "absorbed 20%, unaccounted 20%", False),
        ({"gap": 0.4, "absorbed": 0.0, "unaccounted": 0.4}, "unaccounted 40%", False),
    ],
)
def test_relevance(figures: dict[str, float], text: str, right: bool) -> None:
    assert cell([row("lrp", **figures)], Sentences()) == text
    assert accounted(row("lrp", **figures)) == right


@pytest.mark.parametrize(
    ("gap", "narrowed", "text"),
    [
        (3e-15, False, "complete"),
        (2e-6, False, "gap 2e-06"),
        (2e-6, True, "gap 2e-06 (float32 inside)"),
        (3e-7, True, "complete"),
    ],
)
def test_completeness(gap: float, narrowed: bool, text: str) -> None:
    assert cell([row("deeplift", gap=gap, narrowed=narrowed)], Sentences()) == text


def test_sentences_that_differ_in_names_and_numbers_are_one() -> None:
    sentences = Sentences()
    texts = [
        "inputs['ids'] is torch.int64; called at model.py:12. Ways out: at=",
        "inputs['x'] is torch.int64; called at other.py:3. Ways out: at=",
    ]
    refused = [row("lrp", "refused", text=text) for text in texts]
    assert [cell([one], sentences) for one in refused] == ["no [1]", "no [1]"]
    mixed = [row("saliency"), row("vargrad", "refused", text="another")]
    assert cell(mixed, sentences) == "1 of 2 [2]"
    assert sentences.listed().count("\n") == 1


def test_every_differentiable_method_has_a_column() -> None:
    columns = [name for group in GROUPS.values() for name in group]
    assert sorted([*columns, "cam"]) == sorted(DIFFERENTIABLE)


def test_the_page_counts() -> None:
    rows = [row(name) for name in DIFFERENTIABLE if name not in {"deeplift", "lrp", "saliency"}]
    rows += [row("deeplift", gap=1e-9, ratio=2.0), row("lrp", gap=0.5, unaccounted=0.5)]
    text = page([*rows, row("saliency", "raw error", text="KeyError: 'x'")], 3.0)
    for line in (
        "raw errors: 1; hangs: 0",
        "DeepLIFT complete to 1e-6: 1 of 1",
        "stated: 0 of 1",
        "### Convolutional networks",
        "raw error: KeyError",
    ):
        assert line in text, line
