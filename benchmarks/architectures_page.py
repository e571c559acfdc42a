"""The page that `benchmarks.architectures` writes: which families, which methods, how exactly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from statistics import median
from typing import Protocol

from benchmarks.timing import machine
from tests.zoo.families import FAMILIES

EXACT = 1e-6
CONSERVED = 0.01
PROBLEMS = ("raw error", "hang")
GROUPS: dict[str, tuple[str, ...]] = {
    "gradients": ("saliency", "gradient-x-input", "smoothgrad", "smoothgrad-squared", "vargrad"),
    "expected gradients": ("expected-gradients",),
    "path integrals": ("integrated-gradients", "path-gradients"),
    "class activation maps": (
        "grad-cam",
        "counterfactual-grad-cam",
        "grad-cam-plus-plus",
        "layer-cam",
        "eigen-cam",
        "score-cam",
        "guided-grad-cam",
    ),
    "guided backprop, deconvolution": ("guided-backprop", "deconvolution"),
    "attention": ("attention-rollout", "chefer"),
    "LRP": ("lrp",),
    "AttnLRP, CP-LRP": ("attn-lrp", "cp-lrp"),
    "DeepLIFT": ("deeplift",),
    "DeepSHAP, weight of evidence": ("deep-shap", "weight-of-evidence"),
    "DASP": ("dasp",),
}
COMPLETE = (
    "integrated-gradients",
    "path-gradients",
    "deeplift",
    "deep-shap",
    "weight-of-evidence",
)
INTRODUCTION = """# Networks and methods

Which differentiable method explains which family of networks, and how exactly. The table is made by
`python -m benchmarks.architectures`: it builds every family in small, with random weights in float64
and two rows of input as a user has them (token ids explained at the embedding, images, waveforms,
several inputs), and calls each method once. A method that does not fit a network says so in a
sentence; the sentences are below the tables.
"""
READING = """## How to read it

complete
: the values add up to the change of score from baseline to input, to 1e-6 of it. For DeepLIFT the
  change is that of two plain forward passes. Where they do not, the gap is shown; *float32 inside*
  marks networks that compute norms or attention in float32 whatever their weights are, whose own
  scores are not known better. *Choices held*: which expert or entry the network takes is, at the
  baseline too, what it takes at the input, and the notes say so; the change is that of the network so
  held.

conserved
: the relevance that arrived is the score, to 1%. *Absorbed 31%* is what the explanation's notes say
  did not arrive, and where; *unaccounted* is what is in neither.

yes
: the methods answer. They promise no sum.

3 of 7
: so many of the column's methods answer; the numbers in brackets are the sentences of the others.

time
: DeepLIFT's and LRP's time over that of as many plain forward and backward passes of two rows. In
  networks so small calls count and arithmetic does not; `benchmarks/README.md` has the ratios of
  networks of usual size.

Columns: gradients are `saliency`, `gradient-x-input`, `smoothgrad`, `smoothgrad-squared` and
`vargrad`; path integrals `integrated-gradients` and `path-gradients`; class activation maps
`guided-grad-cam` and the six maps beside `cam`, which needs a head of pooling and one linear layer;
attention `attention-rollout` and `chefer`. DASP passes every feature through the network and is not run
(a dash) above 256 of them.
"""


class Row(Protocol):
    """What the page needs of an outcome; `benchmarks.architectures.Outcome` says what each is."""

    @property
    def family(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def result(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def gap(self) -> float | None: ...
    @property
    def absorbed(self) -> float | None: ...
    @property
    def unaccounted(self) -> float | None: ...
    @property
    def ratio(self) -> float | None: ...
    @property
    def narrowed(self) -> bool: ...
    @property
    def held(self) -> bool: ...


class Sentences:
    """The sentences of refusals, numbered as they come; names and numbers are left out."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def reference(self, row: Row) -> str:
        """The number of a row's sentence, in brackets."""
        text = row.text if row.result == "refused" else f"{row.result}: {row.text}"
        text = re.sub(r";? called at \S+| Ways out: .*|, for example .*|: at=LayerCall.*", "", text)
        text = re.sub(r"( or inputs(\[[^\]]*\]| '[^']*'))+", " or others", text)
        text = re.sub(r"\(\d+(, \d+)*,?\)", "(...)", text)
        text = re.sub(r"\[[^\]]*[(\d][^\]]*\]", "[...]", text)
        text = re.sub(r"(inputs|layer|layers|at=)(\[| )?'[^']*'\]?", r"\1 '...'", text)
        text = re.sub(r"\b\d+(\.\d+)?\b", "N", text)
        return f"[{self.numbers.setdefault(text, len(self.numbers) + 1)}]"

    def listed(self) -> str:
        """All of them."""
        lines = [f"{number}. {escaped(text)}" for text, number in self.numbers.items()]
        return "\n".join(lines)


def escaped(text: str) -> str:
    """Characters that Markdown reads taken as they are."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def cell(rows: Sequence[Row], sentences: Sentences) -> str:
    """What a column's methods did on one family."""
    able = [row for row in rows if row.result == "answered"]
    if all(row.result == "not run" for row in rows):
        return "-"
    references = dict.fromkeys(
        sentences.reference(row) for row in rows if row.result not in {"answered", "not run"}
    )
    notes = " ".join(references)
    if not able:
        problem = next((row.result for row in rows if row.result in PROBLEMS), "no")
        return f"{problem} {notes}"
    part = "" if len(able) == len(rows) else f", {len(able)} of {len(rows)} {notes}"
    if part and able[0].method not in COMPLETE:
        return part[2:]
    return exactness(able) + part


def exactness(rows: Sequence[Row]) -> str:
    """The worst of the rows: complete, conserved, or by how much not."""
    first = rows[0]
    if first.method in COMPLETE:
        worst = max(row.gap or 0.0 for row in rows)
        if worst > EXACT:
            return f"gap {worst:.0e}" + (" (float32 inside)" if first.narrowed else "")
        return "complete, choices held" if first.held else "complete"
    if first.method != "lrp":
        return "yes"
    if first.gap is not None and first.gap <= CONSERVED:
        return "conserved"
    missing, lost = first.unaccounted or 0.0, first.absorbed or 0.0
    told = (
        f"absorbed {lost:.0%}" if abs(lost) >= CONSERVED else f"conserved to {first.gap or 0:.0%}"
    )
    if missing > CONSERVED and abs(lost) < CONSERVED:
        return f"unaccounted {missing:.0%}"
    return told if missing <= CONSERVED else f"{told}, unaccounted {missing:.0%}"


def table(kind: str, rows: Sequence[Row], sentences: Sentences) -> str:
    """The families of one kind."""
    head = ["", *GROUPS, "time: DeepLIFT, LRP"]
    lines = [f"### {kind.capitalize()}", "", _line(head), _line(["---"] * len(head))]
    for family, members in groupby(rows, key=lambda row: row.family):
        of = {row.method: row for row in members}
        cells = [cell([of[name] for name in group], sentences) for group in GROUPS.values()]
        times = [of[name].ratio for name in ("deeplift", "lrp")]
        told = ", ".join("-" if ratio is None else f"{ratio:.1f}" for ratio in times)
        lines.append(_line([family, *cells, told]))
    return "\n".join(lines)


def by_method(rows: Sequence[Row]) -> str:
    """One line a method: how many families it answers for."""
    head = ["method", "answers", "refuses", "raw errors", "hangs", "exact", "time, median"]
    lines = ["## By method", "", _line(head), _line(["---", *["---:"] * 6])]
    for method in dict.fromkeys(row.method for row in rows):
        own = [row for row in rows if row.method == method]
        able = [row for row in own if row.result == "answered"]
        exact = "" if method not in {*COMPLETE, "lrp"} else str(sum(map(accounted, able)))
        ratios = [row.ratio for row in able if row.ratio is not None]
        counts = [str(sum(row.result == r for row in own)) for r in ("refused", *PROBLEMS)]
        time = f"{median(ratios):.1f}" if ratios else "-"
        lines.append(_line([f"`{method}`", str(len(able)), *counts, exact, time]))
    return "\n".join(lines)


def accounted(row: Row) -> bool:
    """Complete to 1e-6; for relevance, conserved or with its absorbed share stated."""
    if row.result != "answered" or row.gap is None:
        return False
    if row.method == "lrp":
        return row.gap <= CONSERVED or (row.unaccounted or 0.0) <= CONSERVED
    return row.gap <= EXACT


def summary(rows: Sequence[Row]) -> str:
    """The figures that the table comes down to."""
    families = len({row.family for row in rows})

    def exact(method: str) -> int:
        return sum(accounted(row) for row in rows if row.method == method)

    problems = {problem: sum(row.result == problem for row in rows) for problem in PROBLEMS}
    run = sum(row.result != "not run" for row in rows)
    able = sum(row.result == "answered" for row in rows)
    return (
        f"- families: {families}; cases: {run}, of which {able} are answered and "
        f"{run - able - sum(problems.values())} refused with a sentence\n"
        f"- raw errors: {problems['raw error']}; hangs: {problems['hang']}\n"
        f"- DeepLIFT complete to 1e-6: {exact('deeplift')} of {families}\n"
        f"- LRP conserved to 1%, or the absorbed share stated: {exact('lrp')} of {families}\n"
        f"- integrated gradients complete to 1e-6: {exact('integrated-gradients')} of {families}"
    )


def page(rows: Sequence[Row], minutes: float) -> str:
    """The whole page."""
    sentences = Sentences()
    kinds = dict.fromkeys(FAMILIES[row.family].kind for row in rows)
    tables = [
        table(kind, [row for row in rows if FAMILIES[row.family].kind == kind], sentences)
        for kind in kinds
    ]
    made = (
        f"Made in {minutes:.0f} minutes with whyglass {_version('whyglass')} and transformers "
        f"{_version('transformers')}: {machine()}."
    )
    parts = [
        INTRODUCTION,
        made + "\n",
        summary(rows) + "\n",
        READING,
        "## By family\n",
        *(part + "\n" for part in tables),
        by_method(rows) + "\n",
        "## What the refusals say\n\nN stands for a number, ... for a name or a shape.\n",
        sentences.listed() + "\n",
    ]
    return "\n".join(parts)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of a checkout"
