"""Time contenders beside one another: alternating, in one process, medians of paired ratios."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median, quantiles

import torch

Call = Callable[[], object]
# "cpu" counts the processor time of all threads: with one thread it hardly feels the neighbours.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True)
class Timed:
    """Seconds of each round, and of the same round's floor."""

    name: str
    seconds: tuple[float, ...]
    floor: tuple[float, ...]

    @property
    def typical(self) -> float:
        """Median seconds."""
        return median(self.seconds)

    @property
    def ratios(self) -> list[float]:
        """Seconds over the floor's, round by round."""
        return [mine / floor for mine, floor in zip(self.seconds, self.floor, strict=True)]

    def row(self) -> str:
        """One line: name, median time, median ratio and its quartiles."""
        low, middle, high = quantiles(self.ratios, n=4)
        return f"{self.name:<42}{self.typical * 1e3:>10.3f}{middle:>10.3f}{low:>9.3f} - {high:.3f}"


HEADING = f"{'':<42}{'ms':>10}{'x floor':>10}{'quartiles':>16}"


def alternate(
    contenders: dict[str, Call],
    floor: str,
    seconds: float,
    clock: str = "wall",
    least: int = 7,
    most: int = 400,
) -> list[Timed]:
    """Run each contender once a round, the order moving on by one from round to round.

    What a neighbour on the machine does to one contender it does to the next, so ratios are taken
    within a round; the median over rounds then drops the rounds that were hit in the middle. After
    `seconds` of wall-clock time it ends, within the bounds on the rounds.
    """
    names, now = list(contenders), CLOCKS[clock]
    for call in contenders.values():
        call()
        call()
    taken: dict[str, list[float]] = {name: [] for name in names}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    end = time.perf_counter() + seconds
    try:
        for turn in range(most):
            if turn >= least and time.perf_counter() > end:
                break
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                start = now()
                contenders[name]()
                taken[name].append(now() - start)
    finally:
        if collecting:
            gc.enable()
    return [Timed(name, tuple(taken[name]), tuple(taken[floor])) for name in names]


def machine() -> str:
    """Processor, threads, versions, date: what a figure is worth nothing without."""
    installed = []
    for package in ("torch", "captum", "numpy"):
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            installed.append(f"{package} absent")
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(installed)}, {date.today().isoformat()}"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
