"""The input that a class activation map lies over: an image, a volume or a signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, Structure
from whyglass.core.patch_grid import to_grid
from whyglass.core.token_descriptions import describing_tokens

UPSAMPLING = {1: "linear", 2: "bilinear", 3: "trilinear"}
CHANNELS_FIRST = (
    nn.modules.conv._ConvNd,  # pyright: ignore[reportPrivateUsage]  its only common base
    nn.modules.batchnorm._NormBase,  # pyright: ignore[reportPrivateUsage]  as above
    nn.GroupNorm,
)


@dataclass(frozen=True)
class MappedInput:
    """Input number `index`, with channels on axis 1, on the last one, or none at all (axis 0)."""

    index: int
    leaf: Tensor
    channels: int

    def require_floats(self, method: str) -> None:
        """Refuse token ids, for a method that masks or differentiates its input."""
        if not self.leaf.is_floating_point():
            raise BadInput(
                f"{method} needs an input of floats, and this map lies over token ids "
                f"({self.leaf.dtype}): use grad-cam or layer-cam at the same layer"
            )

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width, depth, height and width, or the length of a signal."""
        shape = self.leaf.shape[1:]
        return tuple({0: shape, 1: shape[1:], -1: shape[:-1]}[self.channels])

    def interpolated(self, maps: Tensor) -> Tensor:
        """K maps (B, K, *S) interpolated over the input, in its form with one channel, (B, ..., K)."""
        size = self.size
        full = F.interpolate(maps, size, mode=UPSAMPLING[len(size)], align_corners=False)
        full = full.movedim(1, -1)
        return full if not self.channels else full.unsqueeze({1: 1, -1: -2}[self.channels])

    def to_channels_first(
        self, tensor: Tensor, grid: tuple[int, ...] | None, last: bool, layer: str
    ) -> Tensor:
        """Activations (B, C, *S) of a layer's output; `last` where its shape leaves that open."""
        size = self.size
        matches = len(tensor) == len(self.leaf)
        if matches and tensor.dim() == 3 and len(size) == 2:
            return to_grid(tensor, grid, torch.Size(size))
        if not matches or tensor.dim() != len(size) + 2:
            raise BadInput(
                f"the output of layer {layer!r} has shape {tuple(tensor.shape)}, which is no map over "
                f"an input of shape {tuple(self.leaf.shape)}: choose with at= a layer (B, C, ...) with "
                "one axis for each of space or time, or one of tokens (B, T, D)"
            )
        if len(size) > 1:
            first, other = (_proportional(s, size) for s in (tensor.shape[2:], tensor.shape[1:-1]))
            last = other if first != other else last
        return tensor.movedim(-1, 1) if last else tensor


def _proportional(space: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a map has the proportions of the input, up to rounding."""
    return all(
        abs(a * other - b * one) < max(one, other)
        for a, one in zip(space, size, strict=True)
        for b, other in zip(space, size, strict=True)
    )


def suits(layer_dims: int, tokens: bool, leaf: Tensor) -> int:
    """How well a layer's output may be a map of this input: 2, 1 without channel axis, 0 not at all.

    Token ids (B, T) have no channels.
    """
    if not leaf.is_floating_point():
        return int(leaf.dtype != torch.bool and leaf.dim() == 2 and layer_dims == 3)
    if not 3 <= layer_dims <= 5:
        return 0
    if tokens:
        return 2 if layer_dims == 3 and leaf.dim() in (3, 4) else 0
    return 2 if leaf.dim() == layer_dims else int(leaf.dim() == layer_dims - 1)


def choose(
    inputs: Leaves, structure: Structure, of: str | int | None, layer_dims: int, tokens: bool
) -> set[int]:
    """The inputs that a layer's output may be a map of; the one named `of`, if any.

    Raises:
        BadInput: `of` is none of the inputs, or one that has no space or time.
    """
    if of is not None:
        names = structure.names if structure.names is not None else (0,)
        if of not in names:
            raise BadInput(
                f"of={of!r} is none of the inputs, which are {', '.join(map(repr, names))}"
            )
        named = names.index(of)
        return {named} if suits(layer_dims, tokens, inputs[named]) else set()
    describing = describing_tokens(inputs, structure.names or ())
    ranks = [
        0 if index in describing else suits(layer_dims, tokens, leaf)
        for index, leaf in enumerate(inputs)
    ]
    best = max(ranks)
    return {i for i, rank in enumerate(ranks) if rank == best and rank}


def channels_last(model: object, module: nn.Module) -> bool:
    """Whether a layer puts out channels last: by the last module with parameters up to its end."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else [module]
    end = modules.index(module) + len(list(module.modules()))
    owners = [m for m in modules[:end] if next(m.parameters(recurse=False), None) is not None]
    return bool(owners) and not isinstance(owners[-1], CHANNELS_FIRST)
