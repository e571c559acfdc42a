"""Attention and mixers, as they are written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.families.family import Family, floats, ids, in_order

KIND = "attention and mixers"


class EncoderDecoder(nn.Module):
    """Source (B, 6, 8) and target (B, 4, 8) -> (B, 3): `nn.Transformer`, causal on its target side."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Transformer(8, 2, 2, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(4, dtype=source.dtype)
        return self.head(self.body(source, target, tgt_mask=mask)[:, -1])


class TransformerClassifier(nn.Module):
    """Token ids (B, T) -> (B, 3): `nn.TransformerEncoder` with padding masked."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        padding = tokens == 0
        states = self.encoder(self.embedding(tokens), src_key_padding_mask=padding)
        kept = (~padding)[..., None].to(states.dtype)
        return self.head((states * kept).sum(1) / kept.sum(1))


class SharedEmbedding(nn.Module):
    """Two texts (B, T) -> (B,): one embedding and one encoder run on each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.encode = nn.Embedding(40, 8), nn.Linear(8, 8)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = (torch.tanh(self.encode(self.embed(side))).mean(1) for side in (left, right))
        return (a * b).sum(1)


class Mixer(nn.Module):
    """(B, 3, 16, 16) -> (B, 3): perceptrons over patches and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.across = nn.Sequential(nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 16))
        self.within = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = x + self.across(self.norms[0](x).mT).mT
        x = x + self.within(self.norms[1](x))
        return self.head(self.norms[2](x).mean(1))


class FourierMixer(nn.Module):
    """(B, T, 8) -> (B, 3): complex weights on the frequencies, as in Fourier neural operators."""

    def __init__(self) -> None:
        super().__init__()
        self.real, self.imaginary = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5, 8))
        self.skip, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        modes = torch.fft.rfft(x, dim=1) * torch.complex(self.real, self.imaginary)
        x = F.gelu(torch.fft.irfft(modes, n=x.shape[1], dim=1) + self.skip(x))
        return self.head(x.mean(1))


class Spectrogram(nn.Module):
    """Waveforms (B, 64) -> (B, 3): log magnitudes of a short-time Fourier transform, then a CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Linear(6, 3)
        self.register_buffer("window", torch.hann_window(16))

    def forward(self, x: Tensor) -> Tensor:
        frequencies = torch.stft(x, 16, 8, window=self.window, return_complex=True)
        image = torch.log(frequencies.abs().square() + 1e-3)[:, None]
        return self.head(F.relu(self.conv(image)).mean((2, 3)))


class MixtureOfExperts(nn.Module):
    """(B, T, 6) -> (B, 3): each token through its two best experts, weighed by their softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(6, 4), nn.Linear(6, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 6)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        weights, chosen = torch.topk(self.router(flat), 2, dim=-1)
        weights, out = torch.softmax(weights, -1), torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, place = torch.where(chosen == number)
            out.index_add_(0, rows, expert(flat[rows]) * weights[rows, place, None])
        return self.head((flat + out).view_as(x).mean(1))


class NeighbourhoodAttention(nn.Module):
    """(B, 4, 8, 8) -> (B, 3): attention over windows taken out by `unfold`."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.kv, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        query, (key, value) = self.q(x).flatten(2), self.kv(x).chunk(2, 1)
        key, value = (F.unfold(z, 3, padding=1).unflatten(1, (4, 9)) for z in (key, value))
        weights = torch.softmax(torch.einsum("bdn,bdkn->bkn", query, key) / 2, 1)
        return self.head(torch.einsum("bkn,bdkn->bdn", weights, value).mean(-1))


FAMILIES = (
    Family(
        name="transformer, encoder and decoder",
        kind=KIND,
        module=EncoderDecoder,
        inputs=in_order(floats(6, 8), floats(4, 8)),
    ),
    Family(
        name="transformer encoder, padded",
        kind=KIND,
        module=TransformerClassifier,
        inputs=ids(),
        at="embedding",
    ),
    Family(
        name="shared embedding",
        kind=KIND,
        module=SharedEmbedding,
        inputs=in_order(ids(), ids()),
        at="embed",
    ),
    Family(name="MLP-Mixer", kind=KIND, module=Mixer, inputs=floats(3, 16, 16)),
    Family(name="Fourier mixer", kind=KIND, module=FourierMixer, inputs=floats(8, 8)),
    Family(name="spectrogram CNN", kind=KIND, module=Spectrogram, inputs=floats(64)),
    Family(name="mixture of experts", kind=KIND, module=MixtureOfExperts, inputs=floats(4, 6)),
    Family(
        name="neighbourhood attention",
        kind=KIND,
        module=NeighbourhoodAttention,
        inputs=floats(4, 8, 8),
    ),
)
