"""The file of an explanation: tensors as safetensors, the rest as JSON in its header. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from whyglass.core.checks import Check
from whyglass.core.errors import BadInput
from whyglass.core.inputs import Inputs, Structure, leaves_of
from whyglass.core.legend import Legend
from whyglass.core.paper import Paper
from whyglass.core.target import KnownTarget

FORMAT = 1
# Fields in the form of the inputs, fields of one tensor, and fields that JSON holds. Every file has the
# values, the inputs and the score.
PACKED = ("values", "inputs", "std_error", "players", "baseline")
TENSORS = ("score", "baseline_score", "player_values", "player_std_error")
PLAIN = ("method", "at", "evaluations", "gradients", "seconds", "notes", "levels")


def write(path: str | Path, fields: Mapping[str, Any], fingerprint: str | None) -> None:
    """Write the fields of an `Explanation`.

    Raises:
        BadInput: the file cannot be written.
    """
    target = fields["target"]
    tensors = {name: fields[name] for name in TENSORS} | {"classes": target.classes()}
    structures: dict[str, Any] = {}
    for name in PACKED:
        if fields[name] is not None:
            structures[name] = _names(fields[name])
            tensors |= {f"{name}.{i}": leaf for i, leaf in enumerate(leaves_of(fields[name]))}
    record = {name: fields[name] for name in PLAIN} | {
        "format": FORMAT,
        "structures": structures,
        "settings": dict(fields["settings"]),
        "paper": asdict(fields["paper"]),
        "many": target.many,
        "targets": target.labels(),
        "checks": [asdict(check) for check in fields["checks"]],
        "legend": asdict(fields["legend"]),
        "fingerprint": fingerprint,
    }
    # safetensors refuses tensors that share memory (values that are the inputs, say).
    unique = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in tensors.items()
        if value is not None
    }
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(unique, path, {"whyglass": json.dumps(record)})
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be written: {error}") from error


def read(path: str | Path) -> dict[str, Any]:
    """The fields of the `Explanation` that `write` wrote. Nothing in the file is executed.

    Raises:
        BadInput: the file holds no explanation of this format.
        FileNotFoundError: there is no such file.
    """
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {})["whyglass"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no dict
        if record["format"] != FORMAT:
            raise BadInput(f"{path} has format {record['format']}; this version reads {FORMAT}")
        return _fields(record, tensors)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, BadInput | FileNotFoundError):
            raise
        raise BadInput(f"{path} is not an explanation saved by whyglass: {error!r}") from error


def _fields(record: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Any]:
    checks = (Check(**check | {"rows": tuple(check["rows"])}) for check in record["checks"])
    structures = record["structures"]
    packed = {
        name: _packed(name, structures[name], tensors)
        for name in PACKED
        if name in structures or name in PACKED[:2]
    }
    return packed | {
        "score": tensors["score"],
        **{name: tensors.get(name) for name in TENSORS[1:]},
        **{name: record[name] for name in PLAIN},
        "notes": tuple(record["notes"]),
        "settings": record["settings"],
        "paper": Paper(**record["paper"]),
        "target": KnownTarget(record["many"], record["targets"], tensors.get("classes")),
        "checks": tuple(checks),
        "legend": Legend(**record["legend"]),
        "saved_fingerprint": record["fingerprint"],
    }


def _packed(
    field: str, names: list[str] | list[int] | None, tensors: Mapping[str, Tensor]
) -> Inputs:
    count = sum(key.startswith(f"{field}.") for key in tensors)
    leaves = [tensors[f"{field}.{index}"] for index in range(count)]
    return Structure(None if names is None else tuple(names)).pack(leaves)


def _names(packed: Inputs) -> list[str] | list[int] | None:
    if isinstance(packed, Tensor):
        return None
    return list(packed) if isinstance(packed, dict) else list(range(len(packed)))
