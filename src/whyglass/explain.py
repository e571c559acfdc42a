"""`whyglass.explain`: one call for every method, chosen by name or given with its settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from whyglass.catalogue import make_method
from whyglass.coalition.shapley.permutation_shapley import PermutationShapley
from whyglass.core.baseline import Baseline
from whyglass.core.errors import BadInput
from whyglass.core.explanation import Explanation
from whyglass.core.inputs import Inputs
from whyglass.core.layer import At
from whyglass.core.legend import Legend
from whyglass.core.method import Method
from whyglass.core.numpy_model import BlackBox, as_model
from whyglass.core.output import Selector
from whyglass.core.target import Target
from whyglass.gradient.integrated_gradients import IntegratedGradients


def explain(
    model: Callable[..., Any],
    inputs: Inputs,
    *,
    target: Target = None,
    method: str | Method | type[Method] | None = None,
    baseline: Baseline = None,
    at: At = None,
    output: Selector = None,
    legend: Legend | Mapping[str, Any] | None = None,
    batch_size: int | str = "auto",
    progress: bool | None = None,
    **settings: Any,
) -> Explanation:
    """Why does `model` give this score to `inputs`?

    Args:
        method: a name of `whyglass.METHODS` or the name that another library gives it ("ig"), a
            class, or a method with its settings, such as `IntegratedGradients(steps=64)`. By default
            integrated gradients, or "permutation-shapley" where the model gives no gradients.
        settings: hyper-parameters of a method given by name or class.

    Raises:
        BadInput: no method has that name, or it has no such setting.

    The other arguments are those of `whyglass.Method.__call__`.

    >>> import torch, whyglass
    >>> model = torch.nn.Linear(2, 1)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> whyglass.explain(model, torch.tensor([[1.0, 3.0]]), method="gradient-x-input").values
    tensor([[2., 6.]])
    """
    notes: tuple[str, ...] = ()
    if method is None:
        method = IntegratedGradients
        if isinstance(as_model(model), BlackBox):
            method = PermutationShapley
            kind = type(as_model(model)).__name__
            notes = (f"{kind} gives no gradients, so the method is permutation-shapley",)
    if not isinstance(method, Method):
        method = make_method(method, settings)
    elif settings:
        raise BadInput(
            f"{method.name} already has its settings: give {', '.join(settings)} to the method"
        )
    explanation = method(
        model,
        inputs,
        target=target,
        baseline=baseline,
        at=at,
        output=output,
        legend=legend,
        batch_size=batch_size,
        progress=progress,
    )
    return replace(explanation, notes=(*notes, *explanation.notes)) if notes else explanation
