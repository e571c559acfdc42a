"""Count false passes and false alarms of every method: `python -m benchmarks.verdicts`.

A *false pass* is a pass on values that are off by more than three of their own standard errors or,
where they have none, by more than the tolerance that the checks state. A *false alarm* is a warning or
a failure on values within the tolerance. Sizes are Euclidean norms over a row.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import torch
from tqdm.auto import tqdm

import whyglass
from benchmarks.timing import machine
from benchmarks.verdicts.games import coalition_cases
from benchmarks.verdicts.judge import Case, Judgement, judge
from benchmarks.verdicts.networks import gradient_cases, propagation_cases, rise_cases

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "what-the-checks-mean.md"
BEGIN, END = "<!-- verdicts: begin -->", "<!-- verdicts: end -->"


def cases(seeds: int) -> Iterator[Case]:
    """All of them."""
    return chain(
        coalition_cases(seeds),
        gradient_cases(seeds),
        propagation_cases(max(1, seeds // 2)),
        rise_cases(2 * seeds),
    )


def count(judgements: Sequence[Judgement]) -> dict[str, int]:
    """How often each outcome came."""
    counts: dict[str, int] = defaultdict(int)
    for one in judgements:
        counts[one.outcome] += 1
    return counts


def line(name: str, judgements: Sequence[Judgement]) -> str:
    """A row of the table."""
    counts = count(judgements)
    passes = counts["right pass"] + counts["false pass"]
    right = counts["right pass"] + counts["false alarm"]
    return (
        f"| {name} | {len(judgements)} | {_share(counts['false pass'], passes)} "
        f"| {_share(counts['false alarm'], right)} | {counts['right alarm']} | {counts['refused']} |"
    )


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" + (f" ({part / whole:.1%})" if part else "")


def table(judgements: Sequence[Judgement]) -> list[str]:
    """By method, and all together, easy and hard."""
    lines = [
        "| method | cases | false passes | false alarms | right alarms | refused |",
        "|---|---|---|---|---|---|",
    ]
    for name in whyglass.METHODS:
        mine = [one for one in judgements if one.method == name]
        if mine:
            lines.append(line(f"`{name}`", mine))
    lines.append(line("easy", [one for one in judgements if not one.hard]))
    lines.append(line("hard", [one for one in judgements if one.hard]))
    lines.append(line("all", judgements))
    return lines


def main() -> None:
    """Judge, print the table, and write it into the page with `--page`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--method", action="append", help="only this one; may be given again")
    parser.add_argument("--json", type=Path, help="where to write every judgement")
    parser.add_argument("--page", action="store_true", help="put the table into the documentation")
    parser.add_argument("--wrong", action="store_true", help="print every wrong verdict")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    chosen = [
        case for case in cases(given.seeds) if not given.method or case.method.name in given.method
    ]
    judgements = [judge(case) for case in tqdm(chosen, disable=None)]
    if given.wrong:
        for one in judgements:
            if one.outcome.startswith("false"):
                sigmas = "" if one.sigmas is None else f", {one.sigmas:.1f} standard errors"
                print(f"{one.outcome}: {one.method}, {one.setting}: off by {one.error:.2%}{sigmas}")
                print(f"    {'; '.join(one.checks)}")
    lines = table(judgements)
    print("\n".join(lines))
    missing = sorted(set(whyglass.METHODS) - {one.method for one in judgements})
    if missing and not given.method:
        print(f"without a case: {', '.join(missing)}")
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in judgements], indent=1))
    if given.page:
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        body = "\n".join([BEGIN, "", *lines, "", f"{machine()}.", "", END])
        PAGE.write_text(before + body + after, encoding="utf-8")


if __name__ == "__main__":
    main()
