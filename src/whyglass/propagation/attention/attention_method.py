"""What the methods on attention matrices share: seeing them, and from tokens back to the input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.baseline import Baseline
from whyglass.core.checks import not_flat
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Structure
from whyglass.core.method import Attribution, Method, Need
from whyglass.core.patch_grid import to_grid
from whyglass.core.scorer import Scorer
from whyglass.propagation.engine.calls import Call, Table
from whyglass.propagation.engine.decompositions import DECOMPOSITIONS
from whyglass.propagation.engine.interception import Propagation, intercepted

OPENED = ("scaled_dot_product_attention", "multi_head_attention_forward")
NOTHING = "no token's attention passes the threshold for the target"


class Seen:
    """The attention matrices of one pass, (B, H, T, T), and what came back to each, a target at a time.

    Layers are in the order in which they ran.
    """

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.back: list[list[Tensor]] = []

    def look(self, call: Call, result: Any) -> None:
        """Keep a softmax over the last of two equal axes."""
        if call.op != "softmax" or result.dim() < 3 or result.shape[-1] != result.shape[-2]:
            return
        if call.argument(1, "dim") not in {-1, result.dim() - 1}:
            return
        came: list[Tensor] = []

        def keep(gradient: Tensor) -> None:
            came.append(_by_heads(gradient))

        self.weights.append(_by_heads(result.detach()))
        self.back.append(came)
        result.register_hook(keep)


def _by_heads(matrix: Tensor) -> Tensor:
    """(B, H, T, T), half precision widened."""
    wide = matrix if matrix.dtype == torch.float64 else matrix.float()
    return wide.unsqueeze(1) if wide.dim() == 3 else wide


class Watch(Propagation):
    """The plain gradient, with attention opened to see its matrices."""

    def __init__(self) -> None:
        whole: Mapping[str, None] = dict.fromkeys(set(DECOMPOSITIONS) - set(OPENED))
        super().__init__(Table(None, None, by_name=whole, total=True), shadows=False)
        self.seen = Seen()

    def made(self, call: Call, result: Any) -> None:
        self.seen.look(call, result)


@dataclass(frozen=True)
class Matrices:
    """Of one layer: attention A, and its gradient for each target, (B, H, T, T)."""

    weights: Tensor
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Method):
    """Abstract: tokens weighed by the attention between them.

    A subclass gives a matrix (B, T, T) a target, whose entry i, j is what token j brought to token i.
    The rows of the tokens that the score reads are averaged: one for a class token, all for a mean. The
    tokens are found by the gradient, and named in the notes. Values have one channel: (B, T, 1) for
    sequences, (B, 1, H, W) for images, whose patches are interpolated.
    """

    family: ClassVar[str] = "propagation"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "attention")
    data: ClassVar[tuple[str, ...]] = ("images", "text")

    @abstractmethod
    def mixed(self, scorer: Scorer, layers: Sequence[Matrices]) -> list[Tensor]:
        """(B, T, T), a target at a time."""

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        here, watched = intercepted(scorer, lambda _: Watch())
        layers = gathered([one.seen for one in watched], len(scorer.target.terms))
        maps: list[Tensor] = []
        for matrix, slope in zip(self.mixed(scorer, layers), layers[-1].gradients, strict=True):
            read = (slope != 0).any(3).any(1).to(matrix.dtype)
            weights = read / read.sum(1, keepdim=True).clamp_min(1)
            maps.append(torch.einsum("bi,bij->bj", weights, matrix))
        read = (layers[-1].gradients[0] != 0).any(3).any(1).sum(1)
        rows = "one token" if int(read.max()) == 1 else f"{int(read.max())} tokens"
        values = self._painted(scorer, torch.stack(maps, -1))
        values = values if scorer.many else values[..., 0]
        return Attribution(
            (values,),
            here.scores,
            checks=(not_flat((values,), scorer.many, NOTHING),),
            notes=(f"{len(layers)} attention layers; the score reads {rows} of the last",),
            structure=Structure(),
        )

    def _painted(self, scorer: Scorer, tokens: Tensor) -> Tensor:
        """Tokens (B, T, K) as one channel over the input, (B, T, 1, K) or (B, 1, H, W, K)."""
        image = scorer.points[0]
        if scorer.probe is not None or image.dim() != 4:
            return tokens.unsqueeze(2)
        grid = to_grid(tokens, None, image.shape[2:])
        full = F.interpolate(grid, image.shape[2:], mode="bilinear", align_corners=False)
        return full.movedim(1, -1).unsqueeze(1)


def gathered(passes: Sequence[Seen], targets: int) -> list[Matrices]:
    """The layers of all pieces of the batch."""
    counts = {len(seen.weights) for seen in passes}
    if counts == {0}:
        raise BadInput(
            "no attention between tokens was found in the forward pass: this method needs a "
            "transformer whose attention is a softmax over its last axis"
        )
    layers: list[Matrices] = []
    for layer in range(min(counts)):
        parts = [seen.back[layer] for seen in passes]
        if any(len(part) != targets for part in parts):
            # No gradient came: the score does not depend on this layer.
            continue
        weights = torch.cat([seen.weights[layer] for seen in passes])
        gradients = tuple(torch.cat([part[k] for part in parts]) for k in range(targets))
        layers.append(Matrices(weights, gradients))
    if not layers:
        raise BadInput("the score does not depend on any attention between tokens")
    sizes = {layer.weights.shape[-1] for layer in layers}
    if len(sizes) > 1:
        raise BadInput(
            f"the attention layers have {sorted(sizes)} tokens: this method multiplies their matrices, "
            "so it needs the same tokens in every layer"
        )
    return layers


def chained(matrices: Sequence[Tensor]) -> Tensor:
    """The product over layers, the last one first: how tokens reach tokens through all of them."""
    found = matrices[0]
    for matrix in matrices[1:]:
        found = matrix @ found
    return found
