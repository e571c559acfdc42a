"""Operations that ordinary networks use: complete, conserved where they are linear, gradients kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from whyglass import LRP, AttnLRP, DeepLIFT, GuidedBackprop, Unsupported

X = torch.randn(3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
W = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
C = torch.randn(8, dtype=torch.complex128, generator=torch.Generator().manual_seed(5))
INDEX = torch.tensor([[0, 3, 3, 1, 7, 2, 2, 0]]).expand(3, -1)
Function = Callable[[Tensor], Tensor]


def image(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(1)], 1).reshape(-1, 1, 4, 4)


def mixed_by_fourier(x: Tensor) -> Tensor:
    """FNet's mixing of tokens and features."""
    return torch.fft.fft(torch.fft.fft(x.reshape(-1, 2, 4), dim=-1), dim=-2).real


def spectral(x: Tensor) -> Tensor:
    """Weights on frequencies."""
    return torch.fft.irfft(torch.fft.rfft(x) * C[:5], n=8)


def gated_frequencies(x: Tensor) -> Tensor:
    """ReLU on real and imaginary parts."""
    spectrum = torch.fft.rfft(x)
    return torch.fft.irfft(torch.complex(spectrum.real.relu(), spectrum.imag.relu()), n=8)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions by complex numbers."""
    return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 4, 2)) * C[:4])


def experts(x: Tensor) -> Tensor:
    """Each row to its two experts, weighed by the router."""
    weights, chosen = torch.topk(torch.softmax(x @ W[:, :4], -1), 2, dim=-1)
    weights = weights / weights.sum(-1, keepdim=True)
    result = torch.zeros_like(x)
    for expert in range(4):
        row, slot = torch.where(chosen == expert)
        if len(row):
            part = torch.relu(x[row] @ W.roll(expert, 0)) * weights[row, slot, None]
            result.index_add_(0, row, part)
    return result


def switched(x: Tensor) -> Tensor:
    """One-hot routing to one expert."""
    router = torch.softmax(x @ W[:, :2], -1)
    one_hot = F.one_hot(router.argmax(-1), 2).to(x)
    both = torch.stack([x @ W, (x @ W.T).relu()], 1)
    return (both * (router * one_hot).unsqueeze(-1)).sum(1)


def scanned(x: Tensor) -> Tensor:
    """A state space scan that keeps its state in a buffer."""
    state, outputs = torch.zeros_like(x[:, :2]), []
    for step in x.reshape(-1, 4, 2).unbind(1):
        state.copy_(state * torch.exp(-F.softplus(step)) + step * 0.5)
        outputs.append(state.clone())
    return torch.stack(outputs, 1)


def graph_layer(x: Tensor) -> Tensor:
    nodes = x.reshape(-1, 4, 2)
    source, sink = torch.tensor([0, 1, 2, 3, 1]), torch.tensor([1, 2, 3, 0, 0])
    summed = torch.zeros_like(nodes).index_add(1, sink, nodes[:, source])
    return (summed + nodes).relu()


LINEAR: dict[str, Function] = {
    "fft real": mixed_by_fourier,
    "rfft": spectral,
    "fft2": lambda x: torch.fft.ifft2(torch.fft.fft2(image(x)) * C[0]).real,
    "fftn": lambda x: torch.fft.fftn(x).imag,
    "rfft2": lambda x: torch.fft.irfft2(torch.fft.rfft2(image(x)) * C[:3], s=(4, 4)),
    "fftshift": lambda x: torch.fft.fftshift(torch.fft.fft(x)).real,
    "rotary": rotated,
    "complex matrix": lambda x: torch.einsum(
        "bi,ij->bj", torch.complex(x, 2 * x), torch.outer(C, C)).real,
    "stft": lambda x: torch.view_as_real(torch.stft(
        x, 4, 2, window=torch.ones(4, dtype=x.dtype), return_complex=True)),
    "cumsum": lambda x: x.cumsum(1),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, INDEX[:, [0, 1, 3, 4]], x[:, :4]),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, INDEX, x),
    "scatter_add_": lambda x: torch.zeros_like(x).scatter_add_(1, INDEX, x),
    "scatter_reduce": lambda x: torch.zeros_like(
        x).scatter_reduce(1, INDEX, x, "mean", include_self=False),
    "index_add": lambda x: torch.zeros_like(x).index_add(1, INDEX[0], x, alpha=2),
    "index_put": lambda x: torch.zeros_like(x).index_put(
        (torch.tensor([0, 1]), torch.tensor([2, 3])), x[:2, 0], accumulate=True),
    "index_copy": lambda x: torch.zeros_like(x).index_copy(1, torch.arange(8).flip(0), x),
    "unfold": lambda x: x.unfold(1, 3, 2),
    "F.unfold and fold": lambda x: F.fold(F.unfold(image(x), 2), (4, 4), 2),
    "grid_sample": lambda x: F.grid_sample(
        image(x), W[:3, :8].reshape(3, 2, 2, 2).tanh(), align_corners=False),
    "affine_grid": lambda x: F.affine_grid(
        x[:, :6].reshape(-1, 2, 3), [3, 1, 2, 2], align_corners=False),
    "pixel_shuffle": lambda x: F.pixel_shuffle(torch.cat([image(x)] * 4, 1), 2),
    "pixel_unshuffle": lambda x: F.pixel_unshuffle(image(x), 2),
    "channel_shuffle": lambda x: F.channel_shuffle(torch.cat([image(x)] * 4, 1), 2),
    "interpolate": lambda x: F.interpolate(image(x), scale_factor=2.0, mode="bilinear"),
    "einsum of one": lambda x: torch.einsum("bi->ib", x),
    "einsum with weights": lambda x: torch.einsum("...i,ij->...j", x, W),
    "einsum of three": lambda x: torch.einsum("bi,ij,jk->bk", x, W, W),
    "tensordot": lambda x: torch.tensordot(x, W, 1),
    "sort": lambda x: x.sort(1).values, "argsort and gather": lambda x: x.gather(1, x.argsort(1)),
    "topk": lambda x: x.topk(3, 1).values, "median": lambda x: x.median(1).values,
    "quantile": lambda x: x.quantile(0.25, dim=1), "kthvalue": lambda x: x.kthvalue(2, 1).values,
    "cummax": lambda x: x.cummax(1).values,
    "roll and flip": lambda x: x.roll(2, 1).flip(1), "rows": lambda x: torch.stack(list(x.T)),
    "diff": lambda x: x.diff(dim=1), "rot90": lambda x: image(x).rot90(1, (2, 3)),
    "masked_select": lambda x: x.masked_select(W[:3] > 0), "take": lambda x: x.take(INDEX),
    "diagonal_scatter": lambda x: torch.zeros(8, 8, dtype=x.dtype).diagonal_scatter(x[0]),
    "max_unpool": lambda x: F.max_unpool2d(*F.max_pool2d(image(x), 2, return_indices=True), 2),
}  # fmt: skip
CURVED: dict[str, Function] = {
    "fft and gates": gated_frequencies,
    "fft modulus": lambda x: torch.fft.rfft(x).abs(),
    "complex product": lambda x: (torch.fft.fft(x) * torch.fft.fft(x.tanh())).real,
    "experts": experts, "switch": switched, "scan": scanned, "graph": graph_layer,
    "logsumexp": lambda x: x.logsumexp(1), "erf": torch.erf, "special.erf": torch.special.erf,
    "expit": torch.special.expit, "prod": lambda x: x[:, :3].prod(1), "cumprod": lambda x: x.cumprod(1),
    "einsum of itself": lambda x: torch.einsum("bi,bj,bk->bijk", x, x.relu(), x.tanh()),
    "norms": lambda x: torch.stack([x.norm(p, 1) for p in (1, 2, 3, float("inf"))]),
    "cosine": lambda x: F.cosine_similarity(x[:, :4], x[:, 4:]),
    "powers": lambda x: 2.0**x + (x * x + 1) ** x.tanh(), "clamped": lambda x: x.clamp(x.flip(1), None),
    "moving grid": lambda x: F.grid_sample(
        image(x), image(x)[:, 0, :2].reshape(-1, 2, 2, 2).tanh(), align_corners=True),
    "rounded": lambda x: x.round() + x.floor() * x.sign(),
    "lp_pool": lambda x: F.lp_pool2d(image(x).exp(), 2, 2),
    "xlogy": lambda x: torch.xlogy(x, x.exp() + 1),
    "lerp": lambda x: torch.lerp(x, x.flip(1), x.sigmoid()),
    "var_mean": lambda x: torch.stack(torch.var_mean(x, 1)),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(1)),
    "aminmax": lambda x: torch.stack(torch.aminmax(x, dim=1)), "softmin": lambda x: F.softmin(x, 1) * x,
    "local response": lambda x: F.local_response_norm(image(x).expand(-1, 4, -1, -1), 3),
    "hyper network": lambda x: F.linear(x, x[:1].T * W, x[0]),
    "where by index": lambda x: torch.where(INDEX > 2, x, x.tanh()),
}  # fmt: skip


class Around(nn.Module):
    """A layer, the function, and what is read off it."""

    def __init__(self, function: Function, squash: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.function, self.squash = nn.Linear(8, 8).double(), function, squash

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        y = self.function(torch.relu(h) if self.squash else h).reshape(1, -1)
        return (y * torch.linspace(0.5, 1.5, y.shape[1], dtype=x.dtype)).sum(1)


def around(function: Function, squash: bool = True) -> Callable[[Tensor], Tensor]:
    network = Around(function, squash).eval()
    # All rows at once are one, for functions that need more than one.
    return lambda x: network(x.reshape(3, 8))


@pytest.mark.parametrize("name", [*LINEAR, *CURVED])
def test_deeplift_is_complete(name: str) -> None:
    network = around({**LINEAR, **CURVED}[name])
    x = X.reshape(1, -1)
    explanation = DeepLIFT()(network, x, baseline=0.1)
    torch.testing.assert_close(explanation.score, network(x))
    assert explanation.checks[0].measured < 1e-9
    if not any("constants" in note for note in explanation.notes):
        torch.testing.assert_close(explanation.baseline_score, network(torch.full_like(x, 0.1)))


@pytest.mark.parametrize("name", LINEAR)
def test_lrp_conserves_relevance_through_linear_maps(name: str) -> None:
    """Without biases nothing absorbs relevance, and LRP-0 is the gradient times the input."""
    network, x = around(LINEAR[name], squash=False), X.reshape(1, -1)
    for method in (LRP(rule="epsilon", bias="ignore"), LRP(rule="zero", bias="ignore")):
        explanation = method(network, x)
        assert explanation.checks[0].measured < 1e-2, explanation.checks[0]


@pytest.mark.parametrize("name", [*LINEAR, *CURVED])
def test_lrp_and_guided_backprop_pass(name: str) -> None:
    function = {**LINEAR, **CURVED}[name]
    x = X.reshape(1, -1)
    for method in (LRP(), LRP(rule="epsilon"), AttnLRP()):
        assert method(around(function), x).values.isfinite().all()
    if name not in {"fft and gates", "experts", "switch", "scan", "graph", "einsum of itself"}:
        network = around(function, squash=False)
        values = GuidedBackprop()(network, x).values
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network(leaf).sum(), leaf)
        torch.testing.assert_close(values, gradient)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "settings", [{}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True}]
)
def test_packed_sequences(kind: type[nn.RNNBase], settings: dict[str, object]) -> None:
    """Rows of several lengths, sorted or not: what torch computes, and complete."""
    torch.manual_seed(0)
    first = bool(settings.get("batch_first"))
    layer = kind(2, 5, **settings).double().eval()

    def network(x: Tensor) -> Tensor:
        sequences = x.reshape(3, 4, 2) if first else x.reshape(3, 4, 2).transpose(0, 1)
        packed = pack_padded_sequence(
            sequences, torch.tensor([2, 4, 3]), batch_first=first, enforce_sorted=False
        )
        output, state = layer(packed)
        padded, _ = pad_packed_sequence(output, batch_first=first)
        hidden = state[0] if isinstance(state, tuple) else state
        return (padded.sum() + (hidden * hidden).sum()).reshape(1)

    x = X.reshape(1, -1)
    for method in (LRP(), LRP(rule="epsilon"), DeepLIFT(), GuidedBackprop()):
        explanation = method(network, x)
        torch.testing.assert_close(explanation.score, network(x).detach())
        values = explanation.values.reshape(3, 4, 2)
        assert values.isfinite().all()
        # What is beyond a row's end takes no part.
        assert not values[0, 2:].any()
        assert not values[2, 3:].any()
    assert DeepLIFT()(network, x, baseline=0.1).checks[0].measured < 1e-10


def test_a_recurrent_layer_with_a_projection() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(4, 6, proj_size=3, num_layers=2, bidirectional=True, batch_first=True)
    layer = layer.double().eval()
    explanation = DeepLIFT()(lambda x: layer(x.reshape(-1, 2, 4))[0].sum((1, 2)), X, baseline=0.2)
    torch.testing.assert_close(
        explanation.score, layer(X.reshape(-1, 2, 4))[0].sum((1, 2)).detach()
    )
    assert explanation.checks[0].measured < 1e-12


def test_what_is_chosen_is_constant_and_told() -> None:
    explanation = DeepLIFT()(experts, X, target=0, baseline=-X)
    note = next(note for note in explanation.notes if "constants of the network" in note)
    assert "topk" in note or "argsort" in note
    assert explanation.checks[0].measured < 1e-9


def test_a_branch_in_python_is_told() -> None:
    def network(x: Tensor) -> Tensor:
        return x.sum(1) if bool(x.sum() > 0) else 2 * x.sum(1)

    explanation = DeepLIFT()(network, X[:1].abs(), baseline=-X[:1].abs())
    assert any("gt" in note for note in explanation.notes)
    assert not any("gt" in note for note in DeepLIFT()(network, X[:1].abs(), baseline=0.1).notes)


def test_a_moving_grid_without_a_rule_is_refused() -> None:
    for settings in ({"mode": "bicubic"}, {"padding_mode": "reflection"}):

        def network(x: Tensor, settings: dict[str, str] = settings) -> Tensor:
            grid = x[:, :8].reshape(-1, 2, 2, 2).tanh()
            return F.grid_sample(image(x), grid, align_corners=False, **settings).sum((1, 2, 3))

        for method in (LRP(), DeepLIFT()):
            with pytest.raises(Unsupported, match="positions that depend on the input"):
                method(network, X)


def test_what_has_no_rule_of_complex_numbers_is_refused() -> None:
    for method in (LRP(), DeepLIFT()):
        with pytest.raises(Unsupported, match="'exp' of complex numbers has no rule"):
            method(lambda x: torch.fft.fft(x).exp().real, X, target=0)


MASKED: list[tuple[Function, Function]] = [
    (lambda x: x * (x > 0), torch.relu),
    (lambda x: (x >= 0) * x, torch.relu),
    (lambda x: x * (x > 0).to(x.dtype), torch.relu),
    (lambda x: x * (x > 0).double(), torch.relu),
    (lambda x: torch.where(x > 0, x, 0.0), torch.relu),
    (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), torch.relu),
    (lambda x: torch.where(~(x <= 0), x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1)),
    (lambda x: x.masked_fill(x < 0, 0.0), torch.relu),
    (lambda x: x * ((x > 0) & (x > -5)), torch.relu),
    (lambda x: torch.where((x < -9) | (x < 0), 0.0, x), torch.relu),
    (lambda x: torch.where((x > 0)[:, :], x, -x), torch.abs),
    (lambda x: torch.where(x.unsqueeze(1) > 0, x.unsqueeze(1), 0.0).squeeze(1), torch.relu),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(MASKED)))
def test_a_comparison_is_a_step_function(number: int) -> None:
    """A ReLU written with a mask has the multipliers of ReLU, by completeness of one number."""
    masked, plain = MASKED[number]
    for baseline in (0.1, -0.3):
        explanation = DeepLIFT()(lambda x: masked(x).sum(1), X, baseline=baseline)
        expected = DeepLIFT()(lambda x: plain(x).sum(1), X, baseline=baseline)
        torch.testing.assert_close(explanation.values, expected.values)
        torch.testing.assert_close(explanation.baseline_score, expected.baseline_score)
        assert not any("constants" in note for note in explanation.notes)


def test_masks_between_numbers_are_complete() -> None:
    def network(x: Tensor) -> Tensor:
        y = x.flip(1).tanh()
        kept = torch.where((x > y) & (x + y > 0.2), x * y, y.exp())
        return (kept * (y <= x).double().mean(1, keepdim=True) + (x != y).sum(1, True)).sum(1)

    explanation = DeepLIFT()(network, X, baseline=0.1)
    torch.testing.assert_close(explanation.baseline_score, network(torch.full_like(X, 0.1)))
    assert explanation.checks[0].measured < 1e-12
    assert not any("constants" in note for note in explanation.notes)
