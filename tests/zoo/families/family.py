"""What a family of architectures is: how to build one of it, and inputs as its users have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Inputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Draw = Callable[[torch.Generator], Inputs]
EMBEDDING = "input embedding"
NORMS = ("LayerNorm", "RMSNorm", "BatchNorm", "GroupNorm")


@dataclass(frozen=True, kw_only=True)
class Family:
    """A network of the family in small, with random weights.

    `kind` is the group it is listed under. `module` builds it, after the seed is set; `inputs` draws
    a batch. `at` is the layer to explain where the input has no gradient; `EMBEDDING` stands for
    what a transformers model calls its input embedding. `output` and `target` are those of the call.
    """

    name: str
    kind: str
    module: Callable[[], nn.Module]
    inputs: Draw
    at: str | None = None
    output: Any = None
    target: Any = None

    def make(self, seed: int = 0) -> nn.Module:
        """The network in float64 and eval mode; the global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.module().double().eval()
            with torch.no_grad():
                randomise(model)
        return model

    def batch(self, seed: int = 0) -> Inputs:
        """Two rows."""
        return self.inputs(torch.Generator().manual_seed(1000 + seed))

    def layer(self, model: nn.Module) -> str | None:
        """The dotted name of the layer that is explained, None for the input."""
        if self.at != EMBEDDING:
            return self.at
        embedding = model.get_input_embeddings()  # type: ignore[operator]
        return next(name for name, module in model.named_modules() if module is embedding)


def randomise(model: nn.Module) -> None:
    """Weights large enough that kinks matter, norms and statistics that are no identity.

    A configuration of transformers starts with weights of .02, where a network is all but linear.
    """
    for module in model.modules():
        kind = type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            if any(norm in kind for norm in NORMS) and name == "weight":
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(0.1 * torch.randn_like(parameter))
            elif "Embedding" in kind:
                parameter.copy_(torch.randn_like(parameter))
            elif parameter.dim() > 1 and not name.startswith("A_"):
                parameter.copy_(torch.randn_like(parameter) * _scale(parameter, kind))
        for name, buffer in module.named_buffers(recurse=False):
            if name == "running_mean":
                buffer.copy_(0.3 * torch.randn_like(buffer))
            elif name == "running_var":
                buffer.copy_(0.5 + torch.rand_like(buffer))


def _scale(weight: Tensor, kind: str) -> float:
    """One over the root of the terms that an output adds up, times 1.4."""
    # The linear layer of GPT-2 holds its weight the other way round.
    terms = weight.shape[0] if kind == "Conv1D" else math.prod(weight.shape[1:])
    return 1.4 / math.sqrt(terms)


def floats(*shape: int) -> Draw:
    """Standard normal numbers (2, *shape)."""
    return lambda g: torch.randn(2, *shape, generator=g, dtype=torch.float64)


def ids(length: int = 6, size: int = 40) -> Draw:
    """Token ids (2, length) from 5 on, so that none is a special one."""
    return lambda g: torch.randint(5, size, (2, length), generator=g)


def named(**draws: Draw) -> Draw:
    """Several inputs by keyword."""

    def draw(generator: torch.Generator) -> dict[str, Tensor]:
        drawn = {name: one(generator) for name, one in draws.items()}
        return {name: leaf for name, leaf in drawn.items() if isinstance(leaf, Tensor)}

    return draw


def in_order(*draws: Draw) -> Draw:
    """Several inputs by position."""

    def draw(generator: torch.Generator) -> tuple[Tensor, ...]:
        return tuple(leaf for one in draws if isinstance(leaf := one(generator), Tensor))

    return draw
