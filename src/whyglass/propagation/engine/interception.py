"""Interception of operations: each call of the forward pass meets the rule of its operation.

A `TorchFunctionMode` sees modules, functions, methods, operators and in-position calls alike. Tensors
that descend from the explained leaf are *tracked*. A call on none of them runs as it is; one on some
goes to the method's table, and what is in no table is an error that names the operation and the line
that called it. Rules that compare with a baseline need the same tensor at the baseline: with
`with_baseline` each tracked tensor has one, computed beside it by the same calls.

In-place calls run out of place; later uses of the overwritten tensor meet the new one. Composite
calls (group norm, attention, recurrent layers) for which the table names no rule run as the elementary
calls of their decomposition, under the same mode.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.inputs import Leaves, differentiable
from whyglass.core.scorer import Evaluated, Rows, Scorer
from whyglass.propagation.engine.arguments import Form, leaves_of, mapped, packed, unpacked
from whyglass.propagation.engine.calls import Call, Policy, Table
from whyglass.propagation.engine.decompositions import DECOMPOSITIONS
from whyglass.propagation.engine.operations import (
    QUERIES,
    STRUCTURAL,
    in_place,
    name_of,
)

P = TypeVar("P", bound="Propagation")
# Folders that a user's own may be named like, so whole paths.
_LIBRARIES = tuple(
    f"{path.parent}{os.sep}" for path in (Path(torch.__file__), Path(__file__).parents[1])
)


def one_of(name: str, value: object, kind: Any) -> None:
    """Refuse a word that is none of a `Literal`'s."""
    words = get_args(kind)
    if value not in words:
        raise BadInput(f"{name} must be one of {', '.join(map(repr, words))}, not {value!r}")


class Propagation(TorchFunctionMode):
    """One forward pass under a table: a `whyglass.core.scorer.Interception`.

    Afterwards `with_rule` holds the operations that had a rule of their own, `accepted` those that had
    none, and `last` the one that computed the score, other than moves and copies.
    """

    ways_out: ClassVar[str] = (
        'unsupported="gradient" takes the plain gradient there and records it, at= starts behind it, '
        "or another method (integrated gradients needs no rules)"
    )

    def __init__(
        self,
        table: Table,
        with_baseline: bool,
        unsupported: Policy = "error",
        layers: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        self._table, self._with_baseline, self._unsupported = table, with_baseline, unsupported
        self._layers, self._layer = layers or {}, ""
        self._memories: list[dict[int, Any]] = []
        self._tracked: dict[int, tuple[_Ref, Tensor | None]] = self.per_tensor()
        self._forget = _forgetter(weakref.ref(self))
        self._replaced: dict[int, tuple[Tensor, Tensor]] = {}
        self._overwritten_memory: set[int] = set()
        self._plain = frozenset[str]() if with_baseline else table.plain()
        # Whether `after_call` is called for operations without a rule, too, and `_query` for queries.
        self._records_all = type(self).after_call is not Propagation.after_call
        self._inspects_queries = with_baseline or type(self)._query is not Propagation._query
        self.with_rule: set[str] = set()
        self.last = ""
        self.accepted: dict[str, int] = {}

    def begin(self, leaves: Leaves, first: int = 0) -> None:
        """Follow the leaves."""
        for leaf in leaves:
            if differentiable(leaf):
                self.track(leaf, None)

    def end(self, scores: Tensor) -> Tensor:
        """What is differentiated: the scores."""
        return scores

    def track(self, tensor: Tensor, at_baseline: Tensor | None) -> None:
        """From here on follow this tensor, which is the other one at the baseline."""
        reference = _Ref(tensor, self._forget)
        reference.key = id(tensor)
        self._tracked[id(tensor)] = (reference, at_baseline)

    def per_tensor(self) -> dict[int, Any]:
        """What is to be known of tensors by their id: entries go when the tensor does.

        A pass holds no tensor that the network itself has done with: memory used again is much faster
        than fresh memory.
        """
        made: dict[int, Any] = {}
        self._memories.append(made)
        return made

    def at_baseline(self, value: Any) -> Any:
        """A tensor, or a structure of them, at the baseline; untracked ones are the same there."""
        return mapped(self._one_at_baseline, value)

    def _one_at_baseline(self, value: Any) -> Any:
        known = self._tracked.get(id(value))
        return value if known is None or known[1] is None else known[1]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, named = tuple(args), kwargs or {}
        if self._replaced:
            args, named = mapped(self._current, args), mapped(self._current, named)
        op, is_query, writes = _kind(func)
        if is_query and not self._inspects_queries:
            return func(*args, **named)
        if op in self._plain and not (
            writes or self._records_all or self._overwritten_memory or named.get("inplace")
        ):
            return self._pass(op, func, args, named)
        # The mode's own composites take the flag by position; none of those is a rule's business.
        given = {name: value for name, value in named.items() if name != "inplace"}
        leaves, form = packed(args, given)
        tracked = self._tracked
        for leaf in leaves:
            if id(leaf) in tracked:
                break
        else:
            return func(*args, **named)
        if is_query:
            return self._query(func, args, named)
        function = _out_of_place(func) if writes else func
        result = self._dispatch(op, function, args, given, leaves, form)
        if writes or named.get("inplace"):
            self._overwrite(args[0], result)
        return result

    def _pass(self, op: str, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A call that is no rule's business: if it takes what is tracked, what it makes is, too."""
        result, tracked = func(*args, **named), self._tracked
        for leaf in args:
            if id(leaf) in tracked:
                break
        else:
            if not any(id(leaf) in tracked for leaf in leaves_of((args, named))):
                return result
        if op not in STRUCTURAL:
            self.last = op
        self._follow(result, None)
        return result

    def _current(self, value: Any) -> Any:
        while (known := self._replaced.get(id(value))) is not None:
            value = known[1]
        return value

    def _dispatch(
        self,
        op: str,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        leaves: list[Any],
        form: Form,
    ) -> Any:
        if self._with_baseline or self._overwritten_memory:
            self._check_operands(op, [leaf for leaf in leaves if id(leaf) in self._tracked])
        if op == "batch_norm" and bool(kwargs.get("training") or args[5:6] == (True,)):
            self._refuse(
                op, "uses the statistics of its batch, where rows depend on each other, so"
            )
        if op == "setitem":
            return self._set_item(args)
        if self._table.decompose and op in DECOMPOSITIONS and op not in self._table.by_name:
            outer, self._layer = self._layer, self._layer_of(leaves)
            with self:
                result = DECOMPOSITIONS[op](self, *args, **kwargs)
            self._layer = outer
            return result
        return self._apply(op, function, leaves, form)

    def _overwrite(self, old: Tensor, new: Tensor) -> None:
        """From here on `old` means `new`; other views of its memory are out of date."""
        self._replaced[id(old)] = (old, new)
        self._overwritten_memory.add(old.untyped_storage().data_ptr())

    def _apply(self, op: str, function: Any, leaves: list[Any], form: Form) -> Any:
        tracked = self._tracked
        operands = tuple(
            [
                position
                for position, leaf in enumerate(leaves)
                if id(leaf) in tracked and leaf.is_floating_point()
            ]
        )
        if op not in STRUCTURAL:
            self.last = op
        try:
            rule = self._table.rule(op, len(operands))
        except KeyError:
            if self._unsupported == "error":
                self._refuse(op, "has no rule, so")
            self.accepted[op] = self.accepted.get(op, 0) + 1
            rule = self._table.accepted
        if rule is None and self._with_baseline and not self._records_all:
            args, kwargs = unpacked(leaves, form)
            result = function(*args, **kwargs)
            args, kwargs = unpacked([self._one_at_baseline(leaf) for leaf in leaves], form)
            with torch.no_grad():
                self._follow(result, function(*args, **kwargs))
            return result
        at_baseline = tuple(map(self._one_at_baseline, leaves)) if self._with_baseline else ()
        layer = self._layer_of(leaves)
        call = Call(op, function, tuple(leaves), operands, form, at_baseline, layer)
        if rule is not None:
            self.with_rule.add(op)
        result = call.run() if rule is None else rule(call)
        self._follow(result, call.at_baseline if self._with_baseline else None)
        self.after_call(call, result)
        return result

    def after_call(self, call: Call, result: Any) -> None:
        """For a method's own records: called with each operation and what it gave."""

    def _layer_of(self, leaves: list[Any]) -> str:
        if not self._layers:
            return ""
        found = (self._layers.get(id(leaf)) for leaf in leaves)
        return next(filter(None, found), self._layer)

    def _follow(self, result: Any, at_baseline: Any) -> None:
        if isinstance(result, Tensor) and (not self._with_baseline or result.is_floating_point()):
            self.track(result, at_baseline)
            return
        made = leaves_of(result)
        at_baseline = leaves_of(at_baseline) if self._with_baseline else [None] * len(made)
        for tensor, tensor_at_baseline in zip(made, at_baseline, strict=True):
            if not isinstance(tensor, Tensor):
                continue
            # An index that only took its shape from a tracked tensor is the same at the baseline.
            if (
                tensor.is_floating_point()
                or tensor_at_baseline is None
                or not torch.equal(tensor, tensor_at_baseline)
            ):
                self.track(tensor, tensor_at_baseline)

    def _query(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = function(*args, **kwargs)
        if self._with_baseline and isinstance(result, Tensor) and not result.requires_grad:
            with torch.no_grad():
                at_baseline = function(*self.at_baseline(args), **self.at_baseline(kwargs))
            if not torch.equal(result, at_baseline):
                self.track(result, at_baseline)
        return result

    def _check_operands(self, op: str, tracked: list[Any]) -> None:
        """Masks and indices from the input must be the same at the baseline, and memory current."""
        for tensor in tracked:
            if (
                self._overwritten_memory
                and tensor.untyped_storage().data_ptr() in self._overwritten_memory
            ):
                self._refuse(
                    op, "reads memory that an in-position call wrote through another view, so"
                )
            if not tensor.is_floating_point() and self._with_baseline:
                self._refuse(op, "takes a mask or index that is another one at the baseline, so")

    def _set_item(self, args: tuple[Any, ...]) -> None:
        target, index, value = args
        if not isinstance(value, Tensor):
            value = torch.as_tensor(value, dtype=target.dtype, device=target.device)
        key = index if isinstance(index, tuple) else (index,)
        made = _written(target, key, value)
        at_baseline = None
        if self._with_baseline:
            with torch.no_grad():
                at_baseline = _written(
                    self._one_at_baseline(target), key, self._one_at_baseline(value)
                )
        self.track(made, at_baseline)
        self._overwrite(target, made)

    def _refuse(self, op: str, why: str) -> None:
        raise Unsupported(
            f"operation {op!r} {why} this method cannot pass through it; called at {_caller()}. Ways "
            f"out: {self.ways_out}"
        )


def intercepted(scorer: Scorer, make: Callable[[slice], P]) -> tuple[Evaluated, list[P]]:
    """Scores and changed gradients at the inputs, and the passes: a new one each piece of the batch."""
    require_visible_operations(scorer.model)
    passes: list[P] = []

    def around(piece: slice, _rows: Rows) -> P:
        passes.append(make(piece))
        return passes[-1]

    scorer.interception = around
    here = scorer.at_inputs(gradient=True)
    scorer.interception = None
    return here, passes


class _Ref(weakref.ref[Tensor]):
    """A reference that does not keep its tensor, and remembers the id."""

    __slots__ = ("key",)
    key: int


def _forgetter(owner: weakref.ref[Propagation]) -> Callable[[_Ref], None]:
    def forget(gone: _Ref) -> None:
        propagation = owner()
        if propagation is not None:
            for memory in propagation._memories:  # pyright: ignore[reportPrivateUsage]  its own
                memory.pop(gone.key, None)

    return forget


def layers_of(model: Callable[..., Any]) -> dict[int, str]:
    """The submodule that owns each parameter and buffer, by the tensor's id."""
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
    return {
        id(tensor): name
        for name, module in modules
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }


def require_visible_operations(model: Callable[..., Any]) -> None:
    """Refuse models whose operations no mode can see."""
    if isinstance(model, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        kind = "TorchScript"
    elif hasattr(model, "_orig_mod"):
        kind = "compiled"
    else:
        return
    raise Unsupported(
        f"the operations of a {kind} model cannot be seen: pass the module it was made from"
    )


@lru_cache(4096)
def _kind(func: Any) -> tuple[str, bool, bool]:
    """The operation's name, whether it is a query, and whether it writes in place."""
    op = name_of(func)
    return op, op in QUERIES, in_place(func)


def _written(target: Tensor, key: tuple[Any, ...], value: Tensor) -> Tensor:
    made = target.clone()
    made[key] = value
    return made


def _out_of_place(func: Any) -> Any:
    spelled: str = func.__name__
    name = {
        "__iadd__": "add",
        "__isub__": "sub",
        "__imul__": "mul",
        "__itruediv__": "div",
        "__idiv__": "div",
        "__ipow__": "pow",
    }.get(spelled, spelled.rstrip("_"))
    for home in (torch.Tensor, torch, torch.nn.functional):
        if hasattr(home, name):
            return getattr(home, name)
    raise Unsupported(f"the in-place operation {func.__name__} has no counterpart out of place")


def _caller() -> str:
    """File and line of the first frame outside torch and this library."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  inspect.stack is slow
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "unknown"
