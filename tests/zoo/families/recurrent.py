"""Networks over time: recurrent, causal, and with a state that is written in place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.zoo.families.family import Family, floats, ids, in_order

KIND = "networks over time"


class TimeFirst(nn.Module):
    """Token ids (B, T) -> (B, 3): the embedding's output is (T, B, E), the default of `nn.LSTM`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(40, 8), nn.LSTM(8, 10)
        self.head = nn.Linear(10, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens.t()))[0][-1])


class BatchFirst(nn.Module):
    """Token ids (B, T) -> (B, 3) by a two-layer LSTM in both directions, the maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.lstm = nn.LSTM(8, 10, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(tokens))[0].amax(1))


class AttentiveGRU(nn.Module):
    """(B, T, 4) -> (B, 3): a GRU whose states are weighed by a softmax over time."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 10, batch_first=True, bidirectional=True)
        self.weigh, self.head = nn.Linear(20, 1), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(x)
        weights = torch.softmax(self.weigh(torch.tanh(states)), 1)
        return self.head((weights * states).sum(1))


class Packed(nn.Module):
    """(B, T, 4) and lengths (B,) -> (B, 3): an LSTM on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return self.head(states[torch.arange(len(x)), lengths - 1])


class Cells(nn.Module):
    """(B, T, 4) -> (B, 3): `nn.LSTMCell` in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 10), x.new_zeros(len(x), 10)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0])


class ConvolutionsThenLSTM(nn.Module):
    """(B, 1, L) -> (B, 3): convolutions and pooling before an LSTM, as for electrocardiograms."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(1, 6, 5, padding=2),
            nn.BatchNorm1d(6),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(2),
            nn.Conv1d(6, 8, 5, padding=2),
            nn.BatchNorm1d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(2),
            nn.Dropout(0.2, inplace=True),
        )
        self.lstm, self.head = nn.LSTM(8, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.features(x).transpose(1, 2))[0][:, -1])


class StateInPlace(nn.Module):
    """(B, T, 4) -> (B, 3): a selective state space as Mamba's, its cache written by `copy_`."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.step = nn.Linear(4, 8), nn.Linear(8, 8)
        self.b, self.c = nn.Linear(8, 5), nn.Linear(8, 5)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, 6.0)).repeat(8, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.into(x))
        delta, decay = F.softplus(self.step(x)), -torch.exp(self.A_log)
        cache, outputs = x.new_zeros(len(x), 8, 5), x.new_zeros(x.shape)
        for t in range(x.shape[1]):
            gate = torch.exp(delta[:, t, :, None] * decay)
            drive = (delta[:, t] * x[:, t])[..., None] * self.b(x[:, t])[:, None]
            state = cache.clone() * gate + drive
            cache.copy_(state)
            outputs[:, t] = (state * self.c(x[:, t])[:, None]).sum(-1)
        return self.head(outputs.mean(1))


class WaveNet(nn.Module):
    """(B, 1, L) -> (B, 3): gated, dilated, causal convolutions with skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(1, 6, 1), nn.Linear(6, 3)
        self.gated = nn.ModuleList(nn.Conv1d(6, 12, 2, dilation=2**i) for i in range(3))
        self.skips = nn.ModuleList(nn.Conv1d(6, 6, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.first(x), 0
        for conv, skip in zip(self.gated, self.skips, strict=True):
            value, gate = conv(F.pad(x, (conv.dilation[0], 0))).chunk(2, 1)
            out = skip(torch.tanh(value) * torch.sigmoid(gate))
            total, x = total + out, x + out
        return self.head(F.relu(total).mean(-1))


class RunningSums(nn.Module):
    """(B, T, 4) -> (B, 3): linear attention, causal by `cumsum`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.elu(self.q(x)) + 1, F.elu(self.k(x)) + 1, self.v(x)
        sums = torch.einsum("btd,bte->btde", k, v).cumsum(1)
        weights = torch.einsum("btd,btd->bt", q, k.cumsum(1))
        return self.head((torch.einsum("btd,btde->bte", q, sums) / weights[..., None]).mean(1))


class Flow(nn.Module):
    """(B, 4) -> (B, 3): a differential equation by Runge-Kutta, one network for every step."""

    def __init__(self) -> None:
        super().__init__()
        self.field = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 4))
        self.head = nn.Linear(4, 3)

    def slope(self, x: Tensor, time: float) -> Tensor:
        return self.field(torch.cat([x, torch.full_like(x[:, :1], time)], 1))

    def forward(self, x: Tensor) -> Tensor:
        h = 0.25
        for step in range(4):
            t = step * h
            a = self.slope(x, t)
            b = self.slope(x + h / 2 * a, t + h / 2)
            c = self.slope(x + h / 2 * b, t + h / 2)
            d = self.slope(x + h * c, t + h)
            x = x + h / 6 * (a + 2 * b + 2 * c + d)
        return self.head(x)


class Chain(nn.Module):
    """(B, T, 4) -> (B,): log-likelihood in a conditional random field, by the forward algorithm."""

    def __init__(self) -> None:
        super().__init__()
        self.emit, self.moves = nn.Linear(4, 3), nn.Parameter(torch.randn(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.tanh(self.emit(x))
        alpha = scores[:, 0]
        for step in scores[:, 1:].unbind(1):
            alpha = torch.logsumexp(alpha[:, :, None] + self.moves, 1) + step
        return scores[:, :, 0].sum(1) - torch.logsumexp(alpha, 1)


def _lengths(_: torch.Generator) -> Tensor:
    return torch.tensor([5, 3])


FAMILIES = (
    Family(name="LSTM, time first", kind=KIND, module=TimeFirst, inputs=ids(), at="embedding"),
    Family(
        name="LSTM, both directions", kind=KIND, module=BatchFirst, inputs=ids(), at="embedding"
    ),
    Family(name="GRU with attention", kind=KIND, module=AttentiveGRU, inputs=floats(6, 4)),
    Family(name="LSTM, packed", kind=KIND, module=Packed, inputs=in_order(floats(5, 4), _lengths)),
    Family(name="LSTM cells in a loop", kind=KIND, module=Cells, inputs=floats(6, 4)),
    Family(
        name="1-D convolutions and LSTM",
        kind=KIND,
        module=ConvolutionsThenLSTM,
        inputs=floats(1, 32),
    ),
    Family(
        name="state space, written in place", kind=KIND, module=StateInPlace, inputs=floats(6, 4)
    ),
    Family(name="WaveNet", kind=KIND, module=WaveNet, inputs=floats(1, 24)),
    Family(name="linear attention, causal", kind=KIND, module=RunningSums, inputs=floats(6, 4)),
    Family(name="neural differential equation", kind=KIND, module=Flow, inputs=floats(4)),
    Family(name="conditional random field", kind=KIND, module=Chain, inputs=floats(6, 4)),
)
