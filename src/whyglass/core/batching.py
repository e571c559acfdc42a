"""How many rows go through the model at once.

On a CPU the fastest batch is not the largest. Small rows run fastest while all that a batch makes
stays in the cache. Rows too large for that want a few at a time, to keep the cores busy, and no tensor
above some 20 MiB: the allocator returns those to the system after every use, and the time goes into
page faults. With `"auto"` the memory of a first, small batch is measured (bytes of the tensors it
makes), and the size of the next ones follows from it and the memory budget. The figure is remembered
per model, input shape and whether gradients were requested. Out of memory halves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves

# glibc keeps freed memory for blocks as large as the largest that it has seen freed, 32 MiB at most,
# and returns that of larger ones, whose next use is page faults: a tenth to a third of a pass of a
# small network. So it is shown one, which nothing ever touches.
torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")

FIRST_ROWS = 16
FIRST_BYTES = 2**21
CPU_CACHE = 8 * 2**20
CPU_MIN_ROWS = 16
CPU_LARGEST_TENSOR = 20 * 2**20
CPU_BUDGET = 2**30

_measured: WeakKeyDictionary[Any, dict[Any, tuple[float, float]]] = WeakKeyDictionary()


class Batches:
    """The batch sizes of one scorer."""

    def __init__(
        self,
        model: Callable[..., Any],
        leaves: Leaves,
        at: object,
        batch_size: int | str,
    ) -> None:
        if batch_size != "auto" and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1
        ):
            raise BadInput(f'batch_size must be a positive integer or "auto", not {batch_size!r}')
        self._limit = batch_size if isinstance(batch_size, int) else None
        self._model = model
        self._device = leaves[0].device
        self._row_bytes = sum(leaf.nbytes // len(leaf) for leaf in leaves)
        self._key = (*((leaf.shape[1:], leaf.dtype) for leaf in leaves), at is None)

    def size(self, left: int, gradient: bool = False, unit: int = 1) -> int:
        """Rows of the next batch when `left` remain, in batches as even as can be.

        They are a multiple of `unit` where one fits.
        """
        limit = self._limit or self._auto(gradient)
        if unit > limit or left % unit:
            unit = 1
        left, limit = left // unit, limit // unit
        return unit * math.ceil(left / math.ceil(left / limit))

    def halve(self, size: int, error: BaseException) -> None:
        """After running out of memory at `size` rows."""
        if size == 1:
            raise BadInput(
                "one row alone does not fit into the memory of the device: use smaller inputs, half "
                "precision, or a method that needs no gradient"
            ) from error
        self._limit = size // 2

    def measured(self, rows: int, left: int, gradient: bool) -> AbstractContextManager[None]:
        """Measure the memory of this batch if more batches follow and none was measured yet."""
        if self._limit or rows == left or self._bytes_per_row(gradient) is not None:
            return nullcontext()
        return self._measuring(rows, gradient)

    @contextmanager
    def _measuring(self, rows: int, gradient: bool) -> Generator[None]:
        with _MemoryUse() as memory:
            yield
        try:
            known = _measured.setdefault(self._model, {})
        except TypeError:  # a callable that cannot be referred to weakly
            self._limit = self._fitting(memory.total / rows, memory.largest / rows)
        else:
            known[self._key, gradient] = (memory.total / rows, memory.largest / rows)

    def _bytes_per_row(self, gradient: bool) -> tuple[float, float] | None:
        try:
            return _measured.get(self._model, {}).get((self._key, gradient))
        except TypeError:
            return None

    def _auto(self, gradient: bool) -> int:
        per_row = self._bytes_per_row(gradient)
        if per_row is None:
            return max(1, min(FIRST_ROWS, FIRST_BYTES // max(1, self._row_bytes)))
        return self._fitting(*per_row)

    def _fitting(self, total: float, largest: float) -> int:
        if self._device.type == "cpu":
            least = min(CPU_MIN_ROWS, CPU_LARGEST_TENSOR / max(largest, 1))
            rows = min(max(CPU_CACHE / max(total, 1), least), CPU_BUDGET / max(total, 1))
        else:
            free = (
                torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 2**30
            )
            rows = free / 2 / max(total, 1)
        return max(1, int(rows))


def out_of_memory(error: RuntimeError) -> bool:
    """Whether the device, or the machine, had no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class _MemoryUse(TorchDispatchMode):
    """Bytes of the tensors made: the sum over distinct places in memory, and the largest."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0
        self._seen: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip the compiler torch would first import it, 1.4 s and 75 MiB."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(returned.alias_info is not None for returned in func._schema.returns):
            return result  # a view, a parameter's for one, is nothing new
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self.largest = max(self.largest, storage.nbytes())
                if storage.data_ptr() not in self._seen:
                    self._seen.add(storage.data_ptr())
                    self.total += storage.nbytes()
        return result
