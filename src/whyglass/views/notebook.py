"""An explanation in a notebook: a picture and a few lines, no script, under 200 kB."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from markupsafe import escape

from whyglass.core.explanation import Explanation
from whyglass.views.figures import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 3
BUDGET = 150_000


def data_uri(made: Figure, dpi: int) -> str:
    """A figure as the address of an image; JPEG, since photographs make PNG files five times larger."""
    file = io.BytesIO()
    made.savefig(file, format="jpeg", dpi=dpi, pil_kwargs={"quality": 90})
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def html(explanation: Explanation) -> str:
    """Pictures of the first rows, the checks and the cost."""
    pictures: list[str] = []
    spent = 0
    for row in range(min(ROWS, len(explanation))):
        image = data_uri(figure(explanation, row), 80)
        spent += len(image)
        if spent > BUDGET:
            break
        alt = escape(f"{explanation.method} of row {row}: {explanation.targets[row][0]}")
        pictures.append(f'<img alt="{alt}" src="{image}">')
    checks = "".join(
        f"<li>{escape(c.name)}: <b>{escape(c.verdict)}</b>, {escape(c.text)}</li>"
        for c in explanation.checks
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in explanation.notes)
    more = len(explanation) - len(pictures)
    rest = f"<p>and {more} more rows</p>" if more else ""
    return (
        f"<div><p><code>{escape(repr(explanation))}</code></p>{''.join(pictures)}{rest}"
        f"<ul>{checks}{notes}</ul></div>"
    )
