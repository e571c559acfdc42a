"""The first-order model of a score at an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import flat_sum
from whyglass.core.output import Selector
from whyglass.core.scorer import Scorer
from whyglass.core.target import Several, Target


@dataclass(frozen=True, kw_only=True, eq=False)
class Linearised:
    r"""The tangent of a score at a point p*, which can be called like a model.

    .. math:: a(p) \approx a(p^*) + \nabla a(p^*)^T (p - p^*) = \nabla a(p^*)^T p + \text{constant}

    Units: the score's; of the gradient, score per unit of the feature.
    Source: Hagan, Demuth, Beale & De Jesús, Neural Network Design, equations 9.7 to 9.10.

    Attributes:
        point: p*, (B, ...).
        value: a(p*), (B,).
        gradient: the weights of the linear model, shaped as `point`.
        constant: a(p*) less the gradient times p*, (B,): what it gives at zeros.

    Raises:
        BadInput: it is called with several rows of its own, or on inputs of another shape.

    >>> import torch, whyglass
    >>> bent = whyglass.linearise(lambda p: p[:, 0] ** 2 + p[:, 1], torch.tensor([[3.0, 1.0]]))
    >>> bent.gradient, bent.constant, bent.contributions
    (tensor([[6., 1.]]), tensor([-9.]), tensor([[18.,  1.]]))
    >>> bent(torch.tensor([[3.0, 1.0], [4.0, 1.0]]))
    tensor([10., 16.])
    """

    point: Tensor
    value: Tensor
    gradient: Tensor
    constant: Tensor

    def __len__(self) -> int:
        return len(self.value)

    @property
    def contributions(self) -> Tensor:
        """Gradient x input: with the constant they add up to the score at the point."""
        return self.gradient * self.point

    def row(self, index: int) -> Linearised:
        """The linear model of one row."""
        if not 0 <= index < len(self):
            raise BadInput(f"row {index} is out of range: there are {len(self)} rows")
        one = slice(index, index + 1)
        return Linearised(
            point=self.point[one],
            value=self.value[one],
            gradient=self.gradient[one],
            constant=self.constant[one],
        )

    def __call__(self, inputs: Tensor) -> Tensor:
        """(N,) scores of the linear model of one row at inputs (N, ...)."""
        if len(self) != 1:
            raise BadInput(f"there are {len(self)} linear models, one a row: call .row(i)(inputs)")
        if inputs.shape[1:] != self.point.shape[1:]:
            raise BadInput(
                f"inputs of shape {tuple(inputs.shape)} hold no rows like the point's, "
                f"{tuple(self.point.shape[1:])}"
            )
        change = flat_sum([self.gradient * (inputs - self.point)], False)
        return self.value + change.to(self.value.dtype)


def linearise(
    model: Callable[..., Any],
    inputs: Tensor,
    *,
    target: Target = None,
    output: Selector = None,
) -> Linearised:
    r"""The score as a linear function of the input, to first order at each row of `inputs`.

    .. math:: a(p) \approx a(p^*) + \nabla a(p^*)^T (p - p^*)

    It holds near p* only: another point of a network that bends has another gradient. Units: the
    score's. Source: Hagan, Demuth, Beale & De Jesús, Neural Network Design, equation 9.7.

    Args:
        model: as in `whyglass.Method.__call__`.
        inputs: the points p*, one tensor (B, ...).
        target: one scalar of the output, such as `Probability(2)`; see `whyglass.core.target`.
        output: picks a tensor out of the model's output.

    Raises:
        BadInput: the inputs are a tuple or dict, the target is `Several`, or what
            `whyglass.Method.__call__` refuses.

    >>> import torch, whyglass
    >>> logsig = lambda p: torch.sigmoid(p.sum(1) - 1)
    >>> flat = whyglass.linearise(logsig, torch.tensor([[1.0, 0.0]]))
    >>> flat.value, flat.gradient, flat.constant
    (tensor([0.5000]), tensor([[0.2500, 0.2500]]), tensor([0.2500]))
    """
    if not isinstance(inputs, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]  users pass anything
        raise BadInput(
            f"inputs must be one tensor (B, ...), not {type(inputs).__name__}: wrap the model in a "
            "callable of one tensor"
        )
    if isinstance(target, Several):
        raise BadInput("target Several(...) makes many linear models: linearise one target a time")
    scorer = Scorer(model, inputs, target=target, output=output)
    here = scorer.at_inputs(gradient=True)
    (point,), (gradient,) = here.points, here.gradients
    along = flat_sum([gradient * point], False).to(here.scores.dtype)
    return Linearised(
        point=point, value=here.scores, gradient=gradient, constant=here.scores - along
    )
