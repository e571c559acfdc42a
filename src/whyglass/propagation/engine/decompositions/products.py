"""Quotients, powers, products and sums of products in elementary operations."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function


def quotient(a: Any, b: Tensor) -> Tensor:
    """a / b as one operation that the mode sees, however it was spelled."""
    if has_torch_function((a, b)):
        return handle_torch_function(quotient, (a, b), a, b)
    return a / b


def divide(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """a / b, or a times a constant."""
    ratio = quotient(input, other) if isinstance(other, Tensor) else torch.mul(input, 1 / other)
    if rounding_mode is None:
        return ratio
    return torch.floor(ratio) if rounding_mode == "floor" else torch.trunc(ratio)


def divide_swapped(input: Tensor, other: Any) -> Tensor:
    """a / b, called as b's method."""
    return quotient(other, input)


def power(input: Any, exponent: Any) -> Tensor:
    """x^y = exp(y log x), of a positive x."""
    return torch.exp(exponent * torch.log(input))


def remainder(input: Any, other: Any) -> Tensor:
    """x - y floor(x / y)."""
    return input - other * torch.floor(input / other)


def fractional_remainder(input: Any, other: Any) -> Tensor:
    """x - y trunc(x / y)."""
    return input - other * torch.trunc(input / other)


def with_sign_of(input: Any, other: Tensor) -> Tensor:
    """|x| sign(y)."""
    return torch.abs(input) * torch.sign(other)


def covariance(
    input: Tensor, *, correction: int = 1, fweights: None = None, aweights: None = None
) -> Any:
    """The covariance of rows over columns: sum (x - mean) (y - mean) / (n - correction)."""
    if fweights is not None or aweights is not None:
        return NotImplemented
    rows = input.reshape(1, -1) if input.dim() < 2 else input
    centred = rows - rows.mean(1, keepdim=True)
    shape = () if input.dim() < 2 else (len(rows), len(rows))
    return torch.matmul(centred, centred.mT).reshape(shape) / (rows.shape[1] - correction)


def correlation(input: Tensor) -> Tensor:
    """The correlation of rows: the covariance divided by both deviations."""
    if input.dim() < 2:
        shared = covariance(input)
        return shared / shared
    shared = covariance(input)
    size = torch.sqrt(shared.diagonal())
    return shared / size / size.unsqueeze(1)


def times_power_of_two(input: Tensor, other: Tensor) -> Tensor:
    """x 2^y."""
    return input * torch.exp2(other)


def x_log_y(input: Any, other: Tensor) -> Tensor:
    """x log y, which is zero where x is."""
    zero = torch.as_tensor(input == 0)
    return input * torch.log(torch.where(zero, torch.ones_like(other), other))


def hypotenuse(input: Tensor, other: Tensor) -> Tensor:
    """sqrt(x^2 + y^2)."""
    return torch.sqrt(torch.square(input) + torch.square(other))


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """(1 - w) x + w y."""
    return input + weight * (end - input)


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value a b."""
    return input + value * (tensor1 * tensor2)


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value a / b."""
    return input + value * (tensor1 / tensor2)


def _scaled_sum(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    product = product if alpha == 1 else product * alpha
    # As torch does: with a beta of zero the input, NaN or not, is no part of it.
    if beta == 0:
        return product
    return (input if beta == 1 else input * beta) + product


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta c + alpha a b."""
    return _scaled_sum(input, torch.matmul(mat1, mat2), beta, alpha)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta c + alpha a b, in batches."""
    return _scaled_sum(input, torch.matmul(batch1, batch2), beta, alpha)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta c + alpha times the sum of a batch of products."""
    return _scaled_sum(input, torch.matmul(batch1, batch2).sum(0), beta, alpha)


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta c + alpha A v."""
    return _scaled_sum(input, torch.matmul(mat, vec), beta, alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta c + alpha u v^T."""
    return _scaled_sum(input, vec1.unsqueeze(-1) * vec2, beta, alpha)


def einsum(equation: str, tensors: Sequence[Tensor], path: Any = None) -> Any:
    """A sum of products of three operands or more, two at a time from the left."""
    if len(tensors) < 3:
        return NotImplemented
    equation = equation.replace(" ", "")
    terms, _, output = equation.partition("->")
    inputs = terms.split(",")
    if "->" not in equation:
        letters = [letter for letter in terms if letter in string.ascii_letters]
        once = sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        output = ("..." if "..." in terms else "") + "".join(once)
    left, operand = inputs[0], tensors[0]
    for position, (right, other) in enumerate(zip(inputs[1:], tensors[1:], strict=True), 1):
        later = "".join(inputs[position + 1 :]) + output
        both = left + right
        if position == len(inputs) - 1:
            subscripts = output
        else:
            letters = dict.fromkeys(letter for letter in both if letter in string.ascii_letters)
            subscripts = ("..." if "..." in both else "") + "".join(
                c for c in letters if c in later
            )
        operand = torch.einsum(f"{left},{right}->{subscripts}", operand, other)
        left = subscripts
    return operand


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x_1^T W_k x_2 + b_k."""
    result = torch.einsum("...i,kij,...j->...k", input1, weight, input2)
    return result if bias is None else result + bias


def tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: None = None) -> Tensor:
    """Sums over pairs of axes, as one matrix product."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (range(a.dim() - dims, a.dim()), range(dims))
    first, second = ([d % t.dim() for d in axes] for axes, t in zip(dims, (a, b), strict=True))
    for one, other in zip(first, second, strict=True):
        # As in torch: an axis of size 1 is repeated along the other.
        if a.shape[one] == 1:
            b = b.sum(other, keepdim=True)
        elif b.shape[other] == 1:
            a = a.sum(one, keepdim=True)
    rows = [d for d in range(a.dim()) if d not in first]
    columns = [d for d in range(b.dim()) if d not in second]
    size = 1
    for d in first:
        size *= a.shape[d]
    left = a.permute(*rows, *first).reshape(-1, size)
    right = b.permute(*second, *columns).reshape(size, -1)
    return torch.matmul(left, right).reshape(
        [a.shape[d] for d in rows] + [b.shape[d] for d in columns]
    )


def chain_of_matrices(tensors: Sequence[Tensor]) -> Tensor:
    """A product of several matrices, from the left."""
    return reduce(torch.matmul, tensors)


def with_bias(name: str) -> Any:
    """A weighted operation whose bias is tracked, too."""

    def run(input: Tensor, weight: Tensor, bias: Tensor | None = None, **settings: Any) -> Any:
        if bias is None:
            return NotImplemented
        result = getattr(F, name)(input, weight, None, **settings)
        axes = 0 if name == "linear" else int(name[-2])
        return result + bias.reshape(-1, *[1] * axes)

    return run
