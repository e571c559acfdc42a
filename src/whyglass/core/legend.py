"""Names and pixel units that views need to draw an explanation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves


@dataclass(frozen=True)
class Legend:
    """Names and pixel units that views need to draw an explanation.

    `class_names` name the entries of the output, one each, as a list or as a dict from number to name
    (`model.config.id2label` of transformers). `titles` name the rows, `tokens` are one
    list a row, `feature_names` name the columns of a table or the channels of a signal. An image is
    shown as `pixels * pixel_std + pixel_mean`, each one number or one a channel, in [0, 1].
    """

    class_names: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    tokens: Sequence[Sequence[str]] | None = None
    titles: Sequence[str] | None = None
    pixel_mean: Sequence[float] | None = None
    pixel_std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        # Lists, arrays and tensors become tuples, which can be compared, saved and hashed.
        for name in ("class_names", "feature_names", "titles"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        if self.tokens is not None:
            _require_list("tokens", self.tokens)
            tokens = tuple(_names("tokens", words) for words in self.tokens)
            object.__setattr__(self, "tokens", tokens)
        for name in ("pixel_mean", "pixel_std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))

    def require_fit(self, leaves: Leaves) -> None:
        """Refuse names that are not as many as the rows, columns, tokens or channels of the leaves."""
        shapes = [tuple(leaf.shape) for leaf in leaves]
        rows = shapes[0][0]
        if self.titles is not None and len(self.titles) != rows:
            raise BadInput(f"legend has {len(self.titles)} titles for {rows} rows: give one a row")
        if self.feature_names is not None:
            self._require_features(shapes)
        if self.tokens is not None:
            self._require_tokens(shapes)
        self._require_pixels(shapes)

    def _require_features(self, shapes: Sequence[tuple[int, ...]]) -> None:
        count = len(self.feature_names or ())
        # Columns, a series' channels first or last, or every entry of a row.
        fitting = {
            size for shape in shapes for size in (*shape[1:2], *shape[-1:], math.prod(shape[1:]))
        }
        if count not in fitting:
            raise BadInput(
                f"legend has {count} feature_names and a row has the shape "
                f"{' and '.join(str(shape[1:]) for shape in shapes)}: give one name a column"
            )

    def _require_tokens(self, shapes: Sequence[tuple[int, ...]]) -> None:
        tokens = self.tokens or ()
        if len(tokens) != shapes[0][0]:
            raise BadInput(
                f"legend has {len(tokens)} lists of tokens for {shapes[0][0]} rows: give one list a row"
            )
        lengths = {shape[1] for shape in shapes if len(shape) > 1}
        for row, words in enumerate(tokens):
            if len(words) not in lengths:
                raise BadInput(
                    f"legend has {len(words)} tokens in row {row} and the inputs have "
                    f"{' or '.join(map(str, sorted(lengths)))}: name the padding, too"
                )

    def _require_pixels(self, shapes: Sequence[tuple[int, ...]]) -> None:
        if (self.pixel_mean is None) != (self.pixel_std is None):
            raise BadInput("legend needs pixel_mean and pixel_std together: pixels * std + mean")
        channels = {shape[1] for shape in shapes if len(shape) > 1}
        for name, values in (("pixel_mean", self.pixel_mean), ("pixel_std", self.pixel_std)):
            if values is not None and len(values) not in {1, *channels}:
                raise BadInput(
                    f"legend has {len(values)} numbers in {name} and the images "
                    f"{' or '.join(map(str, sorted(channels)))} channels: give one, or one a channel"
                )


def _require_list(name: str, value: Any) -> None:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        form = "one list of words a row" if name == "tokens" else "a list of names"
        raise BadInput(f"legend {name} must be {form}, not {value!r}")


def _names(name: str, value: Any) -> tuple[str, ...] | None:
    """Names as a tuple of strings; a dict has one for each number from 0 on."""
    if value is None:
        return None
    _require_list(name, value)
    if isinstance(value, Mapping):
        numbered = {int(key): entry for key, entry in cast("Mapping[Any, Any]", value).items()}
        if set(numbered) != set(range(len(numbered))):
            raise BadInput(
                f"legend {name} as a dict must name every number from 0 on, not {value!r}"
            )
        value = [numbered[number] for number in range(len(numbered))]
    return tuple(str(entry) for entry in value)


def _numbers(name: str, value: Any) -> tuple[float, ...] | None:
    """One number or several, as a tuple of floats."""
    if value is None:
        return None
    try:
        return tuple(np.atleast_1d(np.asarray(value, dtype=float)).tolist())
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"legend {name} must be a number, or one a channel, not {value!r}"
        ) from error


def as_legend(legend: Legend | Mapping[str, Any] | None) -> Legend:
    """A legend, from itself, from a dict of its fields, or from nothing."""
    if isinstance(legend, Legend):
        return legend
    if legend is None:
        return Legend()
    known = [field.name for field in fields(Legend)]
    if not isinstance(legend, Mapping) or not set(legend) <= set(known):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass anything
        got = list(legend) if isinstance(legend, Mapping) else type(legend).__name__  # pyright: ignore[reportUnnecessaryIsInstance]  as above
        raise BadInput(f"legend must be a Legend or a dict of {', '.join(known)}, not {got}")
    return Legend(**legend)
