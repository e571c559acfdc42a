"""`whyglass explain`: photographs in; a brief, a report, files or JSON out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from whyglass import __version__
from whyglass.cli.job import DEFAULT_METHODS, Job, make_job, photographs
from whyglass.core.errors import WhyglassError
from whyglass.core.explanation import Explanation
from whyglass.data.image import INTERPOLATION, read
from whyglass.data.loading import BUILT_IN
from whyglass.views.report import Case, Report

SCHEMA = 1
MARKS = {"pass": "ok", "warn": "warn", "fail": "FAIL"}


@click.command(
    help="""Explain what a network saw in PHOTOS (files or folders).

    \b
    whyglass explain cat.jpg --report cat.html
    whyglass explain cat.jpg -M integrated-gradients --set steps=128 -t tabby --against "tiger cat"
    whyglass explain cat.jpg -M lime --players superpixels --baseline inpaint
    whyglass explain photos/ -m mypackage.models:resnet --weights resnet.safetensors --json
    """
)
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--demo", is_flag=True, help="Explain a photograph of a cat that comes with scikit-image."
)
@click.option(
    "-m",
    "--model",
    "model_name",
    default="efficientnet-lite0",
    show_default=True,
    help=f"A built-in model ({', '.join(BUILT_IN)}), package.module:factory, or a file: .onnx, "
    ".pt2, or TorchScript.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help=".safetensors or a plain state dict for a factory's model.",
)
@click.option(
    "--trust-model", is_flag=True, help="Load .pt2 and TorchScript files, which can run any code."
)
@click.option(
    "-M",
    "--method",
    "names",
    multiple=True,
    metavar="NAME",
    help=f"A method; may be given again. Default: {', '.join(DEFAULT_METHODS)}. "
    "See `whyglass methods`.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="[METHOD.]KEY=VALUE",
    help="A setting of the methods that have it.",
)
@click.option(
    "--players",
    default="8",
    show_default=True,
    metavar="N|superpixels",
    help="What stands or falls together in the methods of coalitions (lime, kernel-shap): N x N "
    "windows, or some 50 patches of even colour.",
)
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="CLASS",
    help="A class by name or number; may be given again. Default: the predicted class.",
)
@click.option(
    "--score",
    type=click.Choice(["logit", "probability", "log-odds"]),
    default="logit",
    show_default=True,
    help="Which number of the class is explained.",
)
@click.option("--against", metavar="CLASS", help="Explain the target rather than this class.")
@click.option(
    "--baseline",
    default="black",
    show_default=True,
    help="What absence is: black, grey, white, blur, a pixel value in [0, 1], or for the methods of "
    "coalitions inpaint, which fills absent pixels from those around them.",
)
@click.option(
    "--background",
    type=click.Path(path_type=Path),
    help="A folder of photographs, for the methods that average over a background.",
)
@click.option(
    "--at",
    metavar="LAYER",
    help="Explain this layer's output; for the class activation maps, read this layer.",
)
@click.option(
    "--output", metavar="KEY", help="Which part of the model's output, where it is no tensor."
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path),
    help="A file of class names, one a line (the last column of a .tsv).",
)
@click.option("--size", type=int, help="Pixels of the short side after resizing.")
@click.option("--crop", type=int, help="Pixels of the centre crop.")
@click.option("--mean", metavar="R,G,B", help="Mean of a pixel in [0, 1], one number or three.")
@click.option("--std", metavar="R,G,B", help="Standard deviation of a pixel in [0, 1], likewise.")
@click.option(
    "--interpolation", type=click.Choice(list(INTERPOLATION)), help="How photographs are resized."
)
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="Of the methods that draw random numbers.",
)
@click.option("--batch-size", default="auto", show_default=True, help="Rows at once.")
@click.option(
    "-r",
    "--report",
    "report_path",
    type=click.Path(path_type=Path),
    help="Write one HTML page, 5 MB at most.",
)
@click.option(
    "--save",
    "folder",
    type=click.Path(path_type=Path),
    help="Write every explanation to this folder, as safetensors.",
)
@click.option("--json", "as_json", is_flag=True, help="Results as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No brief and no progress.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def explain(
    photos: tuple[Path, ...],
    demo: bool,
    report_path: Path | None,
    folder: Path | None,
    as_json: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> int:
    """The command; its help is above."""
    files = photographs(photos, demo)
    job = make_job(**options)
    report = Report(options["model_name"], __version__) if report_path else None
    for path in filter(None, (report_path and report_path.parent, folder)):
        path.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    hidden = quiet or not sys.stderr.isatty()
    for file in tqdm(files, disable=hidden or len(files) == 1, file=sys.stderr):
        record = _explain_photograph(job, file, report, folder, hidden or len(files) > 1, debug)
        records.append(record)
        if not quiet and not as_json:
            _print_brief(record)
    failed = [record for record in records if "error" in record]
    if report and report_path and len(failed) < len(records):
        report_path.write_text(report.html(), encoding="utf-8")
        if not quiet and not as_json:
            click.echo(f"report: {report_path}")
    if as_json:
        click.echo(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "whyglass": __version__,
                    "model": job.loaded.name,
                    "photos": records,
                },
                indent=None if len(records) > 1 else 2,
                ensure_ascii=False,
            )
        )
    if failed:
        return 3 if len(failed) == len(records) else 5
    return 4 if any(e["verdict"] == "fail" for r in records for e in r["explanations"]) else 0


def _explain_photograph(
    job: Job, file: Path, report: Report | None, folder: Path | None, hidden: bool, debug: bool
) -> dict[str, Any]:
    """The record of one photograph. An error becomes part of it."""
    record: dict[str, Any] = {"photo": str(file)}
    try:
        image = job.loaded.preprocess(read(file))
        record["prediction"] = predictions = job.predict(image)
        explanations: list[Explanation] = []
        pairs = [(method, target) for target in job.targets for method in job.methods]
        for method, target in tqdm(pairs, disable=hidden, file=sys.stderr, leave=False):
            progress = False if hidden else None
            explanations.append(job.explain(image, file.name, method, target, progress))
    except WhyglassError as error:
        if debug:
            raise
        click.echo(f"Error: {file}: {error}", err=True)
        return record | {"prediction": [], "explanations": [], "error": str(error)}
    if report:
        report.add(Case(file.name, predictions, explanations))
    record["prediction"] = [vars(prediction) for prediction in predictions]
    record["explanations"] = []
    for number, explanation in enumerate(explanations):
        entry = _explanation_record(explanation)
        if folder:
            path = folder / f"{file.stem}.{number}.{explanation.method}.safetensors"
            explanation.save(path)
            entry["saved"] = str(path)
        record["explanations"].append(entry)
    return record


def _explanation_record(explanation: Explanation) -> dict[str, Any]:
    base = explanation.baseline_score
    return {
        "method": explanation.method,
        "settings": dict(explanation.settings),
        "target": explanation.targets[0][0],
        "score": explanation.score[0].item(),
        "baseline_score": None if base is None else base[0].item(),
        "layer": explanation.at,
        "verdict": explanation.verdict,
        "checks": [
            {
                name: getattr(check, name)
                for name in ("name", "measured", "tolerance", "verdict", "text")
            }
            for check in explanation.checks
        ],
        "notes": list(explanation.notes),
        "evaluations": explanation.evaluations,
        "gradients": explanation.gradients,
        "seconds": round(explanation.seconds, 4),
    }


def _print_brief(record: dict[str, Any]) -> None:
    if "error" in record:
        return
    click.echo(Path(record["photo"]).name)
    for prediction in record["prediction"]:
        share = prediction["probability"]
        click.echo(f"  {share:6.1%}  {'#' * round(30 * share):30}  {prediction['label']}")
    click.echo(
        f"\n  {'METHOD':24}{'WHY':24}{'SCORE':>9}  {'CHECKS':7}{'EVALUATIONS':>12}{'GRADIENTS':>10}"
        f"{'SECONDS':>9}"
    )
    for entry in record["explanations"]:
        click.echo(
            f"  {entry['method']:24}{entry['target'][:22]:24}{entry['score']:9.3f}  "
            f"{MARKS[entry['verdict']]:7}{entry['evaluations']:12}{entry['gradients']:10}"
            f"{entry['seconds']:9.2f}"
        )
    for entry in record["explanations"]:
        for check in entry["checks"]:
            if check["verdict"] != "pass":
                click.echo(f"  {MARKS[check['verdict']]}: {entry['method']}: {check['text']}")
    click.echo("")
