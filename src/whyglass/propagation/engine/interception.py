"""Interception of operations: each call of the forward pass has the rule of its operation.

A `TorchFunctionMode` sees modules, functions, methods, operators and in-place calls alike. Tensors
that descend from the explained leaf are *tracked*. A call on none of them runs as it is; one on some
goes to the method's table, and what is in no table is an error that names the operation and the line
that called it. Rules that compare with a baseline need the same tensor at the baseline: a pass with
`with_baseline` runs every call a second time, on what its operands are there.

In-place calls run out of place (`WrittenMemory`). Composite calls (group norm, attention, recurrent
layers) for which the table names no rule run as the elementary calls of their decomposition, under
the same mode. Complex numbers are pairs of real ones.

The gradient takes a detached tensor, an index and a number in Python for constants of the network, and
so does every method here. At a baseline they are what they are at the inputs: `held` names those that
would be others there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from whyglass.core.errors import Unsupported
from whyglass.core.inputs import Leaves, differentiable
from whyglass.propagation.engine.arguments import Form, leaves_of, mapped, packed, unpacked
from whyglass.propagation.engine.calls import Call, Policy, Table
from whyglass.propagation.engine.choices import Choices
from whyglass.propagation.engine.complex_numbers import name_on_pairs, on_pairs, parts_of
from whyglass.propagation.engine.custom_functions import CustomFunctions
from whyglass.propagation.engine.decompositions.table import (
    DECOMPOSITIONS,
    NOT_LINEAR_IN,
    OF_SEVERAL,
    OF_WEIGHTS,
)
from whyglass.propagation.engine.functions import Function, caller, described, out_of_place
from whyglass.propagation.engine.operations import (
    COMPARISONS,
    CONSTANTS,
    FOURIER,
    LIKE_ANOTHER,
    STRUCTURAL,
)
from whyglass.propagation.engine.signatures import NoSignature, bind
from whyglass.propagation.engine.step_masks import StepMasks, step
from whyglass.propagation.engine.tensor_memory import Reference, TensorMemory
from whyglass.propagation.engine.written_memory import WrittenMemory


class Propagation(TorchFunctionMode):
    """One forward pass under a table: a `whyglass.core.scorer.Interception`.

    Afterwards `with_rule` holds the operations that had a rule of their own, `accepted` those that had
    none, `held` those whose results were constants, and `last` the one that computed the score,
    other than moves and copies.
    """

    ways_out: ClassVar[str] = (
        'unsupported="gradient" takes the plain gradient there and records it, at= starts behind it, '
        "or another method (integrated gradients needs no rules)"
    )
    # Whether what has no gradient is a constant.
    needs_gradient: ClassVar[bool] = True

    def __init__(
        self,
        table: Table,
        with_baseline: bool,
        unsupported: Policy = "error",
        layers: Mapping[int, str] | None = None,
    ) -> None:
        super().__init__()
        self._table, self.with_baseline, self._unsupported = table, with_baseline, unsupported
        self._layers, self._layer = layers or {}, ""
        self._memory = TensorMemory()
        self._tracked: dict[int, tuple[Reference, Tensor | None]] = self.per_tensor()
        self._written = WrittenMemory(self._seen)
        self._entered = 0
        self._choices = Choices(self._memory, self._one_at_baseline)
        self._step_masks = StepMasks(self._memory, self._choices, self._seen)
        self._plain = frozenset[str]() if with_baseline else table.plain()
        # Whether `after_call` is called for operations without a rule, too, and `_query` for queries.
        self._records_all = type(self).after_call is not Propagation.after_call
        self._inspects_queries = with_baseline or type(self)._query is not Propagation._query
        self.with_rule: set[str] = set()
        self.last = ""
        self.accepted: dict[str, int] = {}
        self.held = self._choices.held
        self._custom = CustomFunctions(self.held)

    def __enter__(self) -> Propagation:
        self._entered += 1
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._entered -= 1
        for values in () if self._entered else (self._written, self._custom):
            values.forget()

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
        self._tracked[id(tensor)] = (self._memory.reference(tensor), at_baseline)

    def per_tensor(self) -> dict[int, Any]:
        """A dict by the ids of tensors, whose entries go when the tensor does."""
        return self._memory.per_tensor()

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
        known = described(func)
        flagged = known.flag is not None and known.writes_in_place(args, named)
        for values in (self._written, self._custom):
            if values:
                args, named = mapped(values.current, args), mapped(values.current, named)
        if known.is_query and not self._inspects_queries:
            return func(*args, **named)
        if (
            known.op in self._plain
            and torch.is_grad_enabled()
            and not (known.writes or flagged or self._records_all or "out" in named)
        ):
            return self._pass(known.op, func, args, named)
        if self._step_masks:
            result = self._step_masks.through(known, func, args, named)
            if result is not NotImplemented:
                return result
        tracked = self._tracked
        for leaf in args[:1] if known.op in LIKE_ANOTHER else packed(args, named)[0]:
            if id(leaf) in tracked:
                break
        else:
            result = func(*args, **named)
            if self._choices:
                self._choices.compare(known, func, result, args, named)
            return result
        if known.is_query:
            return self._query(known, func, args, named)
        return self._followed(known, func, args, named, flagged)

    def _pass(self, op: str, func: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """A call that is no rule's business: if it takes what is tracked, what it returns is, too."""
        result, tracked = func(*args, **named), self._tracked
        for leaf in args:
            if id(leaf) in tracked:
                break
        else:
            if not any(id(leaf) in tracked for leaf in leaves_of((args, named))):
                return result
        if op not in STRUCTURAL:
            self.last = op
        self._follow(op, result, None)
        return result

    def _followed(
        self,
        known: Function,
        func: Any,
        args: tuple[Any, ...],
        named: dict[str, Any],
        flagged: bool,
    ) -> Any:
        """A call on tracked tensors, whatever it writes being a value of its own."""
        out = named.get("out")
        if flagged:
            args, named = known.without_inplace(args, named)
        if "out" in named:
            named = {name: value for name, value in named.items() if name != "out"}
        leaves, form = packed(args, named)
        function = out_of_place(func) if known.writes else func
        off = self.needs_gradient and not torch.is_grad_enabled()
        cut = self.needs_gradient and known.op in CONSTANTS
        if not any(id(leaf) in self._tracked for leaf in leaves):
            result = function(*args, **named)
        elif cut or (off and (known.writes or flagged or out is not None)):
            result = self._choices.constant(known.op, function, args, named, self.with_baseline)
        elif off:
            with torch.enable_grad():
                result = self._dispatch(known.op, function, args, named, leaves, form)
            return self._custom.stand_in(known.op, result)
        else:
            result = self._dispatch(known.op, function, args, named, leaves, form)
        if known.writes or flagged:
            return self._written.write(args[0], result, leaves, self._tracked)
        return result if out is None else self._write_out(known.op, out, result, leaves)

    def _write_out(self, op: str, out: Any, result: Any, leaves: list[Any]) -> Any:
        """The result in the tensors that `out` names."""
        written: list[Tensor] = []
        for target, value in zip(leaves_of(out), leaves_of(result), strict=True):
            if target.shape != value.shape:
                self._refuse(op, "changes the shape of its `out`, so")
            written.append(self._written.write(target, value, leaves, self._tracked))
        return written[0] if isinstance(out, Tensor) else type(result)(written)

    def _seen(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a function so that its call is seen."""
        with self:
            return function(*args, **kwargs)

    def _dispatch(
        self,
        op: str,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        leaves: list[Any],
        form: Form,
    ) -> Any:
        if self._choices:
            self._choices.use(leaves)
        if op == "batch_norm" and bool(kwargs.get("training") or args[5:6] == (True,)):
            self._refuse(
                op, "uses the statistics of its batch, where rows depend on each other, so"
            )
        if self._decomposes(op):
            decomposition = self._decomposition(op, function, args, kwargs)
            if decomposition is not None:
                result = self._decomposed(op, decomposition, function, args, kwargs, leaves)
                if result is not NotImplemented:
                    return result
        return self._apply(op, function, leaves, form)

    def _decomposes(self, op: str) -> bool:
        return self._table.decompose and op not in self._table.by_name

    def _decomposition(
        self, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Callable[..., Any] | None:
        if op in NOT_LINEAR_IN:
            name, decomposition = NOT_LINEAR_IN[op]
            operand = self._bound(op, function, args, kwargs).get(name)
            return decomposition if id(operand) in self._tracked else None
        return DECOMPOSITIONS.get(op)

    def _decomposed(
        self,
        op: str,
        decomposition: Callable[..., Any],
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        leaves: list[Any],
    ) -> Any:
        bound = self._bound(op, function, args, kwargs)
        outer, self._layer = self._layer, self._layer_of(leaves)
        try:
            with self:
                return decomposition(**bound)
        finally:
            self._layer = outer

    def _bound(
        self, op: str, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            return bind(function, args, kwargs)
        except NoSignature as error:
            self._refuse(op, f"is called in a form that is not known ({error}), so")

    def _apply(self, op: str, function: Any, leaves: list[Any], form: Form) -> Any:
        tracked = self._tracked
        operands = tuple([position for position, leaf in enumerate(leaves) if id(leaf) in tracked])
        if op not in STRUCTURAL:
            self.last = op
            if op in FOURIER or any(leaves[position].is_complex() for position in operands):
                return self._apply_on_pairs(op, function, leaves, form, operands)
        several = OF_SEVERAL.get(op) if len(operands) > 1 else None
        several = OF_WEIGHTS.get(op) if operands != (0,) and several is None else several
        if several is not None and self._table.decompose:
            args, kwargs = unpacked(leaves, form)
            result = self._decomposed(op, several, function, tuple(args), kwargs, leaves)
            if result is not NotImplemented:
                return result
        try:
            rule = self._table.rule(op, len(operands))
        except KeyError:
            if self._unsupported == "error":
                self._refuse(op, "has no rule, so")
            self.accepted[op] = self.accepted.get(op, 0) + 1
            rule = self._table.accepted
        if rule is None and self.with_baseline and not self._records_all:
            args, kwargs = unpacked(leaves, form)
            result = function(*args, **kwargs)
            args, kwargs = unpacked([self._one_at_baseline(leaf) for leaf in leaves], form)
            with torch.no_grad():
                self._follow(op, result, function(*args, **kwargs))
            return result
        there = tuple(map(self._one_at_baseline, leaves)) if self.with_baseline else ()
        layer = self._layer_of(leaves)
        call = Call(op, function, tuple(leaves), operands, form, there, layer)
        if rule is None:
            result = call.run()
        else:
            self.with_rule.add(op)
            result = rule(call)
            self._written.made_by_rule(result)
        self._follow(op, result, call.at_baseline if self.with_baseline else None)
        self.after_call(call, result)
        return result

    def _apply_on_pairs(
        self, op: str, function: Any, leaves: list[Any], form: Form, operands: tuple[int, ...]
    ) -> Any:
        """An operation on complex numbers as one on their real and imaginary parts."""
        name = name_on_pairs(op, len(operands))
        if name is None and not self._table.total:
            self._refuse(op, "of complex numbers has no rule, so")
        if name is None or self._table.rule(name, len(operands)) is None:
            args, kwargs = unpacked(leaves, form)
            result = function(*args, **kwargs)
            at_baseline = None
            if self.with_baseline:
                args, kwargs = unpacked([self._one_at_baseline(leaf) for leaf in leaves], form)
                with torch.no_grad():
                    at_baseline = function(*args, **kwargs)
            self._follow(op, result, at_baseline)
            return result
        pairs = list(leaves)
        real = op in FOURIER and not leaves[operands[0]].is_complex()
        if not real:
            for position in operands:
                pairs[position] = self._seen(parts_of, leaves[position])
        args, kwargs = unpacked(leaves, form)
        run = on_pairs(function, () if real else operands, form)
        with torch.no_grad():
            is_complex = bool(function(*args, **kwargs).is_complex())
        result = self._apply(name, run, pairs, (len(pairs), ()))
        return self._seen(torch.view_as_complex, result) if is_complex else result

    def after_call(self, call: Call, result: Any) -> None:
        """For a method's own records: called with each operation and its result."""

    def _layer_of(self, leaves: list[Any]) -> str:
        if not self._layers:
            return ""
        names = (self._layers.get(id(leaf)) for leaf in leaves)
        return next(filter(None, names), self._layer)

    def _follow(self, op: str, result: Any, at_baseline: Any) -> None:
        """Follow what has a gradient, and remember choices that are others at the baseline."""
        if isinstance(result, Tensor) and (not self.with_baseline or result.requires_grad):
            if self._depends_on_input(result):
                self.track(result, at_baseline)
            return
        here = leaves_of(result)
        there = leaves_of(at_baseline) if self.with_baseline else [None] * len(here)
        for tensor, tensor_there in zip(here, there, strict=True):
            if not isinstance(tensor, Tensor):
                continue
            if self._depends_on_input(tensor):
                self.track(tensor, tensor_there)
            elif tensor_there is not None and not torch.equal(tensor, tensor_there):
                self._choices.add(tensor, op, tensor_there)

    def _depends_on_input(self, tensor: Tensor) -> bool:
        if self.needs_gradient:
            return tensor.requires_grad
        return tensor.is_floating_point() or tensor.is_complex()

    def _query(
        self, known: Function, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = function(*args, **kwargs)
        if not self.with_baseline:
            return result
        turned = self._choices.compare(known, function, result, args, kwargs)
        if turned and known.op in COMPARISONS and isinstance(result, Tensor) and len(args) == 2:
            self._step_masks.follow(result, self._seen(step, known.op, *args))
        return result

    def _refuse(self, op: str, why: str) -> NoReturn:
        cause = f"operation {op!r} {why} this method cannot pass through it; called at {caller()}"
        raise Unsupported(f"{cause}. Ways out: {self.ways_out}")
