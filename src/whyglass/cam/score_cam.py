"""Score-CAM: channels weighted by the score of the image that they let through, no gradient."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from whyglass.cam.activation_map import ActivationMap
from whyglass.cam.mapped_input import MappedInput
from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import resolve
from whyglass.core.inputs import per_row
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class ScoreCAM(ActivationMap):
    r"""Rectified sum of channels, weighted by what each channel's region alone adds to the score.

    .. math:: L = ReLU(\sum_k \alpha_k A^k), \quad
        \alpha = softmax_k(S(x \odot s(Up(A^k)) + x' \odot (1 - s(Up(A^k)))) - S(x'))

    with s the scaling of a channel to [0, 1] and x' the baseline (zero in the paper). A channel that
    is constant lets nothing through. Use a probability as target, as the paper does; a logit
    sharpens the weights. Units: those of the activations. Source: Wang et al. (2020), definitions 3
    and 4, with the softmax of the authors' algorithm 1.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.ScoreCAM()(lambda x: (2 * x).mean((2, 3)), x).values[0, 0]
    tensor([[2., 0.],
            [0., 6.]])
    """

    name: ClassVar[str] = "score-cam"
    shows: ClassVar[str] = "Which coarse regions, shown alone, bring the score back."
    cost: ClassVar[str] = "one evaluation a channel"
    baseline_is: ClassVar[Literal["unused", "row", "background"]] = "row"
    paper: ClassVar[Paper] = Paper(
        "Haofan Wang, Zifan Wang, Mengnan Du, Fan Yang, Zijian Zhang, Sirui Ding, Piotr Mardziel "
        "and Xia Hu",
        "Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks",
        "CVPR Workshops",
        2020,
        "https://arxiv.org/abs/1910.01279",
    )

    def maps(
        self,
        scorer: Scorer,
        baseline: Baseline,
        over: MappedInput,
        activations: Tensor,
        gradients: list[Tensor],
    ) -> list[Tensor]:
        over.require_floats(self.name)
        image_scorer = scorer.for_model_inputs()
        baselines = list(resolve(baseline, image_scorer))
        # The other inputs are as they are, also where nothing is shown of the one mapped.
        for index, leaf in enumerate(image_scorer.inputs):
            baselines[index] = baselines[index] if index == over.index else leaf
        rows = torch.arange(scorer.rows)
        baseline_scores = image_scorer.scores(
            lambda piece: tuple(leaf[piece] for leaf in baselines), rows
        )
        channels = activations.shape[1]
        row_of_score = rows.repeat_interleave(channels)

        def masked(piece: slice) -> tuple[Tensor, ...]:
            row = row_of_score[piece].to(activations.device)
            channel = torch.arange(piece.start, piece.stop, device=row.device) % channels
            mask = over.interpolated(activations[row, channel][:, None])[..., 0]
            low, high = (f(mask.flatten(1), 1) for f in (torch.amin, torch.amax))
            span = per_row(high - low, mask)
            mask = torch.where(span > 0, (mask - per_row(low, mask)) / span, 0.0)
            leaves = [leaf[row] for leaf in image_scorer.inputs]
            shown = leaves[over.index]
            leaves[over.index] = torch.lerp(baselines[over.index][row], shown, mask.to(shown))
            return tuple(leaves)

        scores = image_scorer.scores(masked, row_of_score)
        gain = scores.reshape(len(rows), channels, *scores.shape[1:]) - baseline_scores[:, None]
        weights = gain.softmax(1)
        parts = weights.unbind(-1) if scorer.many else (weights,)
        return [(per_row(part, activations, 2) * activations).sum(1).relu() for part in parts]
