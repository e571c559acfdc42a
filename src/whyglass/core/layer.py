"""Names of a place inside a network: a layer, one of its calls, or a layer that is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from whyglass.core.errors import BadInput


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer that runs more than once in a forward pass; `call` counts from 0.

    With the layer alone, `at="embed"`, every call is explained, as a tuple in the order of the calls.
    """

    at: str | int | nn.Module
    call: int

    def __post_init__(self) -> None:
        if isinstance(self.call, bool) or not isinstance(self.call, int) or self.call < 0:  # pyright: ignore[reportUnnecessaryIsInstance]  users pass anything
            raise BadInput(f"LayerCall: call must be 0, 1, ..., not {self.call!r}")


At: TypeAlias = "str | int | nn.Module | LayerCall | None"


@dataclass(frozen=True)
class Layer:
    """A submodule, by object or dotted name, whose output is scored in place of the model's.

    Where it runs more than once, `Layer(LayerCall(at, 0))` names one of its calls.
    """

    at: At
