"""Base class of the class activation maps: activations, a map of them, interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from whyglass.cam.activation import LastActivation, last_with_several_tokens
from whyglass.cam.mapped_input import MappedInput, channels_last, choose
from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check, not_flat
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Structure
from whyglass.core.method import Attribution, Method, Need
from whyglass.core.scorer import Scorer
from whyglass.core.submodule import Submodule

FLAT = "no region of this layer passes the map's threshold for the target"


@dataclass(frozen=True, kw_only=True)
class ActivationMap(Method):
    """Abstract base of the class activation maps.

    A subclass states `heat`, its map of activations and gradients.

    Values are the map, interpolated to the size of the input with one channel: (B, 1, H, W) for an
    image, (B, 1, D, H, W) for a volume, (B, 1, L) for a signal, (B, T, 1) for a sequence. The layer is
    the last spatial activation before pooling, found while the network runs and named in
    `explanation.at`; `at=` chooses another. Other inputs may stand beside the one mapped.

    Args:
        of: the input that is mapped, by its name or number; by default the one that the layer looks at.
    """

    of: str | int | None = None

    family: ClassVar[str] = "cam"
    cost: ClassVar[str] = "1 gradient"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "layer", "images")
    data: ClassVar[tuple[str, ...]] = ("images",)

    def heat(self, activations: Tensor, gradients: Tensor) -> Tensor:
        """The map (B, ...) of one target from activations A and gradients dS/dA, (B, C, ...)."""
        raise NotImplementedError

    def maps(
        self,
        scorer: Scorer,
        baseline: Baseline,
        over: MappedInput,
        activations: Tensor,
        gradients: list[Tensor],
    ) -> list[Tensor]:
        """One map a target: `heat` of its gradients; a method that scores inputs overrides this."""
        return [self.heat(activations, part) for part in gradients]

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        return self.mapped(scorer, baseline)[0]

    def mapped(self, scorer: Scorer, baseline: Baseline) -> tuple[Attribution, MappedInput]:
        """The map, and the input that it lies over."""
        inputs, structure = scorer.inputs, scorer.input_structure

        def choose_inputs(dims: int, tokens: bool) -> set[int]:
            return choose(inputs, structure, self.of, dims, tokens)

        # A name that is none of the inputs is refused before any work.
        choose_inputs(4, False)
        layer = scorer.layer
        if layer is None:
            layer = scorer.layer = LastActivation(scorer.model, inputs, choose_inputs)
        here = scorer.at_inputs(gradient=True)
        chosen, swapped = 0, False
        grid: tuple[int, ...] | None = None
        calls, dims = len(here.points), here.points[0].dim()
        if isinstance(layer, LastActivation):
            chosen = last_with_several_tokens(here.gradients) if layer.tokens else 0
            layer.name, grid, possible = layer.candidates[chosen], layer.grid, layer.mapped
            last, swapped = layer.layout(chosen).last is True, layer.layout(chosen).swapped
        elif calls > 1:
            raise BadInput(
                f"layer {layer.name!r} runs {calls} times in one forward pass, and a map is "
                f"made of one: at=LayerCall({layer.name!r}, 0) names the first"
            )
        else:
            last = isinstance(layer, Submodule) and channels_last(scorer.model, layer.module)
            possible = choose_inputs(dims, False) | choose_inputs(dims, True)
        tensor = here.points[chosen]
        over = self._over(scorer, possible, tensor, layer.name, last, swapped)
        gradients = here.gradients[chosen]
        activations = over.to_channels_first(tensor, grid, last, layer.name).to(gradients.dtype)
        parts = gradients.unbind(-1) if scorer.many else (gradients,)
        grids = [over.to_channels_first(part, grid, last, layer.name) for part in parts]
        maps = self.maps(scorer, baseline, over, activations, grids)
        values = over.interpolated(torch.stack(maps, 1))
        values = values if scorer.many else values[..., 0]
        low = " x ".join(map(str, activations.shape[2:]))
        where = f" over {structure.label(over.index)}" if len(inputs) > 1 else ""
        attribution = Attribution(
            (values,),
            here.scores,
            checks=(not_flat((values,), scorer.many, FLAT), *self.checks(scorer, grids)),
            notes=(f"a map of {low} from {layer.name}, interpolated{where}",),
            layer=layer.name,
            structure=Structure(),
        )
        return attribution, over

    def checks(self, scorer: Scorer, gradients: list[Tensor]) -> list[Check]:
        """The checks that a subclass adds, from gradients (B, C, ...) of each target."""
        return []

    def _over(
        self,
        scorer: Scorer,
        possible: set[int],
        tensor: Tensor,
        layer: str,
        last: bool,
        swapped: bool,
    ) -> MappedInput:
        """The one input that a layer is a map of, with its channels `last`, or `swapped` before it."""
        labels = [scorer.input_structure.label(index) for index in sorted(possible)]
        if not labels:
            raise BadInput(
                f"the output of layer {layer!r} has shape {tuple(tensor.shape)}, which is no map over "
                f"inputs of shapes {[tuple(leaf.shape) for leaf in scorer.inputs]}: a class activation "
                "map needs an image (B, C, H, W), a volume (B, C, D, H, W) or a signal (B, C, L), and "
                "with at= a layer with as many axes, or one of tokens (B, T, D)"
            )
        if len(labels) > 1:
            name = (scorer.input_structure.names or (0,))[min(possible)]
            raise BadInput(
                f"layer {layer!r} may be a map over {' or '.join(labels)}: name one with of=, for "
                f"example {type(self).__name__}(of={name!r})"
            )
        index = min(possible)
        leaf = scorer.inputs[index]
        if leaf.dim() != 3:
            # A signal (B, L) has no axis of channels.
            return MappedInput(index, leaf, 1 if leaf.dim() > 3 else 0)
        if tensor.dim() > 3:
            return MappedInput(index, leaf, 0)
        return MappedInput(
            index, leaf, _channel_axis(leaf, tensor.shape[1 if last else 2], last != swapped)
        )


def _channel_axis(leaf: Tensor, length: int, last: bool) -> int:
    """Channels of an input (B, C, L) or (B, T, F): on the axis that is too short for the map.

    Where both axes are long enough, it is `last` that tells.
    """
    if (leaf.shape[1] >= length) != (leaf.shape[2] >= length):
        return -1 if leaf.shape[1] >= length else 1
    return -1 if last else 1


def channel_weights(gradients: Tensor) -> Tensor:
    """alpha_k: gradients (B, C, *S) averaged over space, shaped to multiply activations."""
    return gradients.mean(tuple(range(2, gradients.dim())), keepdim=True)
