"""Passes over the pieces of a batch: running them, their layers, and what they tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args

import torch

from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.scorer import Evaluated, Rows, Scorer
from whyglass.propagation.engine.interception import Propagation

P = TypeVar("P", bound=Propagation)


def one_of(name: str, value: object, kind: Any) -> None:
    """Refuse a word that is none of a `Literal`'s."""
    words = get_args(kind)
    if value not in words:
        raise BadInput(f"{name} must be one of {', '.join(map(repr, words))}, not {value!r}")


def intercepted(scorer: Scorer, make: Callable[[slice], P]) -> tuple[Evaluated, list[P]]:
    """Scores and changed gradients at the inputs, and the passes: a new one each piece of the batch."""
    require_visible_operations(scorer.model)
    passes: dict[int, tuple[slice, P]] = {}

    def around(piece: slice, _rows: Rows) -> P:
        made = make(piece)
        # A piece that is run again only to see whether it repeats keeps its first pass; one that did
        # not fit into memory makes way for its parts.
        if piece.start not in passes or passes[piece.start][0] != piece:
            passes[piece.start] = piece, made
        return made

    scorer.interception = around
    here = scorer.at_inputs(gradient=True)
    scorer.interception = None
    return here, [made for _, made in passes.values()]


def notes_on(passes: Iterable[Propagation], accepted_by: str) -> list[str]:
    """What a reader has to know of the passes: operations without a rule, and what was constant."""
    passes = tuple(passes)
    accepted = sorted({op for one in passes for op in one.accepted})
    held = sorted({op for one in passes for op in one.held})
    notes = [f"passed by their {accepted_by}: {', '.join(accepted)}"] if accepted else []
    if held:
        there = any(one.with_baseline for one in passes)
        notes.append(
            f"constants of the network, as at the inputs: {', '.join(held)}"
            + ("; the score at the baseline is with these constants" if there else "")
        )
    return notes


def layers_of(model: Callable[..., Any]) -> dict[int, str]:
    """The submodule that owns each parameter and buffer, by the tensor's id."""
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
    return {
        id(tensor): name
        for name, module in modules
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False))
    }


def require_visible_operations(model: Callable[..., Any]) -> None:
    """Refuse models with a part whose operations no mode can see."""
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else [("", model)]
    for name, module in modules:
        if isinstance(module, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            kind = "TorchScript"
        elif hasattr(module, "_orig_mod"):
            kind = "compiled"
        else:
            continue
        part = f"layer {name!r}, which is {kind}," if name else f"a {kind} model"
        raise Unsupported(
            f"the operations of {part} cannot be seen: pass the module it was made from"
        )
