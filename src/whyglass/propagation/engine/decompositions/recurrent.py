"""LSTM, GRU and plain recurrent layers, step by step in elementary operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class _Weights:
    """The weights of one layer in one direction: to input and state, their biases, a projection."""

    to_input: Tensor
    to_state: Tensor
    input_bias: Tensor | None = None
    state_bias: Tensor | None = None
    projection: Tensor | None = None

    def of_input(self, x: Tensor) -> Tensor:
        """The part that the input adds to the gates."""
        return F.linear(x, self.to_input, self.input_bias)

    def of_state(self, h: Tensor) -> Tensor:
        """The part that the state adds to the gates."""
        return F.linear(h, self.to_state, self.state_bias)


# (x_t, state, weights) -> state; the first of the state is the output.
Cell = Callable[[Tensor, State, _Weights], State]


def _lstm_cell(x: Tensor, state: State, weights: _Weights) -> State:
    """c' = f c + i g, h' = o tanh c'."""
    h, c = state
    i, f, g, o = (weights.of_input(x) + weights.of_state(h)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if weights.projection is None else F.linear(h, weights.projection)), c


def _gru_cell(x: Tensor, state: State, weights: _Weights) -> State:
    """h' = n + z (h - n), n = tanh(W x + r U h)."""
    (h,) = state
    xr, xz, xn = weights.of_input(x).chunk(3, -1)
    hr, hz, hn = weights.of_state(h).chunk(3, -1)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return (n + torch.sigmoid(xz + hz) * (h - n),)


def _plain_cell(squash: Callable[[Tensor], Tensor]) -> Cell:
    def cell(x: Tensor, state: State, weights: _Weights) -> State:
        (h,) = state
        return (squash(weights.of_input(x) + weights.of_state(h)),)

    return cell


def _all_weights(params: Sequence[Tensor], has_biases: bool, directions: int) -> list[_Weights]:
    """The weights of each layer and direction."""
    count = len(params) // directions
    sets: list[_Weights] = []
    for start in range(0, len(params), count):
        w, u, *others = params[start : start + count]
        biases, projection = (others[:2], others[2:]) if has_biases else ([None, None], others)
        sets.append(_Weights(w, u, *biases, *projection))
    return sets


def _run_direction(
    cell: Cell, steps: Sequence[Tensor], state: State, weights: _Weights, backwards: bool
) -> tuple[list[Tensor], State]:
    """The outputs of one direction, and its last state.

    Of a packed sequence later steps have fewer rows: those that ended keep their state. Backwards rows
    begin with the first state where their sequence ends.
    """
    first, outputs = state, list[Tensor]()
    ended: list[State] = []
    if backwards:
        state = tuple(part[: steps[0].shape[0]] for part in first)
    for x in steps:
        rows, held = x.shape[0], state[0].shape[0]
        if rows < held:
            ended.append(tuple(part[rows:] for part in state))
            state = tuple(part[:rows] for part in state)
        elif rows > held:
            state = tuple(
                torch.cat([part, start[held:rows]])
                for part, start in zip(state, first, strict=True)
            )
        state = cell(x, state, weights)
        outputs.append(state[0])
    if ended:
        # The sequences that ended last stand first.
        parts = [state, *reversed(ended)]
        state = tuple(torch.cat([part[k] for part in parts]) for k in range(len(state)))
    return outputs, state


def _unrolled(cell: Cell, states: int) -> Callable[..., tuple[Tensor, ...]]:
    """The layer over (T, B, F) or (B, T, F), or over packed rows `data` with so many a step."""

    def run(
        *,
        hx: Any,
        params: Sequence[Tensor],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        input: Tensor | None = None,
        batch_first: bool = False,
        data: Tensor | None = None,
        batch_sizes: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        direction_count = 2 if bidirectional else 1
        weights = _all_weights(params, has_biases, direction_count * num_layers)
        start: State = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        if data is not None and batch_sizes is not None:
            steps = list(data.split(batch_sizes.tolist()))
        else:
            assert input is not None
            steps = list((input.transpose(0, 1) if batch_first else input).unbind(0))
        last: list[State] = []
        for layer in range(num_layers):
            directions: list[list[Tensor]] = []
            for direction in range(direction_count):
                which = layer * direction_count + direction
                state = tuple(part[which] for part in start)
                sequence = steps[::-1] if direction else steps
                outputs, end = _run_direction(
                    cell, sequence, state, weights[which], bool(direction)
                )
                directions.append(outputs[::-1] if direction else outputs)
                last.append(end)
            steps = [torch.cat(pair, -1) for pair in zip(*directions, strict=True)]
        output = torch.cat(steps) if data is not None else torch.stack(steps, int(batch_first))
        return output, *(torch.stack([state[k] for state in last]) for k in range(states))

    return run


def _one_step(cell: Cell) -> Callable[..., Any]:
    """A cell alone: `hx` is a state or, of an LSTM, the pair of them."""

    def run(
        input: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        pair = isinstance(hx, tuple | list)
        state = cell(input, tuple(hx) if pair else (hx,), _Weights(w_ih, w_hh, b_ih, b_hh))
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
