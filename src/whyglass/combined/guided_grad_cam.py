"""Guided Grad-CAM: guided backpropagation's detail, where Grad-CAM sees the class."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.cam.grad_cam import PAPER, GradCAM
from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.method import Attribution, Method, Need
from whyglass.core.paper import Paper
from whyglass.core.scorer import Scorer
from whyglass.propagation.gating.guided_backprop import GuidedBackprop


@dataclass(frozen=True, kw_only=True)
class GuidedGradCAM(Method):
    r"""Guided backpropagation at the input times the Grad-CAM map, interpolated to its size.

    .. math:: R = m^{guided} \odot Up(L^{GradCAM})

    Fine as the one, selective for the class as the other; the cautions of both apply. Units: none.
    Source: Selvaraju et al. (2017), section 3.2.

    Args:
        of: the input that is mapped, as in `GradCAM`; the values of other inputs are zeros.

    >>> import torch, whyglass
    >>> x = torch.tensor([[[[1.0, 0.0], [0.0, 3.0]]]])
    >>> whyglass.GuidedGradCAM()(lambda x: torch.relu(4 * x).mean((2, 3)), x).values[0, 0]
    tensor([[1., 0.],
            [0., 3.]])
    """

    of: str | int | None = None

    name: ClassVar[str] = "guided-grad-cam"
    shows: ClassVar[str] = "Fine structures inside the regions that hold evidence for the answer."
    family: ClassVar[str] = "combined"
    cost: ClassVar[str] = "2 gradients"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "layer", "images")
    data: ClassVar[tuple[str, ...]] = ("images",)
    paper: ClassVar[Paper] = PAPER

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        # The map comes first: it refuses inputs that it cannot lie over.
        coarse, over = GradCAM(of=self.of).mapped(scorer, baseline)
        over.require_floats(self.name)
        fine = GuidedBackprop().attribute(scorer.for_model_inputs(), baseline)
        (region,) = coarse.values
        values = tuple(
            leaf * region if index == over.index else leaf * 0
            for index, leaf in enumerate(fine.values)
        )
        return Attribution(
            values,
            fine.score,
            checks=(not_flat(values, scorer.many),),
            notes=(*coarse.notes, *fine.notes),
            layer=coarse.layer,
            structure=scorer.input_structure,
        )
