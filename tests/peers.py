"""Other libraries, imported without torchvision: only to compare with, in tests and benchmarks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor


@contextmanager
def _stand_in(*names: str) -> Iterator[None]:
    """Empty modules of these names, gone again afterwards; any attribute of one is a class."""
    made: dict[str, ModuleType] = {}
    for name in names:
        if name not in sys.modules:
            module = ModuleType(name)
            module.__spec__ = ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            module.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
            made[name] = sys.modules[name] = module
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def peer(name: str) -> ModuleType:
    """A module of another library; zennit asks for torchvision to know its ResNets, and gets none."""
    with _stand_in(*(f"torchvision{rest}" for rest in ("", ".models", ".models.resnet"))):
        return importlib.import_module(name)


def zennit_relevance(
    model: torch.nn.Module, composite: Any, inputs: Tensor, target: Tensor
) -> Tensor:
    """zennit's relevance of one output a row."""
    attribution = peer("zennit.attribution")

    def seed(output: Tensor) -> Tensor:
        return output * torch.nn.functional.one_hot(target, output.shape[1]).to(output)

    with attribution.Gradient(model=model, composite=composite) as attribute:
        return attribute(inputs.detach().requires_grad_(), seed)[1].detach()


def zennit_composite(rule: Any, first: Any = None, canonizers: Any = None) -> Any:
    """One of zennit's rules for every weighted layer, another for the first if given."""
    composites, rules, types = (peer(f"zennit.{name}") for name in ("composites", "rules", "types"))
    rest = [
        (types.Activation, rules.Pass()),
        (types.AvgPool, rules.Norm(stabilizer=1e-12)),
        (peer("zennit.layer").Sum, rules.Norm(stabilizer=1e-12)),
        (types.Linear, rule),
    ]
    if first is None:
        return composites.LayerMapComposite(rest, canonizers=canonizers)
    return composites.SpecialFirstLayerMapComposite(
        rest, [(types.Linear, first)], canonizers=canonizers
    )
