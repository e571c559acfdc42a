"""A dozen families of architectures: no method ends in an error of its own, and sums hold.

The whole table, with every family and every method, is made by `python -m benchmarks.architectures`.
"""

from __future__ import annotations

import pytest

from benchmarks.architectures import Bench, Outcome
from benchmarks.architectures_page import EXACT, PROBLEMS, accounted
from tests.zoo.families import FAMILIES

METHODS = (
    "saliency",
    "gradient-x-input",
    "smoothgrad",
    "expected-gradients",
    "integrated-gradients",
    "grad-cam",
    "score-cam",
    "guided-grad-cam",
    "lrp",
    "attn-lrp",
    "attention-rollout",
    "chefer",
    "deeplift",
    "deep-shap",
    "weight-of-evidence",
    "dasp",
    "guided-backprop",
)
HANDMADE = (
    "MobileNet, dropout in place",
    "EfficientNet, dropout in place",
    "perceptron, dropout in place",
    "siamese",
    "shared embedding",
    "LSTM, time first",
    "state space, written in place",
    "mixture of experts",
)
PRETRAINED = (
    "Swin",
    "SegFormer",
    "XLNet",
    "FNet",
    "Mixtral",
    "Switch Transformers",
    "Mamba",
    "BLOOM",
    "T5",
)


@pytest.fixture(scope="module", params=[*HANDMADE, *PRETRAINED])
def outcomes(request: pytest.FixtureRequest) -> dict[str, Outcome]:
    """What each method makes of one family."""
    if request.param in PRETRAINED:
        pytest.importorskip("transformers", reason="extra dev is not installed")
    bench = Bench(FAMILIES[request.param], limit=60)
    # Integrated gradients come before DeepLIFT, which is held against their scores at both ends.
    return {name: bench.run(name) for name in METHODS}


def test_no_method_ends_in_a_raw_error_or_hangs(outcomes: dict[str, Outcome]) -> None:
    assert [one.line() for one in outcomes.values() if one.result in PROBLEMS] == []


def test_gradients_answer(outcomes: dict[str, Outcome]) -> None:
    for name in ("saliency", "gradient-x-input", "smoothgrad", "integrated-gradients"):
        assert outcomes[name].result == "answered", outcomes[name].line()


def test_deeplift_is_complete(outcomes: dict[str, Outcome]) -> None:
    found = outcomes["deeplift"]
    assert found.result == "answered", found.line()
    assert found.gap is not None
    # Where a network computes in float32 inside, its own scores are known to no more.
    assert found.gap <= (1e-5 if found.narrowed else EXACT), found.line()


def test_relevance_is_conserved_or_its_loss_is_stated(outcomes: dict[str, Outcome]) -> None:
    assert accounted(outcomes["lrp"]), outcomes["lrp"].line()
