"""One diverging scale for everything with a sign: blue against, orange for, nothing in between.

Blue and orange stay apart for every common kind of colour blindness; lightness falls on both sides,
so a grey print keeps the strength, and the views mark the sign with lines as well.
"""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

AGAINST, FOR = "#1f5fa8", "#c2570c"
# The label of an axis or a scale that starts at zero.
NO_SIGN = "importance (no value is negative)"
SIGNED = LinearSegmentedColormap.from_list(
    "whyglass", ["#0b2f63", AGAINST, "#9ec3e6", "#f7f7f5", "#f6bd85", FOR, "#6e2c00"]
)
# What has no middle is the darker, the larger.
UNSIGNED = LinearSegmentedColormap.from_list("whyglass-unsigned", ["#eef4fb", "#9ec3e6", AGAINST])


def limit(values: NDArray[np.floating]) -> float:
    """The value at the ends of the scale: the 99.5th percentile of |value|, never zero."""
    size = np.abs(values)
    top = float(np.percentile(size, 99.5)) or float(size.max())
    return top or 1.0


def overlay(
    values: NDArray[np.floating], grey: NDArray[np.floating], top: float
) -> NDArray[np.floating]:
    """(H, W, 3): the scale's colour over a pale grey image (H, W), opaque where values are large."""
    share = np.clip(values / top, -1, 1)
    colour = SIGNED(0.5 + share / 2)[..., :3]
    opacity = np.minimum(1, np.abs(share) ** 0.6)[..., None]
    pale = (0.35 + 0.65 * np.clip(grey, 0, 1))[..., None]
    return opacity * colour + (1 - opacity) * pale
