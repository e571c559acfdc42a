"""Complex numbers as pairs of real ones, so that every rule is about real numbers.

A linear map of complex numbers is a linear map of their real and imaginary parts. The gradient that
torch passes to a complex tensor is the pair of gradients of its parts, so a multiplier, or relevance,
travels as a complex number whose parts belong to the parts of the value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine.arguments import Form, unpacked
from whyglass.propagation.engine.operations import ADDITIVE, BILINEAR, FOURIER, LINEAR


def name_on_pairs(op: str, operands: int) -> str | None:
    """Which operation on real numbers this one is, of so many operands; None if none."""
    if op in ADDITIVE:
        return op
    if op in FOURIER or (op in LINEAR | BILINEAR and operands == 1):
        return "linear_map"
    return "bilinear_map" if op in BILINEAR and operands == 2 else None


def parts_of(value: Tensor) -> Tensor:
    """The real and imaginary parts of a number, real or complex, along a new last axis."""
    if not value.is_complex():
        value = torch.complex(value, torch.zeros_like(value))
    return torch.view_as_real(value)


def on_pairs(
    function: Callable[..., Any], operands: Sequence[int], form: Form
) -> Callable[..., Tensor]:
    """The function of the same leaves, the operands being pairs of real numbers, as its result is."""

    def run(*leaves: Any) -> Tensor:
        numbers = list(leaves)
        for position in operands:
            numbers[position] = torch.view_as_complex(numbers[position].contiguous())
        args, kwargs = unpacked(numbers, form)
        result = function(*args, **kwargs)
        return torch.view_as_real(result) if result.is_complex() else result

    return run


def modulus(input: Tensor) -> Any:
    """|z| = sqrt(a^2 + b^2) of complex numbers."""
    if not input.is_complex():
        return NotImplemented
    return torch.sqrt(torch.square(torch.view_as_real(input)).sum(-1))


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """r cos t + i r sin t."""
    return torch.complex(abs * torch.cos(angle), abs * torch.sin(angle))
