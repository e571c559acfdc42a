"""Which differentiable method explains which family of networks: the table of the documentation.

Every family of `tests.zoo.families` is built in small, with random weights in float64. Each method that
differentiates or propagates runs on it once, under a time limit. `python -m benchmarks.architectures`
writes docs/reference/architectures.md; with `--family` or `--method` it prints that part alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import signal
import time
import traceback
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks import architectures_page
from tests.zoo.families import FAMILIES, Family
from whyglass import METHODS, Background, Explanation, Method
from whyglass.core.checks import completeness_gap
from whyglass.core.errors import WhyglassError

DIFFERENTIABLE = [
    name for name, kind in METHODS.items() if {"gradients", "layer", "attention"} & set(kind.needs)
]
# Enough to see that a method runs; integrated gradients keep their defaults, for their gap is shown.
CHEAP = {"samples": 4, "sizes": 1, "compare": False}
# DASP passes every feature twice through the network.
MOST_FEATURES = 256
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "architectures.md"
SHARE = re.compile(r"(-?\d+(?:\.\d+)?)%")


class TimedOut(BaseException):
    """A case took longer than it may. No handler of ordinary errors may catch it."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one method on one family.

    `result` is answered, refused (with a sentence), raw error, hang or not run. `gap` is the relative
    completeness gap, or that of conservation for the methods of relevance, the worst row; `absorbed`
    the share of the scores' sizes that the notes say did not arrive, and `unaccounted` what is neither
    in the values nor in the notes, both over the batch. `ratio` is the time over that of as many plain
    passes.
    `narrowed` says that the network itself computes a part in float32, whatever its weights are;
    `held` that its choices (which expert, which entry) are those of the input at the baseline, too.
    """

    family: str
    method: str
    result: str
    text: str = ""
    verdict: str = ""
    gap: float | None = None
    absorbed: float | None = None
    unaccounted: float | None = None
    ratio: float | None = None
    narrowed: bool = False
    held: bool = False

    def line(self) -> str:
        """For the terminal."""
        figures = {
            name: f"{value:.2g}"
            for name in ("gap", "absorbed", "unaccounted", "ratio")
            if (value := getattr(self, name)) is not None
        }
        told = " ".join(f"{name} {value}" for name, value in figures.items())
        return f"{self.family:<32}{self.method:<24}{self.result:<10}{self.verdict:<6}{told} {self.text}"


@contextmanager
def limited(seconds: float) -> Generator[None]:
    """Within, `TimedOut` is raised once the time is over."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, stop)
    # Repeated, for an error raised inside a callback of C++ may be lost.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def arguments(family: Family, model: nn.Module, kind: type[Method]) -> dict[str, Any]:
    """The call's arguments beside model and inputs."""
    call: dict[str, Any] = {
        "at": family.layer(model),
        "output": family.output,
        "target": family.target,
    }
    if kind.baseline_is == "background":
        call["baseline"] = Background(family.batch(seed=1))
    # Attention methods and class activation maps choose what they look at themselves.
    if kind.family == "cam" or "attention" in kind.needs:
        del call["at"]
    return call


def cheap(kind: type[Method]) -> Method:
    """The method with few samples."""
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in CHEAP.items() if name in known})


class Narrowing(TorchFunctionMode):
    """Sees whether a network takes float64 to a narrower type."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in {torch.float32, torch.bfloat16}:
            wide = (isinstance(a, Tensor) and a.dtype == torch.float64 for a in args)
            self.seen = self.seen or any(wide)
        return result


class Bench:
    """One family's network, and what plain passes of it take."""

    def __init__(self, family: Family, limit: float) -> None:
        self.family, self.limit = family, limit
        self.model, self.inputs = family.make(), family.batch()
        self.change: Tensor | None = None
        with limited(limit):
            with Narrowing() as mode:
                self._plain(False)
            self.narrowed = mode.seen
            self.forward, self.backward = self._plain(False), self._plain(True)

    def _plain(self, gradient: bool) -> float:
        """Processor time of a plain pass, a row."""
        packed, rows = self.inputs, len(_leaves(self.inputs)[0])

        def once() -> float:
            start = time.process_time()
            with torch.set_grad_enabled(gradient):
                if isinstance(packed, dict):
                    result = self.model(**packed)
                elif isinstance(packed, tuple):
                    result = self.model(*packed)
                else:
                    result = self.model(packed)
                if gradient:
                    score = _tensor(result, self.family.output).sum()
                    wanted = [p for p in self.model.parameters() if p.requires_grad][:1]
                    torch.autograd.grad(score, wanted, allow_unused=True)
            return (time.process_time() - start) / rows

        once()
        return median(once() for _ in range(5))

    def features(self) -> int:
        """Numbers in one row of the floating-point inputs."""
        leaves = [leaf for leaf in _leaves(self.inputs) if leaf.is_floating_point()]
        return sum(leaf[0].numel() for leaf in leaves)

    def run(self, name: str) -> Outcome:
        """One method."""
        kind = METHODS[name]

        def explain() -> Explanation:
            return cheap(kind)(self.model, self.inputs, **arguments(self.family, self.model, kind))

        label: dict[str, Any] = {"family": self.family.name, "method": name}
        if name == "dasp" and self.features() > MOST_FEATURES:
            return Outcome(**label, result="not run", text=f"{self.features()} features")
        try:
            with limited(self.limit):
                start = time.process_time()
                answer = explain()
                seconds = time.process_time() - start
                if seconds < 0.5:
                    start = time.process_time()
                    answer = explain()
                    seconds = min(seconds, time.process_time() - start)
        except WhyglassError as refusal:
            return Outcome(**label, result="refused", text=str(refusal))
        except TimedOut:
            return Outcome(**label, result="hang", text=f"longer than {self.limit:g} s")
        except Exception as error:  # whatever it is, it is what the table is to show
            place = traceback.extract_tb(error.__traceback__)[-1]
            text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
            return Outcome(**label, result="raw error", text=text)
        return self._judged(answer, seconds, label)

    def _judged(self, answer: Explanation, seconds: float, label: dict[str, Any]) -> Outcome:
        floor = answer.gradients * self.backward
        floor += max(answer.evaluations - answer.gradients, 0) * self.forward
        figures: dict[str, float] = {"ratio": seconds / floor}
        checks = {check.name: check.measured for check in answer.checks}
        values = _leaves(answer.values)
        if answer.method == "integrated-gradients" and answer.baseline_score is not None:
            self.change = answer.score - answer.baseline_score
        held = any("as at the inputs" in note for note in answer.notes)
        if answer.method == "deeplift" and self.change is not None and not held:
            # Against the model's own scores at both ends, not those that came with the pass.
            rounding = torch.finfo(torch.float64).eps * answer.score.double().abs()
            figures["gap"] = float(completeness_gap(values, self.change, rounding).max())
        elif "completeness" in checks:
            figures["gap"] = checks["completeness"]
        elif "conservation" in checks:
            figures["gap"] = checks["conservation"]
            stated = [note for note in answer.notes if note.startswith("did not pass")]
            absorbed = sum(float(share) / 100 for note in stated for share in SHARE.findall(note))
            size = float(answer.score.abs().sum())
            arrived = float(sum(value.sum() for value in values)) / size
            missing = float(answer.score.sum()) / size - arrived
            figures |= {"absorbed": absorbed, "unaccounted": abs(missing - absorbed)}
        return Outcome(
            **label,
            result="answered",
            verdict=answer.verdict,
            narrowed=self.narrowed,
            held=held,
            **figures,
        )


def _tensor(result: Any, output: Any) -> Tensor:
    if callable(output):
        chosen = output(result)
    elif isinstance(output, str):
        chosen = result[output]
    else:
        chosen = result
    assert isinstance(chosen, Tensor)
    return chosen


def _leaves(packed: Any) -> list[Tensor]:
    if isinstance(packed, Tensor):
        return [packed]
    return list(packed.values()) if isinstance(packed, dict) else list(packed)


def outcomes(family: str, methods: list[str], limit: float) -> list[Outcome]:
    """Every method on one family; a network that cannot be built is an error of ours."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    bench = Bench(FAMILIES[family], limit)
    # First the scores at both ends, that DeepLIFT is held against.
    first = ["integrated-gradients"] if "deeplift" in methods else []
    order = [*first, *(name for name in methods if name not in first)]
    seen = {name: bench.run(name) for name in order}
    return [seen[name] for name in methods]


def _job(job: tuple[str, list[str], float]) -> list[Outcome]:
    return outcomes(*job)


def all_outcomes(
    jobs: list[tuple[str, list[str], float]], processes: int
) -> Iterator[list[Outcome]]:
    """Family by family, in their order."""
    if processes == 1:
        yield from map(_job, jobs)
        return
    with get_context("spawn").Pool(processes) as pool:
        yield from pool.imap(_job, jobs)


def main() -> None:
    """Write the page, or print a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--family", nargs="+", choices=FAMILIES, default=list(FAMILIES), metavar="NAME"
    )
    parser.add_argument("--method", nargs="+", choices=DIFFERENTIABLE, default=DIFFERENTIABLE)
    parser.add_argument("--limit", type=float, default=15.0, help="seconds a case may take")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write every outcome here as well")
    chosen = parser.parse_args()
    started = time.perf_counter()
    jobs = [(family, chosen.method, chosen.limit) for family in chosen.family]
    every: list[Outcome] = []
    for part in all_outcomes(jobs, chosen.processes):
        every += part
        for outcome in part:
            print(outcome.line(), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps([dataclasses.asdict(one) for one in every], indent=1))
    minutes = (time.perf_counter() - started) / 60
    if chosen.family == list(FAMILIES) and chosen.method == DIFFERENTIABLE:
        PAGE.write_text(architectures_page.page(every, minutes), encoding="utf-8")
        print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
