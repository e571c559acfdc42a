"""The options of `whyglass explain` in the library's own terms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

from whyglass.catalogue import make_method, method_and_settings
from whyglass.core.baseline import Background, Baseline
from whyglass.core.errors import BadInput, MissingExtra
from whyglass.core.explanation import Explanation
from whyglass.core.legend import Legend
from whyglass.core.method import Method
from whyglass.core.output import select
from whyglass.core.target import Contrast, LogOdds, Probability, Single
from whyglass.data.image import class_names, read, stack
from whyglass.data.loading import Loaded, load
from whyglass.views.report import Prediction

DEFAULT_METHODS = (
    "grad-cam",
    "integrated-gradients",
    "smoothgrad-squared",
    "occlusion",
    "gradient-x-input",
    "saliency",
)
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"}


@dataclass(frozen=True)
class Job:
    """The model, the methods, the targets and the baselines of one run."""

    loaded: Loaded
    legend: Legend
    methods: Sequence[Method]
    targets: Sequence[Single]
    baseline: Baseline
    background: Background | None
    at: str | None
    output: str | int | None
    batch_size: int | str

    def predict(self, image: Tensor) -> list[Prediction]:
        """The five most probable classes, where the output is one score a class."""
        with torch.no_grad():
            output = select(self.loaded.model(image[None].clone()), self.output)
        if output.dim() != 2 or output.shape[1] < 2:
            return []
        top = output[0].float().softmax(0).topk(min(5, output.shape[1]))
        names = list(self.legend.class_names or ())
        return [
            Prediction(names[index] if index < len(names) else str(index), index, probability)
            for probability, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
        ]

    def explain(
        self, image: Tensor, title: str, method: Method, target: Single, progress: bool | None
    ) -> Explanation:
        """One method, one target; `progress` as in `Method.__call__`."""
        baselines = {
            "row": self.baseline,
            "background": self.background,
            "either": self.background or self.baseline,
            "unused": None,
        }
        return method(
            self.loaded.model,
            image[None],
            target=target,
            baseline=baselines[method.baseline_is],
            at=self.at,
            output=self.output,
            legend=replace(self.legend, titles=[title]),
            batch_size=self.batch_size,
            progress=progress,
        )


def photographs(photos: Sequence[Path], demo: bool) -> list[Path]:
    """The files of photographs: those in folders too, the demonstration's cat first."""
    files: list[Path] = []
    if demo:
        try:
            files.append(Path(str(resources.files("skimage") / "data" / "chelsea.png")))
        except ModuleNotFoundError as error:
            raise MissingExtra("scikit-image", "demo") from error
    for photo in photos:
        if photo.is_dir():
            pictures = sorted(p for p in photo.iterdir() if p.suffix.lower() in SUFFIXES)
            if not pictures:
                raise BadInput(
                    f"the folder {photo} holds no photographs ({', '.join(sorted(SUFFIXES))})"
                )
            files += pictures
        else:
            files.append(photo)
    if not files:
        raise click.UsageError("give at least one photograph, or --demo")
    return files


def make_job(
    model_name: str,
    weights: Path | None,
    trust_model: bool,
    names: Sequence[str],
    settings: Sequence[str],
    players: str,
    targets: Sequence[str],
    score: str,
    against: str | None,
    baseline: str,
    background: Path | None,
    at: str | None,
    output: str | None,
    classes: Path | None,
    size: int | None,
    crop: int | None,
    mean: str | None,
    std: str | None,
    interpolation: str | None,
    seed: int,
    batch_size: str,
) -> Job:
    """The job that the options describe. A bad option is a usage error or bad input."""
    method_list = _methods(names or DEFAULT_METHODS, settings, seed, _players(players))
    loaded = load(model_name, weights, trust_model)
    changes = {
        "size": size,
        "crop": crop,
        "interpolation": interpolation,
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
    }
    preprocess = replace(loaded.preprocess, **{k: v for k, v in changes.items() if v is not None})
    loaded = replace(loaded, preprocess=preprocess)
    labels = class_names(classes) if classes else loaded.class_names
    legend = Legend(class_names=labels, pixel_mean=preprocess.mean, pixel_std=preprocess.std)
    needs_background = [m.name for m in method_list if m.baseline_is == "background"]
    if needs_background and background is None:
        raise click.UsageError(
            f"{needs_background[0]} averages over a background: give --background FOLDER"
        )
    row_only = [m.name for m in method_list if m.baseline_is == "row"]
    if baseline == "inpaint" and row_only:
        raise click.UsageError(
            f"--baseline inpaint is for methods of coalitions (kernel-shap, lime), not {row_only[0]}"
        )
    background_set = None
    if background is not None:
        background_set = Background(
            stack([preprocess(read(file)) for file in photographs([background], False)])
        )
    return Job(
        loaded,
        legend,
        method_list,
        [_target(t, score, against) for t in targets or (None,)],
        preprocess.baseline(baseline),
        background_set,
        at,
        int(output) if output and output.isdigit() else output,
        int(batch_size) if batch_size.isdigit() else batch_size,
    )


def _target(text: str | None, score: str, against: str | None) -> Single:
    index = int(text) if text and text.lstrip("-").isdigit() else text
    if against is not None:
        if index is None:
            raise click.UsageError("--against needs --target")
        if score != "logit":
            raise click.UsageError("--against compares logits: leave --score out")
        return Contrast(index, int(against) if against.isdigit() else against)
    return {"logit": index, "probability": Probability(index), "log-odds": LogOdds(index)}[score]


def _players(text: str) -> int | str:
    if text == "superpixels":
        return text
    if not text.isdigit() or int(text) < 1:
        raise click.UsageError(
            f"--players {text!r} must be superpixels, or a number of windows along each axis"
        )
    return int(text)


def _methods(
    names: Sequence[str], settings: Sequence[str], seed: int, players: int | str
) -> list[Method]:
    classes = {name: method_and_settings(name)[0] for name in names}
    known = {name: {field.name for field in fields(cls)} for name, cls in classes.items()}
    values: dict[str, dict[str, Any]] = {
        name: {k: v for k, v in {"seed": seed, "players": players}.items() if k in known[name]}
        for name in names
    }
    for setting in settings:
        path, equals, text = setting.partition("=")
        scope, _, key = path.rpartition(".")
        if not equals or not key:
            raise click.UsageError(f"--set {setting!r} must be KEY=VALUE or METHOD.KEY=VALUE")
        users = [
            name for name in names if scope in ("", name, classes[name].name) and key in known[name]
        ]
        if not users:
            raise click.UsageError(
                f"--set {setting!r}: none of the chosen methods has a setting {key!r}"
            )
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        for name in users:
            values[name][key] = value
    return [make_method(name, values[name]) for name in names]


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{option} {text!r} must be numbers with commas between") from None
