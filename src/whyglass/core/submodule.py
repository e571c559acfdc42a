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


class Capture(Protocol):
    """A place inside the network whose tensors a scorer explains instead of the inputs.

    `within_graph` tells whether the leaves hang in the graph of the inputs, or are cut from it.
    """

    name: str
    within_graph: bool

    def capture(
        self, point: Tensor | None, gradient: bool, begin: Begin | None
    ) -> AbstractContextManager[Captured]:
        """Within, watch one forward pass, putting `point` in place if it is given.

        `begin` is told of the leaf before anything uses it.
        """
        ...


class Captured(Protocol):
    """What a `Capture` read in one forward pass."""

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
            matches = [name for name, module in names.items() if module is at]
            if not matches:
                raise BadInput(f"at={type(at).__name__}(...) is not a submodule of the model")
            self.name, self.module = matches[0], at

    @contextmanager
    def capture(
        self, point: Tensor | None, gradient: bool, begin: Begin | None
    ) -> Generator[CapturedOutput]:
        """Within, the module's output is `point`, or itself cut from the graph, as a new leaf."""
        captured = CapturedOutput(self.name)
        thread = threading.get_ident()

        def hook(_module: nn.Module, _inputs: Any, result: Any) -> Any:
            if threading.get_ident() != thread:
                return None
            output = _first_tensor(result, self.name)
            leaf = (output if point is None else point).detach()
            if gradient:
                leaf.requires_grad_()
            captured.add(leaf)
            if begin is not None:
                begin((leaf,))
            # The network gets a copy, so that an in-place activation after the layer is harmless.
            return _with_first_tensor(result, leaf.clone())

        handle = self.module.register_forward_hook(hook)
        try:
            yield captured
        finally:
            handle.remove()

    def only_output(self, outputs: list[Any]) -> Any:
        """The output of the one call."""
        return _only(self.name, outputs)

    @contextmanager
    def recorded(self) -> Generator[list[Any]]:
        """Within, every output of the module is recorded."""
        outputs: list[Any] = []
        thread = threading.get_ident()

        def hook(_module: nn.Module, _inputs: Any, result: Any) -> None:
            if threading.get_ident() == thread:
                outputs.append(result)

        handle = self.module.register_forward_hook(hook)
        try:
            yield outputs
        finally:
            handle.remove()


class CapturedOutput:
    """The leaf made by one forward pass."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._leaves: list[Tensor] = []

    def add(self, leaf: Tensor) -> None:
        """Called by the hook."""
        self._leaves.append(leaf)

    def leaves(self, score: Tensor | None) -> Leaves:
        """The one leaf; an error unless the layer ran exactly once."""
        return (_only(self._name, self._leaves),)


def _only(name: str, outputs: list[T]) -> T:
    if len(outputs) != 1:
        how_often = "never runs" if not outputs else f"runs {len(outputs)} times"
        raise BadInput(
            f"layer {name!r} {how_often} in one forward pass, so it is ambiguous: choose a layer that "
            "runs once"
        )
    return outputs[0]


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
