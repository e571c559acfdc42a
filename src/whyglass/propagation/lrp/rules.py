"""The rules of layer-wise relevance propagation, as data.

A weighted operation z = sum_j x_j w_j passes its output's relevance R back as

    R_j = sum over flows f of s_f sum_p u_p(x)_j (v_p(w)^T (R / z_f)),    z_f = sum_p u_p(x) v_p(w)

so a rule is a few flows; a flow is a few pairs (u, v) of what is done to the input and to the weights,
and a share s of the relevance. The bias enters z_f as a weight on an input of one, if it shares. A flow
of the terms as they are can let those count more that have the sign of their sum.
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

Part = Callable[[Tensor], Tensor]


def same(tensor: Tensor) -> Tensor:
    """As it is."""
    return tensor


def rises(tensor: Tensor) -> Tensor:
    """max(t, 0)."""
    return tensor.clamp_min(0)


def falls(tensor: Tensor) -> Tensor:
    """min(t, 0)."""
    return tensor.clamp_max(0)


def raised(gamma: float) -> Part:
    """t + gamma max(t, 0)."""
    return lambda tensor: torch.add(tensor, rises(tensor), alpha=gamma)


PROPORTIONAL = ((same, same),)


@dataclass(frozen=True)
class Flow:
    """A way of sharing out relevance: pairs (u, v), the terms as they are by default, and its share.

    `epsilon` is added to each denominator, with its sign unless `plain`. `strict` flows refuse to
    divide relevance by zero; others drop it, and the loss is told. `biased` flows let the bias share.
    With `agree` the terms as they are count 1 + agree times if they have the sign of their sum.
    """

    pairs: tuple[tuple[Part, Part], ...] = PROPORTIONAL
    share: float = 1.0
    agree: float = 0.0
    epsilon: float = 0.0
    plain: bool = False
    strict: bool = False
    biased: bool = True

    def __post_init__(self) -> None:
        if self.agree and self.pairs is not PROPORTIONAL:
            raise BadInput("agree is for the terms as they are: leave pairs out")


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
        return (Flow(((same, raised(self.gamma)),), epsilon=self.epsilon, strict=strict),)


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
            Flow(((rises, rises), (falls, falls)), self.alpha),
            Flow(((rises, falls), (falls, rises)), -self.beta),
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
    r"""Equal shares within each receptive field: how deep the picture can tell, and no more.

    .. math:: R_j = \sum_k \frac{1}{\sum_i 1} R_k

    Source: Lapuschkin et al. (2019), supplementary note 3.
    """

    def flows(self) -> tuple[Flow, ...]:
        return (Flow(((torch.ones_like, torch.ones_like),), biased=False),)


@dataclass(frozen=True, kw_only=True)
class ZBox(Rule):
    r"""For a first layer whose inputs lie between `low` and `high`.

    .. math:: R_j = \sum_k \frac{x_j w_{jk} - l \, w_{jk}^+ - h \, w_{jk}^-}
        {\sum_i x_i w_{ik} - l \, w_{ik}^+ - h \, w_{ik}^-} R_k

    Source: Montavon et al. (2017), section 4.1.

    Args:
        low, high: bounds of an input, a number or one a channel; each row's own extremes if None.
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        given = (_numbers(self.low), _numbers(self.high))
        count = max(map(len, given))
        low, high = (bounds * count if len(bounds) == 1 else bounds for bounds in given)
        apart = len(low) == len(high) and all(a < b for a, b in zip(low, high, strict=True))
        if low and high and not apart:
            raise BadInput(f"low must be below high, not {self.low!r} and {self.high!r}")

    def flows(self) -> tuple[Flow, ...]:
        low = partial(_bound, self.low, Tensor.amin)
        high = partial(_bound, self.high, Tensor.amax)
        return (Flow(((same, same), (low, rises), (high, falls)), biased=False),)


def _numbers(bound: float | tuple[float, ...] | None) -> tuple[float, ...]:
    if bound is None:
        return ()
    return bound if isinstance(bound, tuple) else (bound,)


def _bound(
    bound: float | tuple[float, ...] | None, extreme: Callable[..., Tensor], x: Tensor
) -> Tensor:
    """Minus the bound, shaped as x: the factor of its term."""
    if bound is None:
        found = extreme(x, tuple(range(1, x.dim())), keepdim=True)
    elif isinstance(bound, tuple):
        if x.dim() < 2 or x.shape[1] != len(bound):
            raise BadInput(
                f"ZBox has {len(bound)} bounds and axis 1 of an input of shape {tuple(x.shape)} is "
                "not that long"
            )
        found = x.new_tensor(bound).reshape(1, -1, *[1] * (x.dim() - 2))
    else:
        found = x.new_tensor(bound)
    return -found.expand_as(x)
