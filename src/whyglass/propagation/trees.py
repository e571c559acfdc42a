"""Flat lists of a call's arguments and back: torch's own pytree costs more than small operations do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, cast

# None for a leaf, else the container's type (and a dict's keys) with the forms of its entries.
Form: TypeAlias = Any


def flatten(value: Any, leaves: list[Any]) -> Form:
    """Append the leaves of nested tuples, lists and dicts; what is returned puts them back."""
    if isinstance(value, tuple | list):
        entries = cast("list[Any]", value)
        kind = list if isinstance(value, list) else tuple
        return kind, None, [flatten(entry, leaves) for entry in entries]
    if isinstance(value, dict):
        named = cast("dict[Any, Any]", value)
        return dict, tuple(named), [flatten(entry, leaves) for entry in named.values()]
    leaves.append(value)
    return None


def unflatten(leaves: Iterator[Any], form: Form) -> Any:
    """The nested value again."""
    if form is None:
        return next(leaves)
    kind, keys, forms = form
    entries = [unflatten(leaves, entry) for entry in forms]
    return dict(zip(keys, entries, strict=True)) if kind is dict else kind(entries)


def leaves_of(value: Any) -> list[Any]:
    """The leaves alone."""
    found: list[Any] = []
    flatten(value, found)
    return found


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The same structure with every leaf changed."""
    leaves: list[Any] = []
    form = flatten(value, leaves)
    return unflatten(iter([change(leaf) for leaf in leaves]), form)
