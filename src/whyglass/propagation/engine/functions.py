"""What the engine has to know of a function of torch before it runs it."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._jit_internal import boolean_dispatched

from whyglass.core.errors import Unsupported
from whyglass.propagation.engine.decompositions.table import WRITERS
from whyglass.propagation.engine.operations import QUERIES, in_place, name_of

# Folders that a user's own may be named like, so whole paths.
_LIBRARIES = tuple(
    f"{path.parent}{os.sep}" for path in (Path(torch.__file__), Path(__file__).parents[1])
)


class Function(NamedTuple):
    """The name of its operation, whether it is a query, and whether it writes into its first argument.

    `flag` is the position of an argument `inplace`, if it has one.
    """

    op: str
    is_query: bool
    writes: bool
    flag: int | None

    def writes_in_place(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether `inplace` is set, by position or by name."""
        flag = self.flag
        return flag is not None and bool(args[flag] if len(args) > flag else kwargs.get("inplace"))

    def without_inplace(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments without `inplace`."""
        flag = len(args) if self.flag is None else self.flag
        if len(args) > flag:
            return (*args[:flag], False, *args[flag + 1 :]), kwargs
        return args, {name: value for name, value in kwargs.items() if name != "inplace"}


@lru_cache(4096)
def described(func: Callable[..., Any]) -> Function:
    """What is known of a function, by its name and signature."""
    op = name_of(func)
    return Function(op, op in QUERIES, in_place(func), _flag(func))


def _flag(func: Callable[..., Any]) -> int | None:
    if not inspect.isfunction(func) or func in boolean_dispatched:
        return None
    names = func.__code__.co_varnames[: func.__code__.co_argcount]
    return names.index("inplace") if "inplace" in names else None


@lru_cache(4096)
def out_of_place(func: Any) -> Callable[..., Any]:
    """The function that computes what an in-place call writes."""
    op, spelled = name_of(func), str(func.__name__)
    if op in WRITERS:
        return WRITERS[op]
    name = op if spelled.startswith("__") else spelled.rstrip("_")
    for home in (torch.Tensor, torch, torch.nn.functional):
        if callable(getattr(home, name, None)):
            return getattr(home, name)
    raise Unsupported(
        f"the in-place operation {spelled!r} has no counterpart out of place, so its result cannot be "
        "followed: compute the new value in a tensor of its own"
    )


def caller() -> str:
    """File and line of the first frame outside torch and this library."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  inspect.stack is slow
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown"
