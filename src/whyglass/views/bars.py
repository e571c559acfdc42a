"""Bars for features and tokens, and a filled line for a series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from whyglass.views.colours import AGAINST, FOR, NO_SIGN

Array = NDArray[np.floating]
# The largest number of bars: what is left over is one more.
MOST_BARS = 20
# Longer rows of numbers without names are a series.
LONGEST_BARS = 40

SIGNS = "speaks against (hatched)   |   speaks for"


def draw_bars(
    axes: Axes, names: Sequence[str], values: Array, errors: Array | None = None, sort: bool = True
) -> None:
    """One bar a feature with its 95% interval, the largest first, and one bar for the sum of the rest.

    Without `sort` every feature has a bar, in order.
    """
    order = np.argsort(-np.abs(values), kind="stable") if sort else np.arange(len(values))
    shown, rest = (order, order[:0]) if len(order) <= MOST_BARS or not sort else _split(order)
    labels = [names[int(i)] for i in shown]
    sizes = values[shown]
    whiskers = None if errors is None else 1.96 * errors[shown]
    if len(rest):
        labels.append(f"sum of {len(rest)} others")
        sizes = np.append(sizes, values[rest].sum())
        # The errors of the rest may go together, so that of their sum is not known.
        whiskers = None if whiskers is None else np.append(whiskers, np.nan)
    heights = np.arange(len(labels))[::-1]
    axes.barh(
        heights,
        sizes,
        color=[FOR if size >= 0 else AGAINST for size in sizes],
        hatch=["" if size >= 0 else "///" for size in sizes],
        edgecolor="white",
        xerr=whiskers,
        ecolor="#444444",
        capsize=2,
    )
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_yticks(heights, labels, fontsize=8)
    meaning = "" if whiskers is None else "\nwhiskers: 95% intervals"
    axes.set_xlabel((SIGNS if (values < 0).any() else NO_SIGN) + meaning, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _split(order: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    return order[: MOST_BARS - 1], order[MOST_BARS - 1 :]


def draw_series(axes: Axes, values: Array, signal: Array | None = None) -> None:
    """Values (L,) as a filled line over their position, and in grey the signal (C, L) itself."""
    position = np.arange(len(values))
    for positive, colour in ((True, FOR), (False, AGAINST)):
        part = np.where((values >= 0) == positive, values, 0)
        axes.fill_between(
            position,
            part,
            step="mid",
            color=colour,
            alpha=0.85,
            linewidth=0,
            hatch=None if positive else "///",
            edgecolor="white",
        )
    axes.axhline(0, color="#444444", linewidth=0.8)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel("position", fontsize=8)
    signed = (values < 0).any()
    axes.set_ylabel("speaks against (hatched)  |  for" if signed else NO_SIGN, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if signal is not None:
        own = axes.twinx()
        own.plot(position, signal.T, color="#555555", linewidth=0.8)
        own.set_ylabel("input (grey line)", fontsize=8)
        own.spines[["top"]].set_visible(False)
