"""What is known of tensors by their ids, as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor


class Reference(weakref.ref[Tensor]):
    """A reference that does not keep its tensor, and remembers the id."""

    __slots__ = ("key",)
    key: int


class TensorMemory:
    """Dicts by the ids of tensors: an entry goes when the tensor does, once a reference was made.

    So a pass holds no tensor that the network itself has done with: memory used again is much faster
    than fresh memory.
    """

    def __init__(self) -> None:
        self._dicts: list[dict[int, Any]] = []
        self._forget = _forgetter(weakref.ref(self))

    def per_tensor(self) -> dict[int, Any]:
        """A new dict by ids."""
        entries: dict[int, Any] = {}
        self._dicts.append(entries)
        return entries

    def reference(self, tensor: Tensor) -> Reference:
        """What has to be kept in an entry, for the entries of this id to go with the tensor."""
        reference = Reference(tensor, self._forget)
        reference.key = id(tensor)
        return reference

    def forget(self, key: int) -> None:
        """Drop the entries of one id."""
        for entries in self._dicts:
            entries.pop(key, None)


def _forgetter(owner: weakref.ref[TensorMemory]) -> Callable[[Reference], None]:
    def forget(gone: Reference) -> None:
        memory = owner()
        if memory is not None:
            memory.forget(gone.key)

    return forget
