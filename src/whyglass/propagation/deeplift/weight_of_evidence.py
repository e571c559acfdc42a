"""Weight of evidence: what each input says for a class and against its complement."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from whyglass.core.baseline import Baseline
from whyglass.core.errors import BadInput
from whyglass.core.method import Attribution
from whyglass.core.paper import Paper
from whyglass.core.region import Region
from whyglass.core.scorer import Scorer
from whyglass.core.target import Contrast, LogOdds, Probability, Several, Single, Target
from whyglass.propagation.deeplift.difference_method import DifferenceMethod, propagate

EXACT = "one layer: the evidence is exact"
DISTRIBUTED = (
    "deeper than one layer, or more than two classes: evidence distributed by DeepLIFT's rules, one "
    "of several ways"
)


@dataclass(frozen=True, kw_only=True)
class WeightOfEvidence(DifferenceMethod):
    r"""Evidence that each input gives for a class H against its complement.

    .. math:: W(H:E) = \ln \frac{P(E|H)}{P(E|\bar H)}
        = \ln \frac{P(H|E)}{P(\bar H|E)} - \ln \frac{P(H)}{P(\bar H)} = R_0 + \sum_i R_i

    The network gives P(H|E), so the target is a class, or `LogOdds` of one, and the output must be
    logits; an output of one logit is the log-odds itself. `score` is W; `baseline_score` is R_0, what
    the baseline says by itself: at zeros, the default, that is the bias. In one layer with a sigmoid,
    or a softmax of two classes, R_i = w_i (x_i - x'_i) exactly. In deeper networks the values are
    DeepLIFT's, one of several ways to pass evidence back. With more than two classes the log-odds are
    not additive in the inputs even in one layer, and the values are DeepLIFT's too. A note says which
    case it was. Units: nats (natural logarithm). Source: Good (1977); for additive classifiers
    Poulin et al. (2006).

    Args:
        prior: P(H), between 0 and 1. It moves `score` and `baseline_score`, never the values.

    Raises:
        BadInput: the target is a probability, a contrast or a callable, or the network ends in a
            sigmoid, so that its output is no logit.

    >>> import torch, whyglass
    >>> logit = lambda x: x.sum(1) - 1
    >>> evidence = whyglass.WeightOfEvidence()(logit, torch.tensor([[2.0, 0.0]]))
    >>> evidence.values, evidence.score, evidence.baseline_score
    (tensor([[2., 0.]]), tensor([1.]), tensor([-1.]))
    """

    prior: float = 0.5

    name: ClassVar[str] = "weight-of-evidence"
    shows: ClassVar[str] = (
        "How much each feature speaks for the class against all others together, in log-odds."
    )
    cost: ClassVar[str] = "1 gradient + 1 evaluation"
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Brett Poulin, Roman Eisner, Duane Szafron, Paul Lu, Russ Greiner, David S. Wishart, "
        "Alona Fyshe, Brandon Pearcy, Cam MacDonell and John Anvik",
        "Visual Explanation of Evidence in Additive Classifiers",
        "IAAI",
        2006,
        "https://webdocs.cs.ualberta.ca/~duane/publications/abstracts/2006iaai.shtml",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.prior, float) or not 0 < self.prior < 1:  # pyright: ignore[reportUnnecessaryIsInstance]  users pass anything
            raise BadInput(f"prior must be a probability between 0 and 1, not {self.prior!r}")
        super().__post_init__()

    def question(self, target: Target) -> Target:
        if isinstance(target, Several):
            return Several(*map(_log_odds, target.targets))
        return _log_odds(target)

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        answer, passes = propagate(scorer, baseline, self.rule, self.unsupported)
        if any(done.last == "sigmoid" for done in passes):
            raise BadInput(
                "the network ends in a sigmoid, so its output is a probability and no logit: let the "
                "model return what goes into the sigmoid, which is the log-odds"
            )
        assert answer.baseline_score is not None
        prior = math.log(self.prior / (1 - self.prior))
        exact = not any(done.with_rule or done.accepted or done.held for done in passes)
        return dataclasses.replace(
            answer,
            score=answer.score - prior,
            baseline_score=answer.baseline_score - prior,
            notes=[*answer.notes, EXACT if exact else DISTRIBUTED],
        )


def _log_odds(single: Single) -> LogOdds:
    if isinstance(single, LogOdds):
        return single
    if isinstance(single, Probability | Contrast | Region) or callable(single):
        kind = "callable" if callable(single) else type(single).__name__
        raise BadInput(
            f"target {kind} has no complement to weigh against: give a class (its number, its name, "
            'None for the predicted one) or LogOdds of one; "deeplift" explains any other score'
        )
    return LogOdds(single)
