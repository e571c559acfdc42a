"""The rules of layer-wise relevance propagation, as data.

A weighted operation z = sum_j x_j w_j passes its output's relevance R back as

    R_j = sum over flows f of s_f sum_p u_p(x)_j (v_p(w)^T (R / z_f)),    z_f = sum_p u_p(x) v_p(w)

so a rule is a few flows. A flow is a few pairs (u, v), u transforming the input and v the weights, and
a share s of the relevance. A bias that shares enters z_f as a weight on an input of one. A flow of
untransformed terms can give more weight to those that have the sign of their sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.method import positive

Transform = Callable[[Tensor], Tensor]


def identity(tensor: Tensor) -> Tensor:
    """The tensor itself."""
    return tensor


def positive_part(tensor: Tensor) -> Tensor:
    """max(t, 0)."""
    return tensor.clamp_min(0)


def negative_part(tensor: Tensor) -> Tensor:
    """min(t, 0)."""
    return tensor.clamp_max(0)


def boosted(gamma: float) -> Transform:
    """t + gamma max(t, 0)."""
    return lambda tensor: torch.add(tensor, positive_part(tensor), alpha=gamma)


PROPORTIONAL = ((identity, identity),)


@dataclass(frozen=True)
class Flow:
    """A way of redistributing relevance: pairs (u, v), untransformed terms by default, and a share.

    `epsilon` is added to each denominator, with its sign unless `plain`. `strict` flows refuse to
    divide relevance by zero; others drop it, and the notes state the loss. `biased` flows let the bias
    share. With `agree`, untransformed terms count 1 + agree times if they have the sign of their sum.
    """

    pairs: tuple[tuple[Transform, Transform], ...] = PROPORTIONAL
    share: float = 1.0
    agree: float = 0.0
    epsilon: float = 0.0
    plain: bool = False
    strict: bool = False
    biased: bool = True

    def __post_init__(self) -> None:
        if self.agree and self.pairs is not PROPORTIONAL:
            raise BadInput("agree is for untransformed terms: leave pairs out")


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Abstract: how one weighted operation passes relevance."""

    @abstractmethod
    def flows(self) -> tuple[Flow, ...]:
        """The flows; see the module's docstring."""


@dataclass(frozen=True, kw_only=True)
class Zero(Rule):
    r"""LRP-0: each input's share of what makes the output.

    .. math:: R_j = \sum_k \frac{x_j w_{jk}}{\sum_i x_i w_{ik}} R_k

    Zero divided by zero is an error that names the layer. Source: Bach et al. (2015), equation 56.
    """

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(strict=True),)


@dataclass(frozen=True, kw_only=True)
class Epsilon(Rule):
    r"""LRP-epsilon: LRP-0 with a denominator kept from zero, which absorbs some relevance.

    .. math:: R_j = \sum_k \frac{x_j w_{jk}}{z_k + \epsilon \, sign(z_k)} R_k

    Source: Bach et al. (2015), equation 58.

    Args:
        epsilon: in units of the layer's output.
        plain: add epsilon without the sign, as Hagan et al. print it.
    """

    epsilon: float = 1e-6
    plain: bool = False

    def __post_init__(self) -> None:
        positive("epsilon", self.epsilon)

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(epsilon=self.epsilon, plain=self.plain),)


@dataclass(frozen=True, kw_only=True)
class Gamma(Rule):
    r"""LRP-gamma: positive contributions count more.

    .. math:: R_j = \sum_k \frac{x_j (w_{jk} + \gamma w_{jk}^+)}
        {\sum_i x_i (w_{ik} + \gamma w_{ik}^+)} R_k

    That is for inputs and outputs that are not negative. `signed` extends it: the products x w of the
    sign of z_k count 1 + gamma times, those of the other sign once.
    Source: Montavon et al. (2019), section 10.2.1; for the signs, Andéol et al. (2021).

    Args:
        gamma: how much more.
        epsilon: added to denominators; 0 makes zero divided by zero an error.
        signed: extend it to negative inputs and outputs.
    """

    gamma: float = 0.25
    epsilon: float = 0.0
    signed: bool = True

    def __post_init__(self) -> None:
        positive("gamma", self.gamma)
        if self.epsilon != 0:
            positive("epsilon", self.epsilon)

    def flows(self) -> tuple[Flow, ...]:
        strict = not self.epsilon
        if self.signed:
            return (Flow(agree=self.gamma, epsilon=self.epsilon, strict=strict),)
        return (Flow(((identity, boosted(self.gamma)),), epsilon=self.epsilon, strict=strict),)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta(Rule):
    r"""LRP-alpha-beta: positive and negative contributions apart, alpha - beta = 1.

    .. math:: R_j = \sum_k \Big( \alpha \frac{(x_j w_{jk})^+}{\sum_i (x_i w_{ik})^+}
        - \beta \frac{(x_j w_{jk})^-}{\sum_i (x_i w_{ik})^-} \Big) R_k

    Where an output has contributions of one sign only, they take all of its relevance.
    Source: Bach et al. (2015), equation 60.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and abs(self.alpha - self.beta - 1) <= 1e-9):
            raise BadInput(
                f"alpha - beta must be 1 and beta not negative, not alpha={self.alpha!r}, "
                f"beta={self.beta!r}"
            )

    def flows(self) -> tuple[Flow, ...]:
        return (
            Flow(((positive_part, positive_part), (negative_part, negative_part)), self.alpha),
            Flow(((positive_part, negative_part), (negative_part, positive_part)), -self.beta),
        )


@dataclass(frozen=True, kw_only=True)
class ZPlus(Rule):
    r"""Positive contributions alone: alpha-beta with alpha = 1, beta = 0.

    .. math:: R_j = \sum_k \frac{(x_j w_{jk})^+}{\sum_i (x_i w_{ik})^+} R_k

    Where an output has negative contributions only, they take its relevance.
    Source: Montavon et al. (2017), section 4.1.
    """

    def flows(self) -> tuple[Flow, ...]:
        return AlphaBeta(alpha=1.0, beta=0.0).flows()


@dataclass(frozen=True, kw_only=True)
class WSquare(Rule):
    r"""Shares by squared weights, whatever the input: for a first layer of unbounded inputs.

    .. math:: R_j = \sum_k \frac{w_{jk}^2}{\sum_i w_{ik}^2} R_k

    Source: Montavon et al. (2017), section 4.1.
    """

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(((torch.ones_like, torch.square),), biased=False),)


@dataclass(frozen=True, kw_only=True)
class Flat(Rule):
    r"""Equal shares within each receptive field, so that the map is no finer than the layer.

    .. math:: R_j = \sum_k \frac{1}{\sum_i 1} R_k

    Source: Lapuschkin et al. (2019), supplementary note 3.
    """

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(((torch.ones_like, torch.ones_like),), biased=False),)


@dataclass(frozen=True, kw_only=True)
class ZBox(Rule):
    r"""A rule for a first layer whose inputs lie between `low` and `high`.

    .. math:: R_j = \sum_k \frac{x_j w_{jk} - l \, w_{jk}^+ - h \, w_{jk}^-}
        {\sum_i x_i w_{ik} - l \, w_{ik}^+ - h \, w_{ik}^-} R_k

    Source: Montavon et al. (2017), section 4.1.

    Args:
        low, high: bounds of an input, a number or one a channel; each row's own extremes if None.
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        bounds = (_numbers(self.low), _numbers(self.high))
        count = max(map(len, bounds))
        low, high = (numbers * count if len(numbers) == 1 else numbers for numbers in bounds)
        apart = len(low) == len(high) and all(a < b for a, b in zip(low, high, strict=True))
        if low and high and not apart:
            raise BadInput(f"low must be below high, not {self.low!r} and {self.high!r}")

    def flows(self) -> tuple[Flow, ...]:
        low = partial(_bound, self.low, Tensor.amin)
        high = partial(_bound, self.high, Tensor.amax)
        return (
            Flow(((identity, identity), (low, positive_part), (high, negative_part)), biased=False),
        )


def _numbers(bound: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if bound is None:
        return ()
    return bound if isinstance(bound, tuple) else (bound,)


def _bound(
    bound: float | tuple[float, ...] | None, extreme: Callable[..., Tensor], x: Tensor
) -> Tensor:
    """The negative bound, shaped as x, which is the factor of its term."""
    if bound is None:
        shaped = extreme(x, tuple(range(1, x.dim())), keepdim=True)
    elif isinstance(bound, tuple):
        if x.dim() < 2 or x.shape[1] != len(bound):
            raise BadInput(
                f"ZBox has {len(bound)} bounds and axis 1 of an input of shape {tuple(x.shape)} is "
                "not that long"
            )
        shaped = x.new_tensor(bound).reshape(1, -1, *[1] * (x.dim() - 2))
    else:
        shaped = x.new_tensor(bound)
    return -shaped.expand_as(x)
