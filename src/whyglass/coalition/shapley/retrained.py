"""An estimator that is fitted anew on the columns that a row has."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.numpy_model import BlackBox


class Retrained(BlackBox):
    """A scikit-learn-like estimator with its training table, as a model for `shapley-regression`.

    Called with rows (B, columns) it answers with the predictions (B,), or of a classifier with the
    probabilities (B, C) in the order of its sorted classes. NaN marks a column that is absent: a copy
    of the estimator is fitted on the columns present and predicts from them. Without any column it
    predicts the mean of the labels, or the share of each class. A random estimator needs its
    `random_state`, or no two fits compare.

    Args:
        estimator: with `fit(data, labels)` and `predict(data)`, for classifiers `predict_proba`. It is
            copied, never fitted itself.
        data: the training table (N, columns), a tensor or array of finite numbers.
        labels: (N,), the numbers of a regression or classes.

    Raises:
        BadInput: one of them is not of that kind; when called, some columns cannot be fitted.

    >>> import numpy as np, torch
    >>> class Mean:
    ...     def fit(self, data, labels):
    ...         self.all = data.mean() + labels.mean()
    ...     def predict(self, data):
    ...         return np.full(len(data), self.all)
    >>> model = Retrained(Mean(), torch.tensor([[0.0, 4.0], [2.0, 6.0]]), torch.tensor([1.0, 3.0]))
    >>> model(torch.tensor([[1.0, 1.0], [1.0, torch.nan], [torch.nan, torch.nan]]))
    tensor([5., 3., 2.])
    """

    def __init__(self, estimator: Any, data: Any, labels: Any) -> None:
        for name in ("fit", "predict"):
            if not callable(getattr(estimator, name, None)):
                raise BadInput(
                    f"estimator {type(estimator).__name__} has no method {name}: give one like "
                    "scikit-learn's, with fit(data, labels) and predict(data)"
                )
        if isinstance(estimator, type):
            raise BadInput(
                f"estimator is the class {estimator.__name__}: make one, {estimator.__name__}(...)"
            )
        self.data, self.labels = _array(data), _array(labels)
        if self.data.ndim != 2 or 0 in self.data.shape or self.data.dtype.kind not in "fiub":
            raise BadInput(
                f"data must be a table (N, columns) of numbers, not {self.data.dtype} of shape "
                f"{self.data.shape}"
            )
        if self.labels.shape != self.data.shape[:1]:
            raise BadInput(
                f"labels must have shape ({len(self.data)},), one a row of data, not "
                f"{self.labels.shape}"
            )
        for name, array in (("data", self.data), ("labels", self.labels)):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise BadInput(
                    f"{name} of the training table must be finite: it holds NaN or infinity"
                )
        self.classifies = callable(getattr(estimator, "predict_proba", None))
        if not self.classifies and self.labels.dtype.kind not in "fiub":
            raise BadInput(f"labels of a regression must be numbers, not {self.labels.dtype}")
        self._estimator = estimator
        self._last: tuple[bytes, Any] = (b"", None)

    @property
    def columns(self) -> int:
        """Columns of the table."""
        return self.data.shape[1]

    def __call__(self, inputs: Tensor) -> Tensor:
        rows = inputs.detach().cpu().numpy()
        present = ~np.isnan(rows)
        _, first, position = np.unique(present, axis=0, return_index=True, return_inverse=True)
        parts: list[NDArray[Any]] = [np.zeros(0)] * len(first)
        # Subsets come in the order of the rows: those of one subset may go on in the next batch.
        for group in first.argsort():
            columns = present[first[group]]
            parts[group] = self.predict(rows[position.reshape(-1) == group][:, columns], columns)
        answer = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        for group, part in enumerate(parts):
            answer[position.reshape(-1) == group] = part
        return torch.from_numpy(answer).to(
            inputs.dtype if inputs.dtype == torch.float64 else torch.float32
        )

    def predict(self, rows: NDArray[Any], columns: NDArray[np.bool_]) -> NDArray[Any]:
        """Predictions for rows (B, present) of a copy fitted on the columns present."""
        if not columns.any():
            return np.repeat(self._prior(), len(rows), 0)
        key = columns.tobytes()
        last, fitted = self._last
        if last != key:
            fitted = copy.deepcopy(self._estimator)
            try:
                fitted.fit(self.data[:, columns], self.labels)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                names = columns.nonzero()[0].tolist()
                raise BadInput(
                    f"the estimator cannot be fitted on columns {names}: {error}"
                ) from error
            if not self.classifies and hasattr(fitted, "classes_"):
                raise BadInput(
                    f"classifier {type(fitted).__name__} gives no probabilities (predict_proba), and "
                    "classes cannot be averaged: calibrate it first"
                )
            self._last = (key, fitted)
        answer = fitted.predict_proba(rows) if self.classifies else fitted.predict(rows)
        return np.asarray(answer, np.float64)

    def _prior(self) -> NDArray[Any]:
        if self.classifies:
            return np.unique(self.labels, return_counts=True)[1][None] / len(self.labels)
        return np.asarray([self.labels.mean(dtype=np.float64)])


def _array(numbers: Any) -> NDArray[Any]:
    return numbers.detach().cpu().numpy() if isinstance(numbers, Tensor) else np.asarray(numbers)
