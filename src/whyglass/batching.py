"""How many rows go through the model at once.

On a CPU the fastest batch is not the largest: once the largest activation passes some 20 MiB the
allocator returns it to the system after every use and the time goes into page faults. With
`"auto"` a first, small batch is weighed (bytes of every tensor the forward pass makes) and the next
ones keep the largest tensor under that size and the sum under the memory budget. The weight is
remembered per model and input shape. Out of memory halves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from whyglass.errors import BadInput
from whyglass.inputs import Leaves

FIRST_ROWS = 32
FIRST_BYTES = 2**22
CPU_LARGEST_TENSOR = 20 * 2**20
CPU_BUDGET = 2**30

_weights: WeakKeyDictionary[Any, dict[Any, tuple[float, float]]] = WeakKeyDictionary()


class Batches:
    """The batch sizes of one scorer."""

    def __init__(
        self,
        model: Callable[..., Any],
        leaves: Leaves,
        at: str | nn.Module | None,
        batch_size: int | str,
    ) -> None:
        if batch_size != "auto" and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            raise BadInput(f'batch_size must be a positive integer or "auto", not {batch_size!r}')
        self._limit = batch_size if isinstance(batch_size, int) else None
        self._model = model
        self._device = leaves[0].device
        self._row_bytes = sum(leaf[:1].numel() * leaf.element_size() for leaf in leaves)
        self._key = (*((leaf.shape[1:], leaf.dtype) for leaf in leaves), at is None)

    def size(self, left: int) -> int:
        """Rows of the next batch when `left` remain, in batches as even as can be."""
        limit = self._limit or self._auto()
        return math.ceil(left / math.ceil(left / limit))

    def halve(self, size: int, error: BaseException) -> None:
        """After running out of memory at `size` rows."""
        if size == 1:
            raise BadInput(
                "one row alone does not fit into the memory of the device: use smaller inputs, half "
                "precision, or a method that needs no gradient"
            ) from error
        self._limit = size // 2

    @contextmanager
    def weighed(self, rows: int, left: int) -> Iterator[None]:
        """Weigh this batch if more batches follow and none was weighed yet."""
        if self._limit or rows == left or self._weight() is not None:
            yield
            return
        with _Weigh() as weigh:
            yield
        try:
            known = _weights.setdefault(self._model, {})
        except TypeError:  # a callable that cannot be referred to weakly
            self._limit = self._fitting(weigh.total / rows, weigh.largest / rows)
        else:
            known[self._key] = (weigh.total / rows, weigh.largest / rows)

    def _weight(self) -> tuple[float, float] | None:
        try:
            return _weights.get(self._model, {}).get(self._key)
        except TypeError:
            return None

    def _auto(self) -> int:
        weight = self._weight()
        if weight is None:
            return max(1, min(FIRST_ROWS, FIRST_BYTES // max(1, self._row_bytes)))
        return self._fitting(*weight)

    def _fitting(self, total: float, largest: float) -> int:
        if self._device.type == "cpu":
            rows = min(CPU_LARGEST_TENSOR / max(largest, 1), CPU_BUDGET / max(total, 1))
        else:
            free = torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 2**30
            rows = free / 2 / max(total, 1)
        return max(1, int(rows))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether the device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _Weigh(TorchDispatchMode):
    """Bytes of the tensors made: their sum, and the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, Tensor):
                storage = made.untyped_storage()
                if storage.data_ptr() not in self._seen:
                    self._seen.add(storage.data_ptr())
                    self.total += storage.nbytes()
                    self.largest = max(self.largest, storage.nbytes())
        return result
