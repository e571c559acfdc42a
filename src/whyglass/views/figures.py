"""One explanation as a matplotlib Figure: a panel for each input, in the form its data asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation
from whyglass.views.bars import LONGEST_BARS, draw_bars, draw_series
from whyglass.views.images import Picture, draw_image, patches, photograph, picture_of

# A panel's size in inches; a long list of tokens has more height.
WIDTH, HEIGHT, TALLEST = 6.0, 5.2, 16.0


@dataclass(frozen=True)
class Panel:
    """Values of one input in a row, and the input that they belong to, if one fits."""

    label: str
    values: Tensor
    errors: Tensor | None
    inputs: Tensor | None

    @property
    def is_image(self) -> bool:
        """Whether this is a map over an image or a volume."""
        return (
            self.inputs is not None
            and self.inputs.dim() in (3, 4)
            and self.values.dim() == self.inputs.dim()
        )

    @property
    def tokens(self) -> int | None:
        """How many tokens the values belong to: those of an input of integers (T,)."""
        if self.inputs is None or self.inputs.is_floating_point() or self.inputs.dim() != 1:
            return None
        fits = self.values.dim() > 0 and len(self.values) == len(self.inputs)
        return len(self.inputs) if fits else None


def figure(explanation: Explanation, row: int = 0, target: int = 0) -> Figure:
    """The explanation of one row, a panel an input: a heat map, bars, coloured tokens or a line."""
    _check_row(explanation, row)
    panels = panels_of(explanation, row, target)
    heights = [_height(explanation, panel, row) for panel in panels]
    drawn = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    FigureCanvasAgg(drawn)
    grid = drawn.subplots(len(panels), squeeze=False, height_ratios=heights)
    for panel, axes in zip(panels, grid[:, 0], strict=True):
        _draw(explanation, drawn, axes, panel, row)
        if len(panels) > 1:
            axes.set_title(panel.label, fontsize=8, loc="left")
    if len(panels) > 1:
        drawn.suptitle(heading(explanation, row, target), fontsize=9)
    else:
        grid[0, 0].set_title(heading(explanation, row, target), fontsize=9)
    return drawn


def heading(explanation: Explanation, row: int, target: int) -> str:
    """Method, row, target and score in two lines."""
    score = explanation.score[row]
    score = score[target] if explanation.target.many else score
    which = f", row {row} of {len(explanation)}" if len(explanation) > 1 else ""
    label = explanation.targets[row][target]
    asked = "this score" if label == "output" else label
    return f"{explanation.method}{which}\nwhy {asked}? (score {score:.3g})"


def picture(explanation: Explanation, row: int = 0, target: int = 0) -> Picture:
    """What is drawn over the first image of a row."""
    _check_row(explanation, row)
    panels = panels_of(explanation, row, target)
    image = next((panel for panel in panels if panel.is_image), None)
    if image is None:
        raise BadInput(f"{explanation.method} explains no image here: plot() draws what there is")
    return _picture(explanation, image)


def photo(explanation: Explanation, row: int = 0) -> np.ndarray:
    """The first image of a row, (H, W, 3) in [0, 1], with the normalisation undone."""
    leaves = _leaves(explanation.inputs)
    pixels = next((leaf for leaf in leaves if leaf.dim() == 4), leaves[0])
    return photograph(pixels[row], explanation.legend)


def panels_of(explanation: Explanation, row: int, target: int) -> list[Panel]:
    """A panel for every leaf of the values, save inputs that were held fixed."""
    values, inputs = _leaves(explanation.values), _leaves(explanation.inputs)
    errors = None if explanation.std_error is None else _leaves(explanation.std_error)
    together = explanation.at is None and len(values) == len(inputs)
    labels = _labels(explanation.values)
    panels: list[Panel] = []
    for index, leaf in enumerate(values):
        own = _one(leaf, row, target, explanation.target.many)
        error = None
        if errors is not None:
            error = _one(errors[index], row, target, explanation.target.many)
        source = inputs[index] if together else _source(own, inputs)
        beside = None if source is None else source[row].detach().cpu()
        held = beside is not None and not beside.is_floating_point() and not own.any()
        if len(values) == 1 or not held:
            panels.append(Panel(labels[index], own, error, beside))
    return panels or [
        Panel(labels[0], _one(values[0], row, target, explanation.target.many), None, None)
    ]


def _source(values: Tensor, inputs: Sequence[Tensor]) -> Tensor | None:
    """The input that a layer's values of one row lie over: an image, a volume or token ids."""
    for leaf in inputs:
        if leaf.dim() == values.dim() + 1 and leaf.dim() in (4, 5) and leaf.is_floating_point():
            return leaf
        ids = leaf.dim() == 2 and not leaf.is_floating_point()
        if ids and values.dim() > 0 and len(values) == leaf.shape[1]:
            return leaf
    return None


def _draw(explanation: Explanation, drawn: Figure, axes: Axes, panel: Panel, row: int) -> None:
    values, legend = panel.values, explanation.legend
    names = legend.feature_names
    tokens = _token_names(explanation, panel, row)
    if panel.is_image:
        draw_image(drawn, axes, _picture(explanation, panel))
    elif tokens is not None:
        sums = values.reshape(len(tokens), -1)
        errors = panel.errors if sums.shape[1] == 1 else None
        flat = None if errors is None else errors.reshape(-1).numpy()
        draw_bars(axes, tokens, sums.sum(1).numpy(), flat, sort=False)
    elif values.dim() == 3:
        draw_image(drawn, axes, picture_of(values, values * 0, legend, explanation.levels))
    elif values.dim() == 2:
        _draw_sequence(explanation, axes, panel)
    elif values.dim() == 1 and len(values) > LONGEST_BARS and names is None:
        signal = panel.inputs if panel.inputs is not None and panel.inputs.dim() == 1 else None
        draw_series(axes, values.numpy(), None if signal is None else signal[None].numpy())
    else:
        flat = values.reshape(-1)
        named = names is not None and len(names) == len(flat)
        labels = list(names) if named and names is not None else _indices(values)
        errors = panel.errors
        draw_bars(
            axes, labels, flat.numpy(), None if errors is None else errors.reshape(-1).numpy()
        )


def _draw_sequence(explanation: Explanation, axes: Axes, panel: Panel) -> None:
    """Values (C, L) of a signal, or (T, E) of vectors in a row: a sum for every position."""
    signal = _channels_first(explanation, panel.values)
    sums = panel.values.sum(0 if signal else 1).numpy()
    if not signal and len(sums) <= LONGEST_BARS:
        draw_bars(axes, [f"position {i}" for i in range(len(sums))], sums, sort=False)
        return
    beside = None
    if panel.inputs is not None and panel.inputs.dim() == 2:
        beside = panel.inputs.double() if signal else panel.inputs.double().T
    if beside is not None and beside.shape[1] != len(sums):
        sums = np.interp(np.linspace(0, 1, beside.shape[1]), np.linspace(0, 1, len(sums)), sums)
    draw_series(axes, sums, None if beside is None else beside.numpy())


def _channels_first(explanation: Explanation, values: Tensor) -> bool:
    """Whether (C, L) is meant and not (T, E): a model with 1-D convolutions reads the former."""
    modules = explanation.model.modules() if isinstance(explanation.model, nn.Module) else ()
    kinds = {type(module) for module in modules}
    if nn.Conv1d in kinds:
        return True
    if kinds & {nn.Embedding, nn.LayerNorm, nn.LSTM, nn.GRU, nn.RNN, nn.MultiheadAttention}:
        return False
    return values.shape[0] * 8 <= values.shape[1]


def _token_names(explanation: Explanation, panel: Panel, row: int) -> list[str] | None:
    """The tokens that the values belong to, by their text, or by the id where no text is known."""
    tokens = explanation.legend.tokens
    if tokens is not None and panel.values.dim() > 0 and len(tokens[row]) == len(panel.values):
        return list(tokens[row])
    if panel.tokens is None or panel.inputs is None:
        return None
    return [f"id {number}" for number in panel.inputs.tolist()]


def _picture(explanation: Explanation, panel: Panel) -> Picture:
    assert panel.inputs is not None
    return picture_of(
        panel.values, panel.inputs, explanation.legend, explanation.levels, patches(explanation)
    )


def _height(explanation: Explanation, panel: Panel, row: int) -> float:
    """Inches: bars that are not sorted are all there."""
    tokens = _token_names(explanation, panel, row)
    return HEIGHT if tokens is None else min(TALLEST, max(HEIGHT, 0.22 * len(tokens) + 1))


def _check_row(explanation: Explanation, row: int) -> None:
    if not 0 <= row < len(explanation):
        raise BadInput(f"row {row} is out of range: the explanation has {len(explanation)} rows")


def _indices(values: Tensor) -> list[str]:
    shape = tuple(values.shape)
    return [
        ", ".join(map(str, map(int, np.unravel_index(i, shape)))) if shape else "value"
        for i in range(values.numel())
    ]


def _one(leaf: Tensor, row: int, target: int, many: bool) -> Tensor:
    """Values of one row and target, float64."""
    values = leaf[row].detach().cpu().double()
    return values[..., target] if many else values


def _leaves(packed: object) -> list[Tensor]:
    if isinstance(packed, Tensor):
        return [packed]
    return list(packed.values() if isinstance(packed, dict) else packed)  # type: ignore[arg-type]


def _labels(packed: object) -> list[str]:
    if isinstance(packed, Tensor):
        return ["input"]
    if isinstance(packed, dict):
        return [str(name) for name in packed]
    return [f"input {index}" for index in range(len(packed))]  # type: ignore[arg-type]
