"""Which differentiable operators of torch each method passes through.

torch lists its operators, with sample arguments, for its own tests (`common_methods_invocations`).
Every sample becomes a network of one operator. `python -m benchmarks.operators` runs the methods on it
and writes docs/reference/operations.md. A method passes if no sample raises, and DeepLIFT must be
complete on each.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import types
import unittest
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import whyglass
from whyglass import LRP, BadInput, DeepLIFT, GuidedBackprop, Unsupported
from whyglass.propagation.engine.arguments import leaves_of, mapped
from whyglass.propagation.moments.rules import RULES

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "operations.md"
METHODS: dict[str, Callable[..., Any]] = {
    "deeplift": lambda network, x, start: DeepLIFT()(network, x, baseline=start),
    "lrp": lambda network, x, _: LRP(rule="epsilon", bias="ignore")(network, x),
    "guided-backprop": lambda network, x, _: GuidedBackprop()(network, x),
}
TOLERANCE = 1e-6
SAMPLES = 6
HEAD = """# Operations

Which of torch's differentiable operators the propagating methods pass through. Made by
`python -m benchmarks.operators` from the list that torch keeps for its own tests: {count} operators
and variants, up to {samples} samples each, in float64; torch {torch}, whyglass {whyglass}, {date}.
DeepLIFT is complete to {tolerance:g} on every sample of an operator that it passes. The other methods
of its family have its rules, and those of the LRP family have LRP's. For DASP what counts is whether it
has a rule of that name.

| method | passes | does not |
|---|---|---|"""
REST = """
What has no rule is refused with its name and the line that called it. `unsupported="gradient"` takes
the plain gradient there; integrated gradients and the methods on coalitions need no rules.

An index, a number in Python and what is detached have no gradient: they are constants of the network.
At a baseline they are what they are at the inputs, and the notes name them. A comparison is a step
function, so that `x * (x > 0)` is explained as `relu(x)` is.

## Without a rule

A gap is what DeepLIFT's values miss of the change of score: the rounding of half precision, windows
that write one entry twice, where torch's own gradient counts both, and dropout that draws anew each
time.

| operator | deeplift | lrp | guided-backprop |
|---|---|---|---|"""


def operators() -> list[Any]:
    """torch's list of its differentiable operators."""
    if "expecttest" not in sys.modules:
        # torch's test tools import it; its list of operators needs nothing of it.
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    from torch.testing._internal.common_methods_invocations import op_db

    return [one for one in op_db if one.supports_autograd and torch.float64 in one.dtypes]


def networks(operator: Any) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Networks of one operator, and an input each: all differentiable arguments in a row."""
    samples = iter(operator.sample_inputs("cpu", torch.float64, requires_grad=True))
    for _, sample in zip(range(SAMPLES), samples, strict=False):
        call = (sample.input, tuple(sample.args), dict(sample.kwargs))
        parts = [p for p in leaves_of(call) if isinstance(p, Tensor) and p.requires_grad]
        if any(part.layout != torch.strided or not part.numel() for part in parts):
            continue
        count = sum(part.numel() for part in parts)
        if not count or count > 20_000 or any(part.is_complex() for part in parts):
            continue
        flat = torch.cat([part.detach().reshape(-1) for part in parts])[None]

        def network(x: Tensor, call: Any = call, parts: list[Tensor] = parts) -> Tensor:
            pieces = x[0].split([part.numel() for part in parts])
            new = {
                id(old): piece.reshape(old.shape) for old, piece in zip(parts, pieces, strict=True)
            }
            first, args, kwargs = mapped(lambda leaf: new.get(id(leaf), leaf), call)
            return score_of(operator(first, *args, **kwargs))

        yield network, flat


def score_of(result: Any) -> Tensor:
    """A sum of all numbers in a result, each with another weight."""
    total: Tensor | None = None
    for part in leaves_of(result if isinstance(result, Tensor) else list(result)):
        if not isinstance(part, Tensor) or not part.requires_grad:
            continue
        real = torch.view_as_real(part) if part.is_complex() else part
        weights = torch.linspace(0.5, 1.5, real.numel(), dtype=real.dtype).reshape(real.shape)
        term = (real * weights).sum()
        total = term if total is None else total + term
    if total is None:
        raise NotImplementedError
    return total.reshape(1)


def outcome(name: str, operator: Any) -> str:
    """`yes`, what the method says instead, or `-` if no sample has a finite gradient."""
    ran = False
    for network, x in networks(operator):
        try:
            leaf = x.clone().requires_grad_()
            score = network(leaf)
            (gradient,) = torch.autograd.grad(score, leaf)
        except (NotImplementedError, RuntimeError, TypeError):
            continue
        if not (score.isfinite().all() and gradient.isfinite().all()):
            continue
        try:
            explanation = METHODS[name](network, x, x * 0.9 + 0.01)
        except Unsupported as error:
            return "no rule" if "no rule" in str(error) else "refused"
        except BadInput as error:
            if "NaN" in str(error) or "finite" in str(error) or "divides" in str(error):
                continue
            return "refused"
        except NotImplementedError:
            # What the method makes of it is a constant.
            continue
        except Exception as error:  # a raw error is what this script looks for
            return f"error: {type(error).__name__}: {error}"
        ran = True
        check = explanation.checks[0]
        if name == "deeplift" and not check.measured < TOLERANCE:
            return f"gap {check.measured:.1g}"
    return "yes" if ran else "-"


def spelled(operator: Any) -> str:
    """The operator's name, with its variant."""
    return operator.name + (
        f" ({operator.variant_test_name})" if operator.variant_test_name else ""
    )


def main() -> None:
    """Run all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="operators, all of them by default")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    rows: dict[str, dict[str, str]] = {}
    for operator in operators():
        if arguments.names and operator.name not in arguments.names:
            continue
        rows[spelled(operator)] = {name: outcome(name, operator) for name in METHODS}
        short = operator.name.rsplit(".", 1)[-1]
        rows[spelled(operator)]["dasp"] = "yes" if short in RULES else "no rule"
        print(spelled(operator), rows[spelled(operator)], flush=True)
    if not arguments.names:
        PAGE.write_text(page(rows))


def page(rows: dict[str, dict[str, str]]) -> str:
    """The page, in Markdown."""
    columns = (*METHODS, "dasp")
    ran = {name: row for name, row in rows.items() if row["guided-backprop"] != "-"}
    lines = [
        HEAD.format(
            count=len(ran),
            samples=SAMPLES,
            torch=torch.__version__,
            whyglass=whyglass.__version__,
            date=dt.datetime.now(tz=dt.timezone.utc).date(),
            tolerance=TOLERANCE,
        )
    ]
    for column in columns:
        passes = sum(row[column] == "yes" for row in ran.values())
        lines.append(f"| {column} | {passes} | {len(ran) - passes} |")
    lines.append(REST)
    for name, row in ran.items():
        if any(row[column] not in {"yes", "-"} for column in METHODS):
            lines.append(f"| `{name}` | " + " | ".join(row[column] for column in METHODS) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
