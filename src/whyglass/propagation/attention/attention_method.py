"""Base class of the methods that read attention: it records matrices and maps tokens to the input."""

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
from whyglass.propagation.engine.decompositions.table import DECOMPOSITIONS
from whyglass.propagation.engine.interception import Propagation, intercepted

ATTENTION_CALLS = ("scaled_dot_product_attention", "multi_head_attention_forward")
FLAT = "no token's attention passes the threshold for the target"


class AttentionRecord:
    """The attention matrices of one forward pass, (B, H, T, T), and their gradients, one a target.

    Layers are in the order in which they ran.
    """

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.gradients: list[list[Tensor]] = []

    def add(self, call: Call, result: Any) -> None:
        """Record the call if it is a softmax over the last of two equal axes."""
        if call.op != "softmax" or result.dim() < 3 or result.shape[-1] != result.shape[-2]:
            return
        if call.argument("dim") not in {-1, result.dim() - 1}:
            return
        gradients: list[Tensor] = []

        def record(gradient: Tensor) -> None:
            gradients.append(_with_heads(gradient))

        self.weights.append(_with_heads(result.detach()))
        self.gradients.append(gradients)
        result.register_hook(record)


def _with_heads(matrix: Tensor) -> Tensor:
    """The matrix as (B, H, T, T), in float32 at least."""
    wide = matrix if matrix.dtype == torch.float64 else matrix.float()
    return wide.unsqueeze(1) if wide.dim() == 3 else wide


class AttentionGradient(Propagation):
    """A pass of the plain gradient that computes attention from its softmax and records it."""

    def __init__(self) -> None:
        as_one_call: Mapping[str, None] = dict.fromkeys(set(DECOMPOSITIONS) - set(ATTENTION_CALLS))
        super().__init__(Table(None, None, by_name=as_one_call, total=True), with_baseline=False)
        self.record = AttentionRecord()

    def after_call(self, call: Call, result: Any) -> None:
        self.record.add(call, result)


@dataclass(frozen=True)
class AttentionLayer:
    """The attention A of one layer and its gradient for each target, (B, H, T, T)."""

    weights: Tensor
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Method):
    """Abstract base of the methods that weigh tokens by the attention between them.

    A subclass makes one matrix (B, T, T) a target; entry i, j is what token j contributed to token i.
    The rows of the tokens that the score reads are averaged: one for a class token, all for a mean. The
    tokens are recognised by their gradient, and named in the notes. Values have one channel:
    (B, T, 1) for sequences, (B, 1, H, W) for images, whose patches are interpolated.
    """

    family: ClassVar[str] = "propagation"
    needs: ClassVar[tuple[Need, ...]] = ("gradients", "attention")
    data: ClassVar[tuple[str, ...]] = ("images", "text")

    @abstractmethod
    def token_matrices(self, scorer: Scorer, layers: Sequence[AttentionLayer]) -> list[Tensor]:
        """One matrix (B, T, T) a target."""

    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        here, passes = intercepted(scorer, lambda _: AttentionGradient())
        layers = attention_layers([each.record for each in passes], len(scorer.target.terms))
        maps: list[Tensor] = []
        for matrix, gradient in zip(
            self.token_matrices(scorer, layers), layers[-1].gradients, strict=True
        ):
            is_read = (gradient != 0).any(3).any(1).to(matrix.dtype)
            weights = is_read / is_read.sum(1, keepdim=True).clamp_min(1)
            maps.append(torch.einsum("bi,bij->bj", weights, matrix))
        read_tokens = (layers[-1].gradients[0] != 0).any(3).any(1).sum(1)
        rows = "one token" if int(read_tokens.max()) == 1 else f"{int(read_tokens.max())} tokens"
        values = self._over_input(scorer, torch.stack(maps, -1))
        values = values if scorer.many else values[..., 0]
        return Attribution(
            (values,),
            here.scores,
            checks=(not_flat((values,), scorer.many, FLAT),),
            notes=(f"{len(layers)} attention layers; the score reads {rows} of the last",),
            structure=Structure(),
        )

    def _over_input(self, scorer: Scorer, tokens: Tensor) -> Tensor:
        """The values of tokens (B, T, K) over the input: (B, T, 1, K) or (B, 1, H, W, K)."""
        image = scorer.points[0]
        if scorer.layer is not None or image.dim() != 4:
            return tokens.unsqueeze(2)
        grid = to_grid(tokens, None, image.shape[2:])
        full = F.interpolate(grid, image.shape[2:], mode="bilinear", align_corners=False)
        return full.movedim(1, -1).unsqueeze(1)


def attention_layers(records: Sequence[AttentionRecord], targets: int) -> list[AttentionLayer]:
    """The layers of the whole batch, from the records of its pieces."""
    counts = {len(record.weights) for record in records}
    if counts == {0}:
        raise BadInput(
            "no attention between tokens was found in the forward pass: this method needs a "
            "transformer whose attention is a softmax over its last axis"
        )
    layers: list[AttentionLayer] = []
    for layer in range(min(counts)):
        parts = [record.gradients[layer] for record in records]
        if any(len(part) != targets for part in parts):
            # No gradient arrived: the score does not depend on this layer.
            continue
        weights = torch.cat([record.weights[layer] for record in records])
        gradients = tuple(torch.cat([part[k] for part in parts]) for k in range(targets))
        layers.append(AttentionLayer(weights, gradients))
    if not layers:
        raise BadInput("the score does not depend on any attention between tokens")
    sizes = {layer.weights.shape[-1] for layer in layers}
    if len(sizes) > 1:
        raise BadInput(
            f"the attention layers have {sorted(sizes)} tokens: this method multiplies their matrices, "
            "so it needs the same tokens in every layer"
        )
    return layers


def layer_product(matrices: Sequence[Tensor]) -> Tensor:
    """The product of the layers' matrices, the last layer first: (B, T, T)."""
    product = matrices[0]
    for matrix in matrices[1:]:
        product = matrix @ product
    return product
