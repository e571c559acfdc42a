"""Relevance on networks people use: bounded, conserved where it should be, on what decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from whyglass import CPLRP, LRP, AttnLRP
from whyglass.core.method import Method
from whyglass.data.image import Preprocess, read
from whyglass.data.loading import load

DATA = Path(__file__).parents[4] / "shared" / "data"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the project")


def measured(method: Method, *args: object, **kwargs: object) -> dict[str, float]:
    found = method(*args, **kwargs)  # type: ignore[arg-type]
    return {check.name: check.measured for check in found.checks}


@with_data
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_on_a_text_model(attention: str) -> None:
    minilm = pytest.importorskip("tests.zoo.minilm", reason="the package of MiniLM is missing")
    questions = minilm.tokens(["Who was Galileo ?", "How far is it from Denver to Aspen ?"])
    model = minilm.MiniLM(attention).eval()
    given = {"at": minilm.WORDS}
    assert measured(LRP(), model, questions, **given)["conservation"] < 1
    for method in (LRP(), AttnLRP(), CPLRP(), AttnLRP(rule="gamma")):
        assert measured(method, model, questions, **given)["cancellation"] < 100
    # From behind the last embedding norm no position takes part, and nothing but epsilon is lost.
    assert measured(LRP(), model, questions, at="body.embeddings")["conservation"] < 1e-3


@pytest.mark.slow
@with_data
@pytest.mark.parametrize("network", ["efficientnet-lite0", "squeezenet"])
def test_on_photographs(network: str) -> None:
    if network == "squeezenet":
        weights = DATA / "squeezenet1_0_imagenet" / "squeezenet1_0.safetensors"
        model, prepare = (
            load("tests.zoo.squeezenet:squeezenet1_0", weights).model, Preprocess(227, 227)
        )  # fmt: skip
    else:
        pytest.importorskip("efficientnet_lite_pytorch", reason="extra demo is not installed")
        loaded = load(network)
        model, prepare = loaded.model, loaded.preprocess
    files = sorted((DATA / "imagenet_sample").glob("*.JPEG"))[::90]
    images = torch.stack([prepare(read(file)) for file in files])
    for rule in ("gamma", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box"):
        found = LRP(rule=rule)(model, images)
        assert isinstance(found.values, Tensor)
        assert {check.name: check.measured for check in found.checks}["cancellation"] < 100
        assert found.values.flatten(1).sum(1).gt(0).all()
    share = LRP(rule="epsilon", bias="share")(model, images)
    assert {check.name: check.measured for check in share.checks}["cancellation"] < 1000
