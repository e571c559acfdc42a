"""Flat lists of a call's arguments and back: torch's own pytree costs more than small operations do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from torch import Tensor

# None for a leaf, else the container's type (and a dict's keys) with the forms of its entries. Of a
# call how many arguments are positional, the names of the others, and the forms if one is no leaf.
Form: TypeAlias = Any

_CONTAINERS = (tuple, list, dict)


def _holds(value: Any) -> bool:
    """Whether tensors are inside: a shape or an axis list is a leaf."""
    if isinstance(value, dict):
        value = cast("dict[Any, Any]", value).values()
    return any(
        isinstance(entry, Tensor) or (isinstance(entry, _CONTAINERS) and _holds(entry))
        for entry in cast("tuple[Any, ...]", value)
    )


def flatten(value: Any, leaves: list[Any]) -> Form:
    """Append the leaves of nested tuples, lists and dicts; what is returned puts them back."""
    if not isinstance(value, _CONTAINERS) or not _holds(value):
        leaves.append(value)
        return None
    if isinstance(value, dict):
        named = cast("dict[Any, Any]", value)
        return dict, tuple(named), [flatten(entry, leaves) for entry in named.values()]
    entries = cast("list[Any]", value)
    kind = list if isinstance(value, list) else tuple
    return kind, None, [flatten(entry, leaves) for entry in entries]


def unflatten(leaves: Iterator[Any], form: Form) -> Any:
    """The nested value again."""
    if form is None:
        return next(leaves)
    kind, keys, forms = form
    entries = [unflatten(leaves, entry) for entry in forms]
    return dict(zip(keys, entries, strict=True)) if kind is dict else kind(entries)


def packed(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], Form]:
    """The leaves of a call's arguments, and their form."""
    leaves = [*args, *kwargs.values()]
    for leaf in leaves:
        if isinstance(leaf, _CONTAINERS) and _holds(leaf):
            break
    else:
        return leaves, (len(args), tuple(kwargs))
    leaves = []
    forms = [flatten(value, leaves) for value in (*args, *kwargs.values())]
    return leaves, (len(args), tuple(kwargs), forms)


def unpacked(leaves: list[Any], form: Form) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments again."""
    if len(form) == 3:
        each = iter(leaves)
        leaves = [unflatten(each, entry) for entry in form[2]]
    count, names = form[:2]
    return leaves[:count], dict(zip(names, leaves[count:], strict=True)) if names else {}


def leaves_of(value: Any) -> list[Any]:
    """The leaves alone."""
    leaves: list[Any] = []
    flatten(value, leaves)
    return leaves


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with every leaf changed."""
    leaves: list[Any] = []
    form = flatten(value, leaves)
    return unflatten(iter([change(leaf) for leaf in leaves]), form)
