"""The base class of methods: a frozen dataclass of hyper-parameters that explains when called."""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

from torch import Tensor

from whyglass.core.baseline import Baseline
from whyglass.core.checks import Check
from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation
from whyglass.core.inputs import Inputs, Leaves, Structure
from whyglass.core.layer import At
from whyglass.core.legend import Legend, as_legend
from whyglass.core.output import Selector
from whyglass.core.paper import Paper
from whyglass.core.progress import Progress
from whyglass.core.scorer import Scorer
from whyglass.core.target import Target

Need = Literal["gradients", "layer", "images", "attention", "retraining"]
# Absence is one row, a set of rows, or either of the two.
BaselineIs = Literal["unused", "row", "background", "either"]
Axiom = Literal["completeness", "sensitivity", "implementation invariance", "linearity", "dummy"]


@dataclass(frozen=True)
class Attribution:
    """The result of a method: `values` and the like are leaves shaped as the points.

    A class activation map is one leaf with one channel instead: `structure` says so. A coalition
    method adds the values of its players and the features of each.
    """

    values: Leaves
    score: Tensor
    baseline_score: Tensor | None = None
    baseline: Leaves | None = None
    std_error: Leaves | None = None
    checks: Sequence[Check] = ()
    notes: Sequence[str] = ()
    layer: str | None = None
    structure: Structure | None = None
    players: Leaves | None = None
    player_values: Tensor | None = None
    player_std_error: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Abstract. A subclass describes itself in class variables and computes in `attribute`."""

    name: ClassVar[str]
    shows: ClassVar[str]
    family: ClassVar[str]
    paper: ClassVar[Paper]
    cost: ClassVar[str]
    axioms: ClassVar[tuple[Axiom, ...]] = ()
    needs: ClassVar[tuple[Need, ...]] = ("gradients",)
    data: ClassVar[tuple[str, ...]] = ("images", "text", "tables")
    baseline_is: ClassVar[BaselineIs] = "unused"
    levels: ClassVar[bool] = False
    # Whether the model alone decides what NaN in its inputs means.
    takes_missing: ClassVar[bool] = False

    @abstractmethod
    def attribute(self, scorer: Scorer, baseline: Baseline) -> Attribution:
        """The values. `scorer.at_inputs` comes first: it settles target and points."""

    @classmethod
    def _differentiates_inputs(cls) -> bool:
        """Whether inputs must be floats: methods on attention read token ids."""
        return bool({"gradients", "layer"} & {*cls.needs}) and "attention" not in cls.needs

    def question(self, target: Target) -> Target:
        """The target that is scored where `target` was asked for; the same one, unless overridden.

        Raises:
            BadInput: the method cannot answer this question.
        """
        return target

    @final
    def __call__(
        self,
        model: Callable[..., Any],
        inputs: Inputs,
        *,
        target: Target = None,
        baseline: Baseline = None,
        at: At = None,
        output: Selector = None,
        legend: Legend | Mapping[str, Any] | None = None,
        batch_size: int | str = "auto",
        progress: bool | None = None,
    ) -> Explanation:
        """Explain `model` at `inputs`.

        Args:
            model: a `torch.nn.Module` in eval mode, or any differentiable callable.
            inputs: a tensor (B, ...), a tuple of them (positional arguments of the model) or a dict
                (keyword arguments), a tokenizer's encoding for one; or numpy arrays. Integer leaves
                beside float ones are held fixed. For token ids a method that needs gradients
                explains the embedding of a model as in transformers (`get_input_embeddings`).
            target: which scalar of the output; see `whyglass.core.target`.
            baseline: the input that stands for absence, where the method uses one; see
                `whyglass.core.baseline`.
            at: a submodule, by object or dotted name, whose output is explained, not the input. Where
                it runs more than once, values are a tuple with one entry a call, and `LayerCall`
                picks one. Values have the batch axis first, wherever the layer has it.
            output: key, index, field or callable that picks a tensor out of the model's output, or a
                `Layer`, whose output is scored in its place. By default the only tensor, or "logits".
            legend: names and units that views show, a `Legend` or a dict of its fields.
            batch_size: rows at once, or "auto".
            progress: whether a bar on stderr shows how far the call is; by default where it takes more
                than a few seconds and stderr is a terminal or a notebook's.

        Raises:
            BadInput: an argument is not what is needed; the message says how to mend it.
            Unsupported: the method cannot explain this kind of model.
        """
        start = time.perf_counter()
        if baseline is not None and self.baseline_is == "unused":
            raise BadInput(f"{self.name} uses no baseline: leave baseline= out")
        legend = as_legend(legend)
        with Progress(self.name, progress) as bar:
            scorer = Scorer(
                model,
                inputs,
                target=self.question(target),
                output=output,
                at=at,
                class_names=legend.class_names,
                batch_size=batch_size,
                gradient="gradients" in self.needs,
                takes_missing=self.takes_missing,
                find_embedding=self._differentiates_inputs(),
                embeds_ids="attention" in self.needs,
                progress=bar,
            )
            explains_inputs = scorer.layer is None
            if explains_inputs:
                legend.require_fit(scorer.inputs)
            attribution = self.attribute(scorer, baseline)
            if not explains_inputs:
                # Names may be those of the input, or of the layer.
                legend.require_fit((*scorer.inputs, *scorer.points))
        seconds = time.perf_counter() - start
        return self._explanation(model, scorer, attribution, legend, seconds)

    def _explanation(
        self,
        model: Callable[..., Any],
        scorer: Scorer,
        attribution: Attribution,
        legend: Legend,
        seconds: float,
    ) -> Explanation:
        """What `attribute` handed back, in the form of the inputs, with its cost and its notes."""
        pack = (attribution.structure or scorer.structure).pack
        return Explanation(
            values=pack(attribution.values),
            inputs=scorer.input_structure.pack(scorer.inputs),
            score=attribution.score,
            method=self.name,
            settings=_json_settings(self),
            paper=self.paper,
            std_error=None if attribution.std_error is None else pack(attribution.std_error),
            players=None if attribution.players is None else pack(attribution.players),
            player_values=attribution.player_values,
            player_std_error=attribution.player_std_error,
            baseline=None if attribution.baseline is None else pack(attribution.baseline),
            baseline_score=attribution.baseline_score,
            target=scorer.target,
            at=attribution.layer or (scorer.layer.name if scorer.layer else None),
            evaluations=scorer.cost.evaluations,
            gradients=scorer.cost.gradients,
            seconds=seconds,
            checks=tuple(attribution.checks),
            notes=(*attribution.notes, *scorer.notes, *_held_inputs(scorer, attribution)),
            legend=legend,
            levels=self.levels,
            model=model,
        )


def _held_inputs(scorer: Scorer, attribution: Attribution) -> list[str]:
    """A note for each input that is held fixed."""
    notes: list[str] = []
    for index, leaf in enumerate(scorer.points):
        players = attribution.players
        if players is None:
            value = attribution.values[min(index, len(attribution.values) - 1)]
            held = not (leaf.is_floating_point() or bool(value.any()))
        else:
            held = not bool((players[index] >= 0).any())
        if held:
            label = scorer.structure.label(index)
            notes.append(f"{label} is {leaf.dtype}: held fixed, not explained (zeros)")
    return notes


def _json_settings(method: Method) -> dict[str, Any]:
    """The settings of a method in types that JSON has."""
    settings: dict[str, Any] = {}
    for entry in dataclasses.fields(method):
        value = getattr(method, entry.name)
        simple = value is None or isinstance(value, bool | int | float | str)
        settings[entry.name] = value if simple else getattr(value, "__qualname__", repr(value))
    return settings


def integer(name: str, value: Any) -> None:
    """Refuse a value that is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadInput(f"{name} must be an integer, not {value!r}")


def positive_integer(name: str, value: Any) -> None:
    """Refuse a count that is zero, negative, fractional or boolean."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name} must be a positive integer, not {value!r}")


def positive(name: str, value: Any) -> None:
    """Refuse a number that is not positive and finite."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < float("inf")
    ):
        raise BadInput(f"{name} must be a positive number, not {value!r}")
