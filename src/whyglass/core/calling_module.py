"""The module of a network that called an operation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch import nn


def names_by_id(model: Callable[..., Any]) -> dict[int, str]:
    """The dotted name of each submodule, by its id; the model itself has an empty name."""
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    return {id(module): name for name, module in modules}


def calling_module(names: dict[int, str]) -> str:
    """The name of the module whose forward method is the innermost on the stack; empty if none is.

    The model itself is named by its class.
    """
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  inspect.stack is slow
    while frame is not None:
        # Reading a frame's locals is slow, so only those of a forward method are read.
        owner = frame.f_locals.get("self") if frame.f_code.co_name == "forward" else None
        if isinstance(owner, nn.Module) and id(owner) in names:
            return names[id(owner)] or type(owner).__name__
        frame = frame.f_back
    return ""
