"""An explanation in a notebook: a picture and a few lines, no script, under 200 kB."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from markupsafe import escape

from whyglass.explanation import Explanation
from whyglass.views.figures import figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 3
BUDGET = 150_000


def png(made: Figure, dpi: int = 80) -> bytes:
    """A figure's PNG file."""
    file = io.BytesIO()
    made.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def data_uri(file: bytes) -> str:
    """A PNG file as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(file).decode()


def html(explanation: Explanation) -> str:
    """Pictures of the first rows, the checks and the cost."""
    pictures: list[str] = []
    spent = 0
    for row in range(min(ROWS, len(explanation))):
        file = png(figure(explanation, row), 60)
        spent += len(file) * 4 // 3
        if spent > BUDGET:
            break
        alt = escape(f"{explanation.method} of row {row}: {explanation.targets[row][0]}")
        pictures.append(f'<img alt="{alt}" src="{data_uri(file)}">')
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
