"""The report: one HTML file that opens from disk, with no script and nothing from the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import jinja2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from whyglass.catalogue import METHODS
from whyglass.checks import verdict
from whyglass.explanation import Explanation
from whyglass.views.colours import AGAINST, FOR
from whyglass.views.figures import Picture, draw_overlay, figure, picture
from whyglass.views.notebook import data_uri, png

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


def report(cases: Sequence[Case], model_name: str, version: str) -> str:
    """The whole page. Every text that comes from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("whyglass.views"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    every = [explanation for case in cases for explanation in case.explanations]
    fingerprints = {explanation.fingerprint() for explanation in every} - {None}
    return environment.get_template("report.html.j2").render(
        cases=[_case(case) for case in cases],
        model=model_name,
        fingerprint=min(fingerprints, default=None),
        version=version,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        marks=MARKS,
        overall=verdict([check for explanation in every for check in explanation.checks]),
        seconds=sum(explanation.seconds for explanation in every),
        colour_for=FOR,
        colour_against=AGAINST,
        references=sorted({METHODS[e.method].paper.__str__() for e in every if e.method in METHODS}),
    )


def _case(case: Case) -> dict[str, object]:
    is_image = case.explanations and _is_image(case.explanations[0])
    return {
        "title": case.title,
        "predictions": case.predictions,
        "photo": _photo(case.explanations[0]) if is_image else None,
        "cards": [_card(explanation) for explanation in case.explanations],
    }


def _card(explanation: Explanation) -> dict[str, object]:
    kind = METHODS.get(explanation.method)
    described = (kind.__doc__ or "").partition("\n")[0] if kind else ""
    card: dict[str, object] = {
        "method": explanation.method,
        "what": described,
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
    }
    if _is_image(explanation):
        shown = picture(explanation)
        card |= {
            "image": data_uri(_overlay(shown)),
            "top": f"{shown.top:.3g}",
            "signed": shown.signed,
            "smoothing": shown.smoothing,
            "alt": _describe(explanation, shown),
        }
    else:
        card |= {"image": data_uri(png(figure(explanation))), "alt": explanation.method}
    return card


def _is_image(explanation: Explanation) -> bool:
    first = explanation.inputs
    return not isinstance(first, tuple | dict) and first.dim() == 4 and first.shape[1] in (1, 3)


def _overlay(shown: Picture) -> bytes:
    made, axes = _bare()
    draw_overlay(axes, shown)
    return png(made, 100)


def _photo(explanation: Explanation) -> str:
    made, axes = _bare()
    axes.imshow(picture(explanation).photo)
    axes.set_axis_off()
    return data_uri(png(made, 100))


def _bare() -> tuple[Figure, object]:
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
