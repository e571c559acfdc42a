"""LSTM, GRU and plain recurrent layers, step by step in elementary operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.errors import Unsupported

# (x_t, state, weights of the layer and direction) -> state; the first of the state is the output.
Cell = Callable[[Tensor, tuple[Tensor, ...], Sequence[Tensor | None]], tuple[Tensor, ...]]


def _lstm_cell(
    x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """c' = f c + i g, h' = o tanh c'."""
    h, c = state
    w, u, b, d = weights
    assert w is not None
    assert u is not None
    i, f, g, o = (F.linear(x, w, b) + F.linear(h, u, d)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru_cell(
    x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """h' = n + z (h - n), n = tanh(W x + r U h)."""
    (h,) = state
    w, u, b, d = weights
    assert w is not None
    assert u is not None
    xr, xz, xn = F.linear(x, w, b).chunk(3, -1)
    hr, hz, hn = F.linear(h, u, d).chunk(3, -1)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return (n + torch.sigmoid(xz + hz) * (h - n),)


def _plain_cell(squash: Callable[[Tensor], Tensor]) -> Cell:
    def cell(
        x: Tensor, state: tuple[Tensor, ...], weights: Sequence[Tensor | None]
    ) -> tuple[Tensor, ...]:
        (h,) = state
        w, u, b, d = weights
        assert w is not None
        assert u is not None
        return (squash(F.linear(x, w, b) + F.linear(h, u, d)),)

    return cell


def _unrolled(cell: Cell, states: int) -> Callable[..., tuple[Tensor, ...]]:
    def run(
        _: Any,
        input: Tensor,  # noqa: A002  torch's name
        hx: Any,
        params: Sequence[Tensor],
        has_biases: Any,
        num_layers: int = 1,
        dropout: float = 0.0,
        train: bool = False,
        bidirectional: bool = False,
        batch_first: bool = False,
        *rest: Any,
    ) -> tuple[Tensor, ...]:
        if not isinstance(has_biases, bool):
            raise Unsupported("a packed sequence has no rule: pass it padded, (B, T, F)")
        ways = 2 if bidirectional else 1
        each = 4 if has_biases else 2
        if len(params) != each * ways * num_layers:
            raise Unsupported("a recurrent layer with a projection has no rule")
        start = hx if isinstance(hx, tuple | list) else (hx,)
        steps = list((input.transpose(0, 1) if batch_first else input).unbind(0))
        last: list[tuple[Tensor, ...]] = []
        for layer in range(num_layers):
            found: list[list[Tensor]] = []
            for way in range(ways):
                place = layer * ways + way
                weights = [*params[each * place : each * (place + 1)], None, None][:4]
                state = tuple(s[place] for s in start)
                outputs: list[Tensor] = []
                for x in steps[::-1] if way else steps:
                    state = cell(x, state, weights)
                    outputs.append(state[0])
                found.append(outputs[::-1] if way else outputs)
                last.append(state)
            steps = [
                torch.cat(pair, -1) if ways > 1 else pair[0] for pair in zip(*found, strict=True)
            ]
        output = torch.stack(steps, 1 if batch_first else 0)
        return output, *(torch.stack([state[k] for state in last]) for k in range(states))

    return run


def _one_step(cell: Cell) -> Callable[..., Any]:
    """A cell alone: `hx` is a state or, of an LSTM, the pair of them."""

    def run(_: Any, input: Tensor, hx: Any, *weights: Tensor | None) -> Any:  # noqa: A002  torch's name
        pair = isinstance(hx, tuple | list)
        state = cell(input, tuple(hx) if pair else (hx,), [*weights, None, None][:4])
        return state if pair else state[0]

    return run


RECURRENT: dict[str, Callable[..., Any]] = {
    "lstm": _unrolled(_lstm_cell, 2),
    "gru": _unrolled(_gru_cell, 1),
    "rnn_tanh": _unrolled(_plain_cell(torch.tanh), 1),
    "rnn_relu": _unrolled(_plain_cell(torch.relu), 1),
    "lstm_cell": _one_step(_lstm_cell),
    "gru_cell": _one_step(_gru_cell),
    "rnn_tanh_cell": _one_step(_plain_cell(torch.tanh)),
    "rnn_relu_cell": _one_step(_plain_cell(torch.relu)),
}
