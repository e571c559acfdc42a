"""Weight of evidence: the book's figures, a naive version, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.zoo.networks import ZOO
from whyglass import BadInput, Contrast, DeepLIFT, LogOdds, Probability, Several, WeightOfEvidence
from whyglass.core.explanation import Explanation
from whyglass.propagation.deeplift.weight_of_evidence import DISTRIBUTED, EXACT

F64 = torch.float64
P = torch.tensor([[2.0, 0.0]], dtype=F64)


def layer(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    made = nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor(weight, dtype=F64))
        made.bias.copy_(torch.tensor(bias, dtype=F64))
    return made


def numbers(found: Explanation) -> tuple[list[float], float, float]:
    assert isinstance(found.values, Tensor)
    assert found.baseline_score is not None
    return found.values[0].tolist(), found.score.item(), found.baseline_score.item()


@pytest.mark.parametrize(
    ("bias", "prior", "score", "baseline_score"),
    [
        (0.0, 0.5, 2, 0),
        (-1.0, 0.5, 1, -1),
        (-1.0, 0.3, 1.8472978604, -0.1527021396),
        (0.0, 0.3, 2.8472978604, 0.8472978604),
    ],
)
def test_figures_of_the_book(
    bias: float, prior: float, score: float, baseline_score: float
) -> None:
    """NND2 chapter 9, equation 9.5 and figure 9.1: the values are w_i p_i whatever the prior."""
    found = WeightOfEvidence(prior=prior)(layer([[1, 1]], [bias]), P)
    values, at_input, at_baseline = numbers(found)
    assert values == pytest.approx([2, 0], abs=1e-6)
    assert at_input == pytest.approx(score, abs=1e-6)
    assert at_baseline == pytest.approx(baseline_score, abs=1e-6)
    assert found.checks[0].verdict == "pass"
    assert found.notes == (EXACT,)


def naive(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, c: int, prior: float) -> float:
    """Equation 9.5 word for word: ln P(E|H) / P(E|not H) by Bayes' rule; P(E) cancels."""
    powers = np.exp(weight @ x + bias)
    posterior = powers[c] / powers.sum()
    return float(np.log((posterior / prior) / ((1 - posterior) / (1 - prior))))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("prior", [0.5, 0.2])
def test_score_is_the_evidence_by_bayes_rule(classes: int, prior: float) -> None:
    draw = np.random.default_rng(classes)
    weight, bias = draw.normal(size=(classes, 4)), draw.normal(size=classes)
    x = draw.normal(size=4)
    net = layer(weight.tolist(), bias.tolist())
    found = WeightOfEvidence(prior=prior)(net, torch.from_numpy(x)[None], target=1)
    values, score, baseline_score = numbers(found)
    assert score == pytest.approx(naive(weight, bias, x, 1, prior), abs=1e-9)
    assert baseline_score == pytest.approx(naive(weight, bias, 0 * x, 1, prior), abs=1e-9)
    assert sum(values) == pytest.approx(score - baseline_score, abs=1e-9)
    if classes == 2:
        np.testing.assert_allclose(values, (weight[1] - weight[0]) * x, atol=1e-12)
    assert found.notes == ((EXACT,) if classes == 2 else (DISTRIBUTED,))


def test_two_linear_layers_are_one_and_a_relu_is_not() -> None:
    first, last = layer([[1, -1], [0, 2]], [1, 0]), layer([[1, 1], [0, -1]], [0, 0])
    assert WeightOfEvidence()(nn.Sequential(first, last), P).notes == (EXACT,)
    deep = nn.Sequential(first, nn.ReLU(), last).eval()
    found = WeightOfEvidence()(deep, P, target=0)
    assert found.notes == (DISTRIBUTED,)
    torch.testing.assert_close(found.values, DeepLIFT()(deep, P, target=LogOdds(0)).values)
    accepted = WeightOfEvidence(unsupported="gradient")(
        lambda x: torch.linalg.det((x.sum(1) + 1).reshape(-1, 1, 1)), P
    )
    assert accepted.notes == ("passed by their plain gradient: linalg_det", DISTRIBUTED)


def test_the_baseline_is_what_the_evidence_is_counted_from() -> None:
    start = torch.tensor([0.5, -1.0], dtype=F64)
    values, score, baseline_score = numbers(
        WeightOfEvidence()(layer([[1, 1]], [-1]), P, baseline=start)
    )
    assert (values, score, baseline_score) == ([1.5, 1.0], 1.0, -1.5)


def test_targets_are_classes_their_log_odds_or_several() -> None:
    net = ZOO["mlp"]
    model, x = net.make(), net.inputs()
    found = WeightOfEvidence()(model, x, target=Several(2, LogOdds(0), None))
    assert found.targets[0][:2] == ["log-odds of 2", "log-odds of 0"]
    assert isinstance(found.values, Tensor)
    predicted = model(x).argmax(1)
    for place, target in enumerate((2, 0, predicted)):
        alone = WeightOfEvidence()(model, x, target=target)
        torch.testing.assert_close(found.values[..., place], alone.values)
        torch.testing.assert_close(found.score[:, place], alone.score)


def fraction(output: Tensor) -> Tensor:
    return output[:, 0]


@pytest.mark.parametrize(
    "target", [Probability(0), Contrast(0, 1), fraction, Several(0, Contrast(0, 1))]
)
def test_a_target_without_a_complement_is_refused(target: object) -> None:
    net = ZOO["mlp"]
    with pytest.raises(BadInput, match="no complement"):
        WeightOfEvidence()(net.make(), net.inputs(), target=target)  # type: ignore[arg-type]


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 1.5, float("nan"), True, "0.5", None])
def test_a_prior_that_is_no_probability_is_refused(prior: object) -> None:
    with pytest.raises(BadInput, match="prior must be a probability"):
        WeightOfEvidence(prior=prior)  # type: ignore[arg-type]


def test_a_network_that_returns_its_probability_is_refused() -> None:
    """Its output would pass for a logit without a word."""
    with pytest.raises(BadInput, match="ends in a sigmoid"):
        WeightOfEvidence()(nn.Sequential(layer([[1, 1]], [0]), nn.Sigmoid()), P)
    hidden = nn.Sequential(layer([[1, 1]], [0]), nn.Sigmoid(), layer([[2]], [0]))
    assert WeightOfEvidence()(hidden, P).notes == (DISTRIBUTED,)
