"""CAM: the class's own weights on the last channels, for networks that pool globally."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.cam.activation import LastActivation
from whyglass.cam.activation_map import ActivationMap, channel_weights
from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check
from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.method import Attribution
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.core.target import LogOdds, Probability

TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class CAM(ActivationMap):
    r"""Sum of the last channels, weighted by the class's weights behind global average pooling.

    .. math:: M(i, j) = \sum_k w^c_k A^k_{ij}, \quad S_c = \frac{1}{Z} \sum_{ij} M(i, j) + b_c

    The head between the activation and the score must be linear and pool globally; then
    w_k = Z dS/dA^k, the same everywhere, which is how the weights are read, whatever the head's
    modules are called. Other networks are refused: use `GradCAM`. Units: score.
    Source: Zhou et al. (2016), equations 1 and 2.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.CAM()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[2., 0.],
            [0., 6.]])
    """

    name: ClassVar[str] = "cam"
    shows: ClassVar[str] = (
        "Which regions of the last layer hold the evidence for the class, for and against."
    )
    paper: ClassVar[Paper] = Paper(
        "Bolei Zhou, Aditya Khosla, Agata Lapedriza, Aude Oliva and Antonio Torralba",
        "Learning Deep Features for Discriminative Localization",
        "CVPR",
        2016,
        "https://arxiv.org/abs/1512.04150",
    )

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        if scorer.layer is not None:
            raise BadInput("cam reads the activation before the global pooling: leave at= out")
        if any(term.kind in (Probability, LogOdds) or term.custom for term in scorer.target.terms):
            raise BadInput("cam explains logits and their contrasts: use grad-cam for this target")
        return super().attribute(scorer, baseline)

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        positions = gradients[0, 0].numel()
        return (positions * channel_weights(gradients) * activations).sum(1)

    def checks(self, scorer: Scorer, gradients: list[Tensor]) -> list[Check]:
        probe = scorer.layer
        linear = isinstance(probe, LastActivation) and probe.linear_head and not probe.tokens
        flat = torch.stack(gradients).flatten(0, 1).flatten(2)
        spread = float((flat.amax(2) - flat.amin(2)).max() / flat.abs().max().clamp_min(1e-30))
        if not linear or spread > TOLERANCE:
            raise Unsupported(
                "cam needs a network that ends in global average pooling and one linear layer; this "
                "one does not, so use grad-cam, which is the same where both apply"
            )
        return [
            Check(
                "global pooling",
                spread,
                TOLERANCE,
                "pass",
                f"the class's weights are the same at every position within {spread:.1g}",
            )
        ]
