"""A model that is a function of numpy arrays, without PyTorch."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from whyglass.core.errors import BadInput, Unsupported


class BlackBox(ABC):
    """A model that gives scores and no gradients."""

    @abstractmethod
    def __call__(self, inputs: Tensor) -> Any: ...


class NumpyModel(BlackBox):
    """A function from a numpy array (B, ...) to one (B,) or (B, C), as a model that gives scores.

    A scikit-learn pipeline's `predict_proba`, say, or a client of a remote service. Every method that
    needs scores only can explain it: Shapley values, LIME, occlusion. The `predict_proba` of an
    estimator for several outputs returns a list of arrays, of which `output=0` picks the first.

    Args:
        predict: the function.
        retries: how often to call again after an `OSError`, the class of all errors of networks and
            files; `wait` seconds before the first time, and twice as long before each next.

    >>> import numpy as np, torch, whyglass
    >>> model = whyglass.NumpyModel(lambda rows: rows[:, 0] * rows[:, 1])
    >>> whyglass.ExactShapley()(model, torch.tensor([[2.0, 3.0]])).values
    tensor([[3., 3.]])
    """

    def __init__(
        self, predict: Callable[[Any], Any], *, retries: int = 0, wait: float = 1.0
    ) -> None:
        if not callable(predict):
            raise BadInput(
                f"predict must be a function of an array, not {type(predict).__name__}: for an "
                "estimator of scikit-learn pass its predict_proba or predict"
            )
        if isinstance(retries, bool) or retries < 0 or not wait >= 0:
            raise BadInput(f"retries and wait must be 0 or more, not {retries!r} and {wait!r}")
        self._predict, self._retries, self._wait = predict, retries, wait

    def __call__(self, inputs: Tensor) -> Any:
        outputs = self._predicted(inputs.detach().cpu().numpy())
        if isinstance(outputs, list | tuple) and outputs:
            # An array for each output has a row for each input; a plain list of rows has numbers.
            parts = cast("Sequence[Any]", outputs)
            if all(isinstance(part, np.ndarray) and part.ndim > 1 for part in parts):
                return [tensor_of(part) for part in parts]
        return tensor_of(np.asarray(outputs))

    def _predicted(self, rows: Any) -> Any:
        for attempt in range(self._retries):
            try:
                return self._predict(rows)
            except OSError:
                time.sleep(self._wait * 2**attempt)
        return self._predict(rows)


def tensor_of(outputs: np.ndarray[Any, Any]) -> Tensor:
    """The scores in an array: float64, or float32 where they are that or half precision."""
    if outputs.dtype.kind not in "fiub":
        raise BadInput(
            f"the function returned {outputs.dtype}, not numbers: for a classifier of scikit-learn "
            "pass predict_proba or decision_function"
        )
    wide = outputs.dtype.kind != "f" or outputs.dtype == np.float64
    return torch.tensor(outputs, dtype=torch.float64 if wide else torch.float32)


def as_model(model: Any) -> Any:
    """The model itself; a `NumpyModel` of it where it is a method of an estimator as in scikit-learn.

    Such an estimator has the methods `fit` and `get_params`.
    """
    estimator = getattr(model, "__self__", None)
    if hasattr(estimator, "fit") and hasattr(estimator, "get_params"):
        return NumpyModel(model)
    return model


def no_gradients(model: str) -> Unsupported:
    """The error for a method that needs gradients, which this kind of model has not."""
    return Unsupported(
        f"{model} gives scores and no gradients, which this method needs: "
        'method="permutation-shapley" explains it, and so do kernel-shap, lime and occlusion'
    )
