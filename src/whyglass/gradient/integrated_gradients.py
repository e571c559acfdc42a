"""Integrated gradients: the change of score from the baseline, shared out along a straight path."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.paper import Paper
from whyglass.gradient.path_gradients import PathMethod
from whyglass.gradient.path_integral import Curve, straight
from whyglass.gradient.quadrature import Rule


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients(PathMethod):
    r"""The gradient integrated over the straight line from baseline x' to input x.

    .. math:: R_i = (x_i - x'_i) \int_0^1
        \frac{\partial S(x' + \alpha (x - x'))}{\partial x_i} \, d\alpha

    The values add up to S(x) - S(x'). Units: score.
    Source: Sundararajan, Taly & Yan (2017), equations 1 and 3.

    Args:
        steps: gradients a row; with the adaptive rule the most there will be.
        rule: "adaptive" (default) refines the path where gradient and score change most, gives
            standard errors and stops at `tol`; "gauss-legendre", "trapezoid", "midpoint", "left" and
            "right" (the paper's) take `steps` points; "endpoints" averages `steps` points that
            include both ends, as the book chapter does, and is biased by 1 / steps.
        tol: relative error of map and completeness to reach (adaptive); tolerance of the
            completeness check.

    >>> import torch, whyglass
    >>> flat_at_two = lambda x: 1 - torch.relu(1 - x[:, 0])
    >>> whyglass.IntegratedGradients()(flat_at_two, torch.tensor([[2.0]])).values
    tensor([[1.]])
    """

    rule: Rule = "adaptive"

    name: ClassVar[str] = "integrated-gradients"
    shows: ClassVar[str] = (
        "What each feature added on the way from the baseline to this input; the parts "
        "sum to the change of score."
    )
    cost: ClassVar[str] = "steps gradients"
    paper: ClassVar[Paper] = Paper(
        "Mukund Sundararajan, Ankur Taly and Qiqi Yan",
        "Axiomatic Attribution for Deep Networks",
        "ICML",
        2017,
        "https://arxiv.org/abs/1703.01365",
    )

    def curve(self) -> Curve:
        return straight
