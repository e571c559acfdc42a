"""The report: one HTML file that opens from disk, with no script and nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from whyglass.catalogue import METHODS
from whyglass.core.checks import Check, verdict
from whyglass.core.explanation import Explanation
from whyglass.views.colours import AGAINST, FOR
from whyglass.views.figures import figure, panels_of, photo, picture
from whyglass.views.images import Picture, draw_overlay
from whyglass.views.notebook import data_uri

DPI = 110
BUDGET = 4_800_000
MARKS = {"pass": "✓", "warn": "!", "fail": "✗"}


@dataclass(frozen=True)
class Prediction:
    """One class of the top five."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Case:
    """One input and its explanations (of batch size one)."""

    title: str
    predictions: Sequence[Prediction]
    explanations: Sequence[Explanation]


class Report:
    """The page, filled case by case; cases past `BUDGET` bytes are counted and left out."""

    def __init__(self, model_name: str, version: str) -> None:
        self._model, self._version, self._left = model_name, version, BUDGET
        self._cases: list[dict[str, Any]] = []
        self._omitted = 0
        self._seconds = 0.0
        self._checks: list[Check] = []
        self._papers: set[str] = set()
        self._fingerprint: str | None = None

    def add(self, case: Case) -> None:
        """Draw a case now, so that its explanations need not be kept."""
        self._seconds += sum(explanation.seconds for explanation in case.explanations)
        for explanation in case.explanations:
            self._checks += explanation.checks
            self._papers.add(str(explanation.paper))
        if self._omitted:
            self._omitted += 1
            return
        self._fingerprint = self._fingerprint or case.explanations[0].fingerprint()
        drawn = _case(case)
        size = len(drawn["photo"] or "") + sum(len(card["image"]) + 4000 for card in drawn["cards"])
        if self._cases and size > self._left:
            self._omitted = 1
            return
        self._left -= size
        self._cases.append(drawn)

    def html(self) -> str:
        """The whole page. Every text that comes from outside is escaped."""
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("whyglass.views"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template("report.html.j2").render(
            cases=self._cases,
            omitted=self._omitted,
            model=self._model,
            fingerprint=self._fingerprint,
            version=self._version,
            made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            marks=MARKS,
            overall=verdict(self._checks),
            seconds=self._seconds,
            colour_for=FOR,
            colour_against=AGAINST,
            references=sorted(self._papers),
        )


def _case(case: Case) -> dict[str, Any]:
    is_image = case.explanations and _is_image(case.explanations[0])
    return {
        "title": case.title,
        "predictions": case.predictions,
        "photo": _photo(case.explanations[0]) if is_image else None,
        "cards": [_card(explanation) for explanation in case.explanations],
    }


def _card(explanation: Explanation) -> dict[str, Any]:
    kind = METHODS.get(explanation.method)
    card: dict[str, Any] = {
        "method": explanation.method,
        "shows": kind.shows if kind else "",
        "target": ", ".join(explanation.targets[0]),
        "score": explanation.score[0].tolist(),
        "baseline_score": (
            None if explanation.baseline_score is None else explanation.baseline_score[0].tolist()
        ),
        "verdict": explanation.verdict,
        "checks": explanation.checks,
        "notes": explanation.notes,
        "settings": dict(explanation.settings),
        "evaluations": explanation.evaluations,
        "gradients": explanation.gradients,
        "seconds": explanation.seconds,
        "top": None,
        "patches": None,
    }
    if _is_image(explanation):
        shown = picture(explanation)
        card |= {
            "image": _overlay(shown),
            "top": f"{shown.top:.3g}",
            "signed": shown.signed,
            "low": "below the mean" if shown.levels else "against",
            "high": "above the mean" if shown.levels else "for",
            "smoothing": shown.smoothing,
            "patches": None if shown.players is None else _strongest(explanation),
            "alt": _describe(explanation, shown),
        }
    else:
        card |= {"image": data_uri(figure(explanation), DPI), "alt": explanation.method}
    return card


def _strongest(explanation: Explanation) -> str:
    """The players in words, the largest of them with its 95% interval."""
    assert explanation.player_values is not None
    values = explanation.player_values[0].reshape(explanation.player_values.shape[1], -1)[:, 0]
    best = int(values.abs().argmax())
    text = f"thin lines part {len(values)} patches; the strongest has {float(values[best]):+.3g}"
    if explanation.player_std_error is not None:
        error = float(explanation.player_std_error[0].reshape(len(values), -1)[best, 0])
        text += f" ± {1.96 * error:.2g} (95% interval)"
    return text + " as a whole, spread evenly over its pixels in the map"


def _is_image(explanation: Explanation) -> bool:
    panels = panels_of(explanation, 0, 0)
    return len(panels) == 1 and panels[0].is_image


def _overlay(shown: Picture) -> str:
    made, axes = _bare()
    draw_overlay(axes, shown)
    return data_uri(made, DPI)


def _photo(explanation: Explanation) -> str:
    made, axes = _bare()
    axes.imshow(photo(explanation))
    axes.set_axis_off()
    return data_uri(made, DPI)


def _bare() -> tuple[Figure, Axes]:
    made = Figure(figsize=(4, 4))
    FigureCanvasAgg(made)
    return made, made.add_axes((0, 0, 1, 1))


def _describe(explanation: Explanation, shown: Picture) -> str:
    """The map in words, for those who do not see it: where its strongest part lies."""
    heat = np.maximum(shown.heat, 0)
    if not heat.any():
        return f"{explanation.method}: nothing speaks for {explanation.targets[0][0]}"
    cut = np.percentile(heat, 95)
    rows, columns = np.nonzero(heat >= max(cut, 1e-30))
    height, width = heat.shape
    down = ("top", "middle", "bottom")[min(2, int(3 * np.median(rows) / height))]
    across = ("left", "centre", "right")[min(2, int(3 * np.median(columns) / width))]
    return (
        f"{explanation.method} map for {explanation.targets[0][0]}: "
        f"the strongest support lies around the {down} {across} of the image"
    )
