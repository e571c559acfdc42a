"""The frozen result of explaining: the values, and everything needed to judge and to show them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whyglass.core.checks import Check, Verdict, verdict
from whyglass.core.errors import BadInput, MissingExtra
from whyglass.core.explanation_file import read, write
from whyglass.core.inputs import Inputs, leaves_of
from whyglass.core.legend import Legend
from whyglass.core.paper import Paper
from whyglass.core.target import KnownTarget, ResolvedTarget

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What draws an explanation; `whyglass.views` registers it, so that the core imports no view.
_renderers: dict[str, Callable[..., Any]] = {}


def register_renderers(
    figure: Callable[[Explanation, int, int], Figure], html: Callable[[Explanation], str]
) -> None:
    """Let `Explanation.plot` call `figure(explanation, row, target)`, and notebooks `html`."""
    _renderers.update(figure=figure, html=html)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the model gave this score to each row.

    Attributes:
        values: in the form and shape of the inputs, or of the layer with `at`; a map over an image
            has one channel. Many targets add a last axis. Units: those of the score, except where
            the method's docstring says otherwise.
        inputs: the batch that was explained.
        score: (B,) or (B, K), the target at the inputs; `baseline_score` the same at the baseline
            (or its mean over the background).
        std_error: one a value, for methods that sample or integrate; shape of `values`.
        players: for the methods of coalitions the number of the player that each feature of a row
            belongs to, -1 where it was held fixed; in the form of the inputs, without a batch axis.
        player_values: (B, n) or (B, n, K), what each player got; `player_std_error` its error. In
            `values` a player's share is spread evenly over its features, so that both add up.
        baseline: the input that stood for absence.
        method, settings, paper: the method that made it. Settings include the seed.
        at: the layer explained, or the one a class activation map was read from.
        evaluations: rows of input that went forward through the model. gradients: rows that went
            backward through it, once for each target.
        seconds: wall-clock time.
        checks: the properties that were measured. notes: sentences that a reader must know.
        levels: whether values are levels, of which only the differences over a map tell something.
    """

    values: Inputs
    inputs: Inputs
    score: Tensor
    method: str
    settings: Mapping[str, Any]
    paper: Paper
    target: ResolvedTarget | KnownTarget
    std_error: Inputs | None = None
    players: Inputs | None = None
    player_values: Tensor | None = None
    player_std_error: Tensor | None = None
    baseline: Inputs | None = None
    baseline_score: Tensor | None = None
    at: str | None = None
    evaluations: int = 0
    gradients: int = 0
    seconds: float = 0.0
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    legend: Legend = field(default_factory=Legend)
    levels: bool = False
    model: Callable[..., Any] | None = field(default=None, repr=False)
    saved_fingerprint: str | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.score)

    def __repr__(self) -> str:
        shapes = [tuple(leaf.shape) for leaf in leaves_of(self.values)]
        return (
            f"Explanation({self.method}, {len(self)} rows, values {', '.join(map(str, shapes))}, "
            f"{self.evaluations} evaluations, {self.gradients} gradients, {self.seconds:.2f} s, "
            f"checks: {self.verdict})"
        )

    @property
    def targets(self) -> list[list[str]]:
        """A readable label a row and target."""
        return self.target.labels()

    @property
    def classes(self) -> Tensor | None:
        """(B,) or (B, K) indices of the classes explained, where the targets are classes."""
        return self.target.classes()

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks."""
        return verdict(self.checks)

    @property
    def seed(self) -> int | None:
        """The seed of the random draws, for methods that draw."""
        return self.settings.get("seed")

    def fingerprint(self) -> str | None:
        """SHA-256 of the model's state dict: names, types, shapes, bytes."""
        if self.saved_fingerprint or not isinstance(self.model, nn.Module):
            return self.saved_fingerprint
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                raw = value.detach().cpu().contiguous().flatten().view(torch.uint8)
                digest.update(raw.numpy().tobytes())
        return digest.hexdigest()

    def cite(self) -> str:
        """BibTeX of the method's paper."""
        return self.paper.bibtex()

    def plot(self, row: int = 0, target: int | str = 0) -> Figure:
        """The explanation of one row as a matplotlib Figure, never shown by itself.

        Args:
            row: which row of the batch.
            target: which of the targets that were explained, by position or by its label.

        Raises:
            BadInput: the explanation has no such row or target.
        """
        if not 0 <= row < len(self):
            raise BadInput(f"row {row} is out of range: the explanation has {len(self)} rows")
        labels = self.targets[row]
        index = labels.index(target) if target in labels else target
        if not isinstance(index, int) or not 0 <= index < len(labels):
            raise BadInput(
                f"target {target!r} was not explained: row {row} has {len(labels)} "
                f"({', '.join(labels)}), by position from 0 or by label"
            )
        return _renderers["figure"](self, row, index)

    def _repr_html_(self) -> str:
        return _renderers["html"](self)

    def to_shap(self) -> Any:
        """A `shap.Explanation`: rows first, targets on the last axis.

        Raises:
            MissingExtra: shap is not installed.
            BadInput: the values are not one tensor shaped as the inputs, which shap's `data` holds.
        """
        try:
            import shap  # pyright: ignore[reportMissingImports]  an optional package
        except ImportError as error:
            raise MissingExtra("shap") from error
        if not isinstance(self.values, Tensor) or not isinstance(self.inputs, Tensor):
            raise BadInput("shap.Explanation holds one tensor: convert each input on its own")
        shape = self.values.shape[:-1] if self.target.many else self.values.shape
        if self.at is not None or shape != self.inputs.shape:
            where = f"layer {self.at!r}" if self.at else f"a map of {self.method}"
            raise BadInput(
                f"the values are those of {where}, {tuple(shape)}, and the inputs have shape "
                f"{tuple(self.inputs.shape)}: shap.Explanation pairs each value with its datum, so "
                "make shap.Explanation(values) without data"
            )
        base = torch.zeros_like(self.score) if self.baseline_score is None else self.baseline_score
        names = self.legend.feature_names
        return shap.Explanation(
            values=self.values.cpu().numpy(),
            base_values=base.cpu().numpy(),
            data=self.inputs.cpu().numpy(),
            feature_names=None if names is None else list(names),
        )

    def save(self, path: str | Path) -> None:
        """One safetensors file: the tensors, and the rest as JSON in its header. No pickle.

        Folders that are not there are made.

        Raises:
            BadInput: the file cannot be written.
        """
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        write(path, fields, self.fingerprint())

    @staticmethod
    def load(path: str | Path) -> Explanation:
        """An explanation that `save` wrote. Nothing in the file is executed."""
        return Explanation(**read(path))
