"""The output of a submodule as the thing explained: captured, or replaced by points of a path.

The hook that does it answers only to the thread that set it and is removed on the way out, so two
threads may explain one model at once.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.inputs import Leaves

Begin = Callable[[Leaves], None]
T = TypeVar("T")


class Probe(Protocol):
    """Something inside the network that a scorer explains instead of the input.

    `within_graph` tells whether the leaves hang in the graph of the inputs, or are cut from it.
    """

    name: str
    within_graph: bool

    def leaf(
        self, point: Tensor | None, gradient: bool, begin: Begin | None
    ) -> AbstractContextManager[Found]:
        """Within, watch one forward pass, putting `point` in place if it is given.

        `begin` is told of the leaf before anything uses it.
        """
        ...


class Found(Protocol):
    """What a probe saw of one forward pass."""

    def leaves(self, score: Tensor | None) -> Leaves:
        """The tensors to differentiate the score by."""
        ...


class Submodule:
    """A submodule of `model`, by object or dotted name."""

    within_graph = False

    def __init__(self, model: Callable[..., Any], at: str | nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise BadInput(
                "at= names a layer of a torch.nn.Module, and the model is a plain callable"
            )
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            kind = "compiled" if hasattr(model, "_orig_mod") else "TorchScript"
            raise Unsupported(
                f"at= cannot look inside a {kind} model: pass the module it was made from"
            )
        names = {name: module for name, module in model.named_modules() if name}
        if isinstance(at, str):
            if at not in names:
                near = difflib.get_close_matches(at, names, 3, 0.4) or list(names)[:5]
                raise BadInput(f"the model has no layer {at!r}; nearest: {', '.join(near)}")
            self.name, self.module = at, names[at]
        else:
            found = [name for name, module in names.items() if module is at]
            if not found:
                raise BadInput(f"at={type(at).__name__}(...) is not a submodule of the model")
            self.name, self.module = found[0], at

    @contextmanager
    def leaf(self, point: Tensor | None, gradient: bool, begin: Begin | None) -> Generator[Seen]:
        """Within, the module's output is `point`, or itself cut from the graph, as a new leaf."""
        seen = Seen(self.name)
        thread = threading.get_ident()

        def hook(_module: nn.Module, _inputs: Any, result: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            own = _first_tensor(result, self.name)
            leaf = (own if point is None else point).detach()
            if gradient:
                leaf.requires_grad_()
            seen.add(leaf)
            if begin is not None:
                begin((leaf,))
            # The network gets a copy, so that an in-place activation after the layer is harmless.
            return _with_first_tensor(result, leaf.clone())

        handle = self.module.register_forward_hook(hook)
        try:
            yield seen
        finally:
            handle.remove()

    def once(self, found: list[Any]) -> Any:
        """The one result that was kept."""
        return _once(self.name, found)

    @contextmanager
    def watched(self) -> Generator[list[Any]]:
        """Within, what the module returns is kept."""
        found: list[Any] = []
        thread = threading.get_ident()

        def hook(_module: nn.Module, _inputs: Any, result: Any) -> None:
            if threading.get_ident() == thread:
                found.append(result)

        handle = self.module.register_forward_hook(hook)
        try:
            yield found
        finally:
            handle.remove()


class Seen:
    """The leaf made by one forward pass."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._leaves: list[Tensor] = []

    def add(self, leaf: Tensor) -> None:
        """Called by the hook."""
        self._leaves.append(leaf)

    def leaves(self, score: Tensor | None) -> Leaves:
        """The one leaf; an error unless the layer ran exactly once."""
        return (_once(self._name, self._leaves),)


def _once(name: str, found: list[T]) -> T:
    if len(found) != 1:
        times = "never runs" if not found else f"runs {len(found)} times"
        raise BadInput(
            f"layer {name!r} {times} in one forward pass, so it is ambiguous: choose a layer that "
            "runs once"
        )
    return found[0]


def _first_tensor(result: Any, name: str) -> Tensor:
    first = result[0] if isinstance(result, tuple | list) and result else result
    if not isinstance(first, Tensor):
        raise BadInput(
            f"layer {name!r} returns {type(result).__name__}: at= needs a layer that returns a "
            "tensor, or a tuple that starts with one"
        )
    if not first.is_floating_point():
        raise BadInput(f"layer {name!r} returns {first.dtype}, which has no gradient")
    return first


def _with_first_tensor(result: Any, leaf: Tensor) -> Any:
    if isinstance(result, Tensor):
        return leaf
    rest = list(result)
    rest[0] = leaf
    return type(result)(*rest) if hasattr(result, "_fields") else type(result)(rest)
