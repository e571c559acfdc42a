"""Arguments by name: one mechanism for every function of torch, `Tensor` and `F`.

A Python function is bound to its own signature. A built-in one has none, so it is bound to the schemas
that torch keeps for its overloads; the first whose types fit is taken. Of both the first tensor is
called `input`, as torch's documentation does, where a schema says `self`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._jit_internal import boolean_dispatched

from whyglass.propagation.engine.operations import schema_names

# NumPy's names, which torch takes as well.
_NUMPY_NAMES = {"axis": "dim", "keepdims": "keepdim", "x": "input", "x1": "input", "x2": "other"}
# Types that have no type of their own in a schema: there they are integers.
_NUMBERED = (torch.dtype, torch.layout, torch.memory_format, torch.device, str)


class _Parameter(NamedTuple):
    name: str
    kind: str
    keyword_only: bool
    required: bool


_Overload = tuple[_Parameter, ...]


class NoSignature(Exception):
    """The arguments fit no signature of the function."""


def bind(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name, without those that were left out.

    Raises:
        NoSignature: they fit no signature that is known of the function.
    """
    values = (*args, *kwargs.values())
    key = function, len(args), tuple(kwargs), tuple(map(_type_of, values))
    names = _NAMES.get(key)
    if names is None:
        names = _names(function, args, kwargs)
        if names is None:
            # `view(2, 3)` is `view((2, 3))`, `einsum(equation, a, b)` is `einsum(equation, (a, b))`.
            first, *others = args
            return bind(function, (first, tuple(others)), kwargs)
        _NAMES[key] = names
    return {name: value for name, value in zip(names, values, strict=True) if name[0] != "_"}


# The names of the arguments of a call, one by one, by the function and the types of the arguments.
_NAMES: dict[tuple[Any, ...], tuple[str, ...]] = {}


def _type_of(value: Any) -> Any:
    """The part of a value's type that the choice of an overload depends on."""
    if isinstance(value, Tensor):
        return Tensor, value.dim() == 0
    if isinstance(value, tuple | list):
        return tuple(map(_type_of, cast("tuple[Any, ...]", value)))
    return type(value)


def _names(
    function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[str, ...] | None:
    """The names of the arguments one by one; None if all but the first are to be one argument."""
    signature = _signature(function)
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise NoSignature(str(error)) from None
        return tuple(map(_canonical, [*list(signature.parameters)[: len(args)], *kwargs]))
    for overload in _overloads(function):
        bound = _fitted(overload, args, kwargs)
        if bound is not None:
            return tuple(bound)
    others = tuple(args[1:])
    if others and (_integers(others) or all(isinstance(one, Tensor) for one in others)):
        return None
    raise NoSignature(f"no signature of {getattr(function, '__name__', function)} fits")


@lru_cache(4096)
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a Python function, with its arguments one by one."""
    if function in boolean_dispatched:
        function = boolean_dispatched[function]["if_true"]
    if not inspect.isfunction(function):
        return None
    try:
        signature = inspect.signature(function)
    except ValueError:
        # A built-in method in a wrapper, as many operators are.
        return None
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return None if inspect.Parameter.VAR_POSITIONAL in kinds else signature


@lru_cache(4096)
def _overloads(function: Callable[..., Any]) -> tuple[_Overload, ...]:
    """The overloads that return tensors, without those that write into `out`."""
    overloads: list[_Overload] = []
    for name in schema_names(function):
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}"):  # pyright: ignore[reportPrivateUsage]  no other way
            if schema.overload_name.endswith("out"):
                continue
            overloads.append(
                tuple(
                    _Parameter(
                        _canonical(argument.name),
                        str(argument.type),
                        argument.kwarg_only,
                        not argument.has_default_value(),
                    )
                    for argument in schema.arguments
                )
            )
    return tuple(overloads)


def _canonical(name: str) -> str:
    return "input" if name == "self" else name


def _fitted(
    overload: _Overload, args: Sequence[Any], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """The arguments by the names of this overload; None if they do not fit it."""
    positional = [parameter for parameter in overload if not parameter.keyword_only]
    if len(args) > len(positional):
        return None
    bound = {parameter.name: value for parameter, value in zip(positional, args, strict=False)}
    kinds = {parameter.name: parameter.kind for parameter in overload}
    for name, value in kwargs.items():
        known = name if name in kinds else _NUMPY_NAMES.get(name, name)
        if known not in kinds or known in bound:
            return None
        bound[known] = value
    if any(parameter.required and parameter.name not in bound for parameter in overload):
        return None
    fits = all(_is_a(value, kinds[name]) for name, value in bound.items())
    return bound if fits else None


def _is_a(value: Any, kind: str) -> bool:
    """Whether an argument has a schema's type."""
    if kind.startswith("Optional["):
        return value is None or _is_a(value, kind[len("Optional[") : -1])
    if kind.startswith("List["):
        entry = kind[len("List[") : -1]
        if isinstance(value, tuple | list):
            return all(_is_a(one, entry) for one in cast("tuple[Any, ...]", value))
        return entry != "Tensor" and _is_a(value, entry)
    if kind == "Tensor":
        return isinstance(value, Tensor)
    if kind == "bool":
        return isinstance(value, bool)
    if kind in {"int", "Device"}:
        return _integers((value,)) or isinstance(value, _NUMBERED)
    if kind == "str":
        return isinstance(value, str)
    # A number, real or complex; torch takes a tensor without axes for one.
    return isinstance(value, int | float | complex) or (
        isinstance(value, Tensor) and value.dim() == 0
    )


def _integers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)
