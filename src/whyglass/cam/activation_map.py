"""Base class of the class activation maps: activations, a map of them, interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.cam.activation import LastActivation, last_with_several_tokens
from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check, not_flat
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Structure
from whyglass.core.method import Attribution, Method, Need
from whyglass.core.patch_grid import to_grid
from whyglass.core.scorer import Scorer

FLAT = "no region of this layer passes the map's threshold for the target"
UPSAMPLING = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class ActivationMap(Method):
    """Abstract base of the class activation maps.

    A subclass states `heat`, its map of activations and gradients.

    Values have one channel and the height and width of the image, (B, 1, H, W), by bilinear
    interpolation of the map. The layer is the last spatial activation before pooling, found while
    the network runs and named in `explanation.at`; `at=` chooses another.
    """

    family: ClassVar[str] = "cam"
    cost: ClassVar[str] = "1 gradient"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "layer", "images")
    data: ClassVar[tuple[str, ...]] = ("images",)

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """The map (B, ...) of one target from activations A and gradients dS/dA, (B, C, ...)."""
        raise NotImplementedError

    def maps(
        self, scorer: Scorer, baseline: Baseline, activations: Tensor, gradients: list[Tensor]
    ) -> list[Tensor]:
        """One map a target: `heat` of its gradients; a method that scores images overrides this."""
        return [self.heat(activations, part) for part in gradients]

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        image = _image(scorer)
        probe = scorer.layer
        if probe is None:
            probe = scorer.layer = LastActivation(scorer.model)
        here = scorer.at_inputs(gradient=True)
        chosen, grid = 0, None
        if isinstance(probe, LastActivation):
            chosen = last_with_several_tokens(here.gradients) if probe.tokens else 0
            probe.name, grid = probe.candidates[chosen], probe.grid
        elif len(here.points) > 1:
            raise BadInput(
                f"layer {probe.name!r} runs {len(here.points)} times in one forward pass, and a map is "
                f"made of one: at=LayerCall({probe.name!r}, 0) names the first"
            )
        activations = self._grid(here.points[chosen], grid, image).to(here.gradients[chosen].dtype)
        gradients = here.gradients[chosen]
        parts = gradients.unbind(-1) if scorer.many else (gradients,)
        grids = [self._grid(part, grid, image) for part in parts]
        maps = self.maps(scorer, baseline, activations, grids)
        size = image.shape[2:]
        full = F.interpolate(
            torch.stack(maps, 1), size, mode=UPSAMPLING[len(size)], align_corners=False
        )
        values = full.movedim(1, -1)[:, None] if scorer.many else full
        low = tuple(activations.shape[2:])
        return Attribution(
            (values,),
            here.scores,
            checks=(not_flat((values,), scorer.many, FLAT), *self.checks(scorer, gradients)),
            notes=(f"a map of {' x '.join(map(str, low))} from {probe.name}, interpolated",),
            layer=probe.name,
            structure=Structure(),
        )

    def checks(self, scorer: Scorer, gradients: Tensor) -> list[Check]:
        """The checks that a subclass adds."""
        return []

    def _grid(self, tensor: Tensor, grid: tuple[int, ...] | None, image: Tensor) -> Tensor:
        if len(tensor) == len(image) and tensor.dim() == 3 and image.dim() == 4:
            tensor = to_grid(tensor, grid, image.shape[2:])
        if len(tensor) != len(image) or tensor.dim() != image.dim():
            raise BadInput(
                f"the layer's output has shape {tuple(tensor.shape)} for images of shape "
                f"{tuple(image.shape)}: choose a layer (B, C, H, W) or (B, tokens, D) with at="
            )
        return tensor


def _image(scorer: Scorer) -> Tensor:
    """The one input with height and width."""
    images = [leaf for leaf in scorer.inputs if leaf.dim() in (4, 5) and leaf.is_floating_point()]
    if len(images) != 1:
        shapes = [tuple(leaf.shape) for leaf in scorer.inputs]
        raise BadInput(
            f"class activation maps need one image input (B, C, H, W) or volume; inputs are {shapes}"
        )
    return images[0]


def channel_weights(gradients: Tensor) -> Tensor:
    """alpha_k: gradients (B, C, *S) averaged over space, shaped to multiply activations."""
    return gradients.mean(tuple(range(2, gradients.dim())), keepdim=True)
