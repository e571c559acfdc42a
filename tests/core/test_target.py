"""The vocabulary of targets, each word against a formula written out here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.zoo.networks import ZOO, Prediction
from whyglass import (
    BadInput,
    Contrast,
    Explanation,
    GradientXInput,
    IntegratedGradients,
    Legend,
    LogOdds,
    Probability,
    Saliency,
    Several,
)

NAMES = ["tabby", "tiger cat", "Ägyptische Mau", "红猫"]


class Named(NamedTuple):
    loss: Tensor
    logits: Tensor


def _model() -> nn.Module:
    return ZOO["mlp"].make()


def _inputs(rows: int = 3) -> Tensor:
    made = ZOO["mlp"].inputs(rows)
    assert isinstance(made, Tensor)
    return made


def _naive(score: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Score and gradient x input of one scalar a row, by autograd alone."""
    x = x.clone().requires_grad_()
    scores = score(_model()(x))
    (gradient,) = torch.autograd.grad(scores.sum(), x)
    return scores.detach(), x.detach() * gradient


def _explained(target: Any, x: Tensor | None = None, **more: Any) -> Explanation:
    return GradientXInput()(_model(), _inputs() if x is None else x, target=target, **more)


def _softmax(output: Tensor, c: int) -> Tensor:
    return output.exp()[:, c] / output.exp().sum(1)


# name: target, its formula, the label of the first row
FORMULAS: dict[str, tuple[Any, Callable[[Tensor], Tensor], str]] = {
    "predicted": (None, lambda y: y.amax(1), ""),
    "integer": (2, lambda y: y[:, 2], "2"),
    "tensor": (torch.tensor(2), lambda y: y[:, 2], "2"),
    "tensor a row": (torch.tensor([3, 0, 1]), lambda y: y[[0, 1, 2], [3, 0, 1]], "3"),
    "bytes a row": (torch.tensor([3, 0, 1]).byte(), lambda y: y[[0, 1, 2], [3, 0, 1]], "3"),
    "list": ([3, 0, 1], lambda y: torch.stack([y[0, 3], y[1, 0], y[2, 1]]), "3"),
    "entry": ((1,), lambda y: y[:, 1], "1"),
    "entry a row": (torch.tensor([[3], [0], [1]]), lambda y: y[[0, 1, 2], [3, 0, 1]], "3"),
    "probability": (Probability(1), lambda y: _softmax(y, 1), "probability of 1"),
    "log-odds": (LogOdds(1), lambda y: torch.logit(_softmax(y, 1)), "log-odds of 1"),
    "probability of predicted": (
        Probability(),
        lambda y: y.softmax(1).amax(1),
        "probability of ",
    ),
    "log-odds of list": (
        LogOdds([3, 0, 1]),
        lambda y: torch.logit(y.softmax(1)[[0, 1, 2], [3, 0, 1]]),
        "log-odds of 3",
    ),
    "contrast": (Contrast(2, 0), lambda y: y[:, 2] - y[:, 0], "2 rather than 0"),
    "contrast of predicted": (
        Contrast(None, [1, 1, 0]),
        lambda y: y.amax(1) - y[[0, 1, 2], [1, 1, 0]],
        " rather than 1",
    ),
    "callable": (
        lambda y: y[:, 1] ** 2 - y[:, 0],
        lambda y: y[:, 1] ** 2 - y[:, 0],
        "callable target",
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_vocabulary(name: str) -> None:
    target, formula, label = FORMULAS[name]
    scores, values = _naive(formula, _inputs())
    found = _explained(target)
    torch.testing.assert_close(found.score, scores)
    torch.testing.assert_close(found.values, values)
    assert found.score.shape == (3,)
    assert label in found.targets[0][0]


@pytest.mark.parametrize("name", FORMULAS)
def test_vocabulary_within_several(name: str) -> None:
    target, formula, label = FORMULAS[name]
    scores, values = _naive(formula, _inputs())
    found = _explained(Several(1, target))
    torch.testing.assert_close(found.score[:, 1], scores)
    torch.testing.assert_close(found.values[..., 1], values)
    torch.testing.assert_close(found.values[..., 0], _explained(1).values)
    assert [row[0] for row in found.targets] == ["1", "1", "1"]
    assert label in found.targets[0][1]


def test_several_of_one_keeps_its_axis() -> None:
    found = _explained(Several(2))
    assert found.values.shape == (3, 5, 1)
    assert found.score.shape == (3, 1)
    torch.testing.assert_close(found.values[..., 0], _explained(2).values)


def test_predicted_class_is_told() -> None:
    found = _explained(None)
    predicted = _model()(_inputs()).argmax(1)
    assert found.classes is not None
    assert found.classes.tolist() == predicted.tolist()
    assert found.targets == [[str(c)] for c in predicted.tolist()]
    assert _explained(Contrast(1, 0)).classes is not None
    assert _explained(lambda y: y[:, 0]).classes is None


def test_predicted_class_does_not_move_along_the_path() -> None:
    """The class is that of the input, also where a path point would be predicted otherwise."""
    model, x = ZOO["mlp"].make(), _inputs(6)
    chosen, at_zero = model(x).argmax(1), model(torch.zeros_like(x))
    assert not torch.equal(at_zero.argmax(1), chosen)
    by_name = IntegratedGradients(steps=40, rule="midpoint")(model, x, target=chosen)
    default = IntegratedGradients(steps=40, rule="midpoint")(model, x)
    torch.testing.assert_close(default.values, by_name.values)
    torch.testing.assert_close(default.baseline_score, at_zero[range(6), chosen].detach())


def test_class_names() -> None:
    legend = Legend(class_names=NAMES)
    for index, name in enumerate(NAMES):
        found = _explained(name, legend=legend)
        torch.testing.assert_close(found.values, _explained(index).values)
        assert found.targets == [[name]] * 3
    found = _explained(Contrast("红猫", "tabby"), legend=legend)
    assert found.targets[0] == ["红猫 rather than tabby"]
    torch.testing.assert_close(found.values, _explained(Contrast(3, 0)).values)
    assert _explained(Probability("tabby"), legend=legend).targets[0] == ["probability of tabby"]
    assert _explained(None, legend=legend).targets[0][0] in NAMES


@settings(max_examples=30, deadline=None)
@given(
    logits=st.lists(st.floats(-50, 50), min_size=2, max_size=6),
    scale=st.sampled_from([1.0, 1e-3]),
    place=st.integers(0, 5),
)
def test_probability_and_log_odds(logits: list[float], scale: float, place: int) -> None:
    """Against softmax and its logit in float64, where those do not round to 0 or 1."""
    chosen = place % len(logits)
    total = sum(logits) * scale
    # What looks like probabilities is refused, which another test shows.
    assume(min(logits) < 0 or abs(total - 1) > 1e-3)
    x = torch.tensor([logits], dtype=torch.float64) * scale
    found = Saliency()(
        lambda given: given * 1, x, target=Several(Probability(chosen), LogOdds(chosen))
    )
    shifted = (x[0] - x.max()).exp()
    probability = shifted[chosen] / shifted.sum()
    others = sum(v for i, v in enumerate(shifted) if i != chosen)
    torch.testing.assert_close(found.score[0, 0], probability, rtol=1e-9, atol=1e-300)
    odds = (shifted[chosen] / others).log()
    torch.testing.assert_close(found.score[0, 1], odds, rtol=1e-9, atol=1e-9)


def test_log_odds_of_a_certain_class_are_finite_and_have_a_gradient() -> None:
    x = torch.tensor([[200.0, -200.0, 0.0]])
    found = Saliency()(lambda given: given * 1, x, target=LogOdds(0))
    assert found.score.item() == pytest.approx(200)
    torch.testing.assert_close(found.values, torch.tensor([[1.0, 0.0, 1.0]]))


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_output(shape: tuple[int, ...]) -> None:
    """(B,) or (B, 1): the output itself by default, and a sigmoid for its probability."""

    def model(x: Tensor) -> Tensor:
        return (x[:, 0] * 2 - x[:, 1]).reshape(-1, *shape)

    x = torch.tensor([[1.0, 3.0], [2.0, 0.5]], dtype=torch.float64)
    logit = 2 * x[:, 0] - x[:, 1]
    torch.testing.assert_close(Saliency()(model, x).score, logit)
    torch.testing.assert_close(Saliency()(model, x, target=LogOdds()).score, logit)
    probability = Saliency()(model, x, target=Probability())
    torch.testing.assert_close(probability.score, 1 / (1 + (-logit).exp()))
    slope = probability.score * (1 - probability.score)
    torch.testing.assert_close(probability.values, torch.stack([2 * slope, slope], 1))
    label = Saliency()(model, x).targets[0][0]
    assert label == "output"


def test_an_entry_of_a_longer_output() -> None:
    """(t, v) of an output (B, T, V), and softmax over V at that t."""
    table = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        return torch.einsum("bi,itv->btv", x**2, table)

    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    output = model(x)
    found = Saliency()(model, x, target=(1, 3))
    torch.testing.assert_close(found.score, output[:, 1, 3])
    assert found.targets[0] == ["1, 3"]
    assert found.classes is None
    torch.testing.assert_close(
        Saliency()(model, x, target=Probability((2, 0))).score, output.softmax(2)[:, 2, 0]
    )
    torch.testing.assert_close(
        Saliency()(model, x, target=LogOdds((2, 0))).score, output.softmax(2)[:, 2, 0].logit()
    )
    torch.testing.assert_close(
        Saliency()(model, x, target=Contrast((0, 1), (2, 3))).score,
        output[:, 0, 1] - output[:, 2, 3],
    )
    per_row = torch.tensor([[0, 1], [2, 2]])
    torch.testing.assert_close(
        Saliency()(model, x, target=per_row).score, torch.stack([output[0, 0, 1], output[1, 2, 2]])
    )
    several = Saliency()(model, x, target=Several((0, 1), (2, 2)))
    torch.testing.assert_close(several.score, torch.stack([output[:, 0, 1], output[:, 2, 2]], 1))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda y: {"loss": y.sum(), "logits": y}, "logits"),
        (lambda y: (y.sum(), y), 1),
        (lambda y: [y], 0),
        (lambda y: Prediction(None, y), "logits"),
        (lambda y: Prediction(None, y), lambda result: result.logits),
        (lambda y: Named(y.sum(), y), "logits"),
        (lambda y: Named(y.sum(), y), 1),
        (lambda y: torch.cat([y, y], 1), lambda result: result[:, :4]),
    ],
)
def test_output_says_which(wrap: Callable[[Tensor], Any], output: Any) -> None:
    body = _model()
    found = Saliency()(lambda x: wrap(body(x)), _inputs(), output=output)
    torch.testing.assert_close(found.values, Saliency()(body, _inputs()).values)


def test_a_callable_sees_the_selected_output() -> None:
    body = _model()
    found = Saliency()(
        lambda x: {"logits": body(x)}, _inputs(), output="logits", target=lambda y: y[:, 0]
    )
    torch.testing.assert_close(found.values, _explained(0).values.div(_inputs()).abs())


def test_half_precision_scores_are_float32() -> None:
    x = torch.tensor([[3.0, 0.1]], dtype=torch.bfloat16)
    found = Saliency()(lambda given: given * 1, x, target=Probability(1))
    assert found.score.dtype == torch.float32
    expected = torch.softmax(x.double(), 1)[:, 1]
    torch.testing.assert_close(found.score.double(), expected, rtol=1e-6, atol=0)


BAD: dict[str, tuple[Any, list[str]]] = {
    "too large": (4, ["target", "4", "out of range", "0 to 3"]),
    "negative": (-1, ["target", "-1", "out of range"]),
    "too large in a row": ([0, 1, 9], ["target", "9", "out of range"]),
    "negative in a row": (torch.tensor([0, -7, 1]), ["target", "-7"]),
    "too large to contrast with": (Contrast(0, 12), ["12", "out of range"]),
    "float": (1.0, ["target", "1.0", "integer"]),
    "flag": (True, ["target", "True", "integer"]),
    "floats": ([0.5, 1.0, 2.0], ["target", "0.5", "integer"]),
    "flags": ([True, False, True], ["target", "integer"]),
    "float tensor": (torch.tensor([0.0, 1.0, 2.0]), ["target", "float32", ".long()"]),
    "flag tensor": (torch.tensor([True, False, True]), ["target", "bool", ".long()"]),
    "too few": ([0, 1], ["target", "2 entries", "3 rows", "one class a row"]),
    "too many": (torch.tensor([0, 1, 2, 3]), ["target", "4 entries", "3 rows"]),
    "too many axes": ((1, 2), ["target", "(1, 2)", "2 axes"]),
    "name without names": ("tabby", ["target", "'tabby'", "class_names"]),
    "object": (object(), ["target", "object"]),
    "too large in several": (Several(0, 9), ["9", "out of range"]),
    "one score for all": (lambda y: y.sum(), ["target", "(3,)", "one score a row"]),
    "no tensor": (lambda y: 3.0, ["target", "float"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_targets(name: str) -> None:
    target, words = BAD[name]
    with pytest.raises(BadInput) as refusal:
        _explained(target)
    for word in words:
        assert word in str(refusal.value)


def test_a_name_nearly_right_is_answered_with_the_right_one() -> None:
    with pytest.raises(BadInput, match="did you mean 'tabby'"):
        _explained("taby", legend=Legend(class_names=NAMES))
    with pytest.raises(BadInput, match="4 class names"):
        _explained("zebra", legend=Legend(class_names=NAMES))


def test_a_missing_target_of_a_longer_output() -> None:
    with pytest.raises(BadInput, match=r"target is missing.*\(3, 2, 2\).*target=\(0, 0\)"):
        Saliency()(lambda x: x[:, :4].reshape(-1, 2, 2), _inputs())


def test_a_target_for_one_number_a_row() -> None:
    with pytest.raises(BadInput, match="leave target out"):
        Saliency()(lambda x: x.sum(1), _inputs(), target=0)


def test_probability_of_probabilities() -> None:
    for target in (Probability(1), LogOdds(1)):
        with pytest.raises(BadInput, match="sums to 1"):
            Saliency()(lambda x: x.softmax(1), _inputs(), target=target)


def test_several_of_nothing_or_of_several() -> None:
    with pytest.raises(BadInput, match="at least one"):
        Several()
    with pytest.raises(BadInput, match="another Several"):
        _explained(Several(0, Several(1, 2)))  # pyright: ignore[reportArgumentType]
