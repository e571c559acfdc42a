"""What people look at: figures, the notebook's summary, the HTML report. Nothing is ever shown.

Importing this package gives explanations their `plot` and their form in notebooks; matplotlib is
imported when they are first drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whyglass.core.explanation import Explanation, register_renderers

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figure(explanation: Explanation, row: int = 0, target: int = 0) -> Figure:
    """The explanation of one row as a matplotlib Figure."""
    from whyglass.views import figures

    return figures.figure(explanation, row, target)


def html(explanation: Explanation) -> str:
    """The explanation as a notebook shows it."""
    from whyglass.views import notebook

    return notebook.html(explanation)


register_renderers(figure, html)
