"""A progress bar for one call, where somebody watches and the call takes long."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

# Seconds that a call must be expected to take before a bar appears, and after which that is judged.
LONG, FIRST_LOOK = 3.0, 0.3


class Progress:
    """Counts rows that go through the model, and shows a bar where the call will take long.

    `shown` None shows it where stderr is a terminal or a notebook's, True always. The bar goes when the
    `with` block ends, also by an error or an interrupt.
    """

    def __init__(self, title: str = "", shown: bool | None = False) -> None:
        self._title, self._always = title, shown is True
        self._shown = _watched() if shown is None else shown
        self._start = time.perf_counter()
        self._done = self._total = 0
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def expect(self, rows: int) -> None:
        """So many rows more are to come."""
        self._total += rows

    def advance(self, rows: int) -> None:
        """So many rows are done."""
        self._done += rows
        if not self._shown:
            return
        if self._bar is None and (self._always or self._long()):
            self._bar = _bar(self._title, self._done - rows, self._total)
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.update(rows)

    def _long(self) -> bool:
        """Whether the whole call takes long, judged by its pace so far."""
        elapsed = time.perf_counter() - self._start
        return elapsed > FIRST_LOOK and elapsed * self._total / self._done > LONG


def _bar(title: str, done: int, total: int) -> Any:
    from tqdm.auto import tqdm

    class Bar(tqdm):  # pyright: ignore[reportUntypedBaseClass, reportMissingTypeArgument]  tqdm has no types
        # tqdm must start no thread that watches over bars: it would outlive the call.
        monitor_interval = 0

    return Bar(
        desc=title, initial=done, total=total, unit=" evaluations", leave=False, file=sys.stderr
    )


def _watched() -> bool:
    """Whether stderr is a terminal, or a notebook shows it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is not None and "IPKernelApp" in shell.config:
        return True
    return sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]  None under pythonw
