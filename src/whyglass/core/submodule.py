"""The output of a submodule as the thing explained: captured, or replaced by points of a path.

The hook that does it acts only in the thread that set it and is removed on the way out, so two
threads may explain one model at once.

A layer may run more than once in a forward pass: each call is a leaf of its own. Its output need not
have the batch first. A pass of another number of rows, the *survey*, shows how often the layer runs
and which axis of each output is the batch; leaves have that axis first.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.inputs import Leaves
from whyglass.core.layer import At, LayerCall


class Begin(Protocol):
    """Called with leaves before anything uses them; `first` is the number of the first of them."""

    def __call__(self, leaves: Leaves, first: int = 0) -> None: ...


class Capture(Protocol):
    """A place inside the network whose tensors a scorer explains instead of the inputs.

    `within_graph` tells whether the leaves hang in the graph of the inputs, or are cut from it.
    """

    within_graph: bool

    @property
    def name(self) -> str:
        """What is read, for people."""
        ...

    def capture(
        self, points: Leaves | None, rows: int, gradient: bool, begin: Begin | None
    ) -> AbstractContextManager[Captured]:
        """Within, read one forward pass of `rows` rows, putting `points` in place if there are any."""
        ...


class Captured(Protocol):
    """What a `Capture` read in one forward pass."""

    def leaves(self, score: Tensor | None) -> Leaves:
        """The tensors to differentiate the score by."""
        ...


class Submodule:
    """A submodule of `model`, by object or dotted name, or one call of it.

    With `or_twin` a submodule that never runs is replaced by the first one that does and has the same
    parameters.
    """

    within_graph = False

    def __init__(self, model: Callable[..., Any], at: At, *, or_twin: bool = False) -> None:
        if not isinstance(model, nn.Module):
            raise BadInput(
                "at= names a layer of a torch.nn.Module, and the model is a plain callable"
            )
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            kind = "compiled" if hasattr(model, "_orig_mod") else "TorchScript"
            raise Unsupported(
                f"at= cannot look inside a {kind} model: pass the module it was made from"
            )
        self._call, at = (at.call, at.at) if isinstance(at, LayerCall) else (None, at)
        self._layer, self.module = _find(model, at)
        self._model, self._or_twin = model, or_twin
        self._surveyed: list[torch.Size] = []
        self._survey_rows = 0
        self._batch_axes: dict[int, int] = {}

    @property
    def name(self) -> str:
        """The dotted name, and the number of the call where only one is explained."""
        return self._layer if self._call is None else f"{self._layer} (call {self._call})"

    def survey_rows(self, rows: int) -> int:
        """How many rows a survey needs before a pass of `rows` rows; 0 where the axes are known."""
        if self._batch_axes or self._survey_rows not in (0, rows):
            return 0
        return 2 if rows == 1 else 1

    def survey(self, run: Callable[[], Any], rows: int) -> None:
        """Let `run` put `rows` rows through the model, and keep the shapes of the layer's outputs."""
        twins = self._twins()
        with ExitStack() as stack:
            outputs, *of_twins = [
                stack.enter_context(_recorded(module)) for module in (self.module, *twins.values())
            ]
            run()
        running = [name for name, calls in zip(twins, of_twins, strict=True) if calls]
        if not outputs and self._or_twin and running:
            self._layer, self.module = running[0], twins[running[0]]
            outputs = of_twins[list(twins).index(running[0])]
        if not outputs:
            raise _never_runs(self._layer, running)
        if self._call is not None:
            outputs = [_of_call(self._layer, outputs, self._call)]
        self._surveyed = [_first_tensor(output, self.name).shape for output in outputs]
        self._survey_rows = rows

    @contextmanager
    def capture(
        self, points: Leaves | None, rows: int, gradient: bool, begin: Begin | None
    ) -> Generator[_Outputs]:
        """Within, the outputs of the module are `points`, or themselves as new leaves."""
        captured = _Outputs(self.name, len(self._surveyed))
        thread = threading.get_ident()
        calls = 0

        def hook(_module: nn.Module, _inputs: Any, result: Any) -> Any:
            nonlocal calls
            if threading.get_ident() != thread:
                return None
            call, calls = calls, calls + 1
            if self._call is not None and call != self._call:
                return None
            number = captured.next_number()
            # The leaf is new: whatever follows the network's operations does not follow this.
            with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]  no other way
                output = _first_tensor(result, self.name)
                axis = self._batch_axis(number, output.shape, rows)
                leaf = (output.movedim(axis, 0) if points is None else points[number]).detach()
                if gradient:
                    leaf.requires_grad_()
            captured.add(leaf)
            if begin is not None:
                begin((leaf,), number)
            in_place = leaf if axis == 0 else leaf.movedim(0, axis)
            # The network gets a copy, so that an in-place activation after the layer is harmless.
            return _with_first_tensor(result, in_place.clone())

        handle = self.module.register_forward_hook(hook)
        try:
            yield captured
        finally:
            handle.remove()

    @contextmanager
    def scored(self) -> Generator[Callable[[], Any]]:
        """Within, outputs are recorded; what is yielded returns that of the one call scored."""
        with _recorded(self.module) as outputs:
            yield lambda: self._scored_output(outputs)

    def _scored_output(self, outputs: list[Any]) -> Any:
        if not outputs:
            raise _never_runs(self._layer, [])
        if self._call is None and len(outputs) > 1:
            raise BadInput(
                f"layer {self._layer!r} runs {len(outputs)} times in one forward pass: score one of "
                f"them with output=Layer(LayerCall({self._layer!r}, 0))"
            )
        return _of_call(self._layer, outputs, self._call or 0)

    def _batch_axis(self, number: int, shape: torch.Size, rows: int) -> int:
        """The axis of this output that has `rows` entries here and had the survey's there."""
        if number not in self._batch_axes:
            before = self._surveyed[number]
            axes = [
                axis
                for axis, sizes in enumerate(zip(before, shape, strict=False))
                if len(before) == len(shape) and sizes == (self._survey_rows, rows)
            ]
            if len(axes) != 1:
                which = "no axis" if not axes else f"more than one axis, {axes},"
                raise BadInput(
                    f"layer {self.name!r} puts out shape {tuple(shape)} for {rows} rows and "
                    f"{tuple(before)} for {self._survey_rows}, so {which} has one entry a row: choose "
                    "with at= a layer before or after it whose output has one"
                )
            self._batch_axes[number] = axes[0]
        return self._batch_axes[number]

    def _twins(self) -> dict[str, nn.Module]:
        """Other submodules of the same class that hold one of this one's parameters."""
        own = {id(parameter) for parameter in self.module.parameters()}
        return {
            name: module
            for name, module in self._model.named_modules()
            if module is not self.module
            and type(module) is type(self.module)
            and own & {id(parameter) for parameter in module.parameters()}
        }


class _Outputs:
    """The leaves made by one forward pass."""

    def __init__(self, name: str, expected: int) -> None:
        self._name, self._expected = name, expected
        self._leaves: list[Tensor] = []

    def next_number(self) -> int:
        """The number of the leaf that comes next."""
        if len(self._leaves) == self._expected:
            raise self._differs(f"more than {self._expected}")
        return len(self._leaves)

    def add(self, leaf: Tensor) -> None:
        """Called by the hook."""
        self._leaves.append(leaf)

    def leaves(self, score: Tensor | None) -> Leaves:
        """One leaf for each call."""
        if len(self._leaves) != self._expected:
            raise self._differs(str(len(self._leaves)))
        return tuple(self._leaves)

    def _differs(self, times: str) -> BadInput:
        return BadInput(
            f"layer {self._name!r} runs {self._expected} times on one row of the batch and {times} "
            "times on others: explain rows that use it alike together, or one call of it, with "
            "at=LayerCall(layer, 0)"
        )


def _find(model: nn.Module, at: object) -> tuple[str, nn.Module]:
    """The name and the module of a layer."""
    names = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if isinstance(at, int) and not isinstance(at, bool):
        at = str(at)
    if isinstance(at, str):
        if at not in names:
            near = difflib.get_close_matches(at, names, 3, 0.4) or list(names)[:5]
            raise BadInput(f"the model has no layer {at!r}; nearest: {', '.join(near)}")
        return at, names[at]
    matches = [name for name, module in names.items() if module is at]
    if not matches:
        kind = f"{type(at).__name__}(...)" if isinstance(at, nn.Module) else repr(at)
        raise BadInput(
            f"at={kind} is not a submodule of the model: give the object or its dotted name"
        )
    return matches[0], cast("nn.Module", at)


@contextmanager
def _recorded(module: nn.Module) -> Generator[list[Any]]:
    """Within, every output of the module is recorded."""
    outputs: list[Any] = []
    thread = threading.get_ident()

    def hook(_module: nn.Module, _inputs: Any, result: Any) -> None:
        if threading.get_ident() == thread:
            outputs.append(result)

    handle = module.register_forward_hook(hook)
    try:
        yield outputs
    finally:
        handle.remove()


def _never_runs(layer: str, twins: list[str]) -> BadInput:
    way = (
        f"the same parameters are used by {' and '.join(map(repr, twins))}, so give one of those"
        if twins
        else "choose a layer that runs"
    )
    return BadInput(f"layer {layer!r} never runs in a forward pass of the model: {way}")


def _of_call(layer: str, outputs: list[Any], call: int) -> Any:
    if call >= len(outputs):
        raise BadInput(
            f"layer {layer!r} runs {len(outputs)} times in one forward pass, so call {call} is out of "
            f"range: LayerCall counts from 0 to {len(outputs) - 1}"
        )
    return outputs[call]


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
