"""The one call: a method by name or by value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from whyglass.catalogue import make_method
from whyglass.core.baseline import Baseline
from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation, Legend
from whyglass.core.guards import Selector
from whyglass.core.inputs import Inputs
from whyglass.core.method import Method
from whyglass.core.target import Target


def explain(
    model: Callable[..., Any],
    inputs: Inputs,
    *,
    target: Target = None,
    method: str | Method = "integrated-gradients",
    baseline: Baseline = None,
    at: str | nn.Module | None = None,
    output: Selector = None,
    legend: Legend | None = None,
    batch_size: int | str = "auto",
    **settings: Any,
) -> Explanation:
    """Why does `model` give this score to `inputs`?

    Args:
        method: a name of `whyglass.METHODS`, or a method with its settings,
            such as `IntegratedGradients(steps=64)`.
        settings: hyper-parameters of a method given by name.

    The other arguments are those of `whyglass.Method.__call__`.

    >>> import torch, whyglass
    >>> model = torch.nn.Linear(2, 1)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> whyglass.explain(model, torch.tensor([[1.0, 3.0]]), method="gradient-x-input").values
    tensor([[2., 6.]])
    """
    if isinstance(method, str):
        chosen = make_method(method, settings)
    elif settings:
        raise BadInput(
            f"{method.name} already has its settings: give {', '.join(settings)} to the method"
        )
    else:
        chosen = method
    return chosen(
        model,
        inputs,
        target=target,
        baseline=baseline,
        at=at,
        output=output,
        legend=legend,
        batch_size=batch_size,
    )
