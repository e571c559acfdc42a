"""The engine: every spelling of an operation is one, what it cannot see is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whyglass import BadInput, DeepLIFT, Unsupported

X = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
BASE = 0.3
RAMP = torch.arange(6, dtype=torch.float64)  # the sum of standardised values does not change


def gap(function: Callable[[Tensor], Tensor], x: Tensor = X) -> float:
    """Relative completeness gap of the row sums of a function."""
    found = DeepLIFT()(lambda x: function(x).reshape(len(x), -1).sum(1), x, baseline=BASE)
    with torch.no_grad():
        expected = function(x.clone()).reshape(len(x), -1).sum(1)
    torch.testing.assert_close(found.score, expected)
    return {check.name: check for check in found.checks}["completeness"].measured


def in_place_relu(x: Tensor) -> Tensor:
    h = x * 2
    h.relu_()
    return h


def in_place_flag(x: Tensor) -> Tensor:
    h = x * 2
    F.relu(h, inplace=True)
    return h


def augmented(x: Tensor) -> Tensor:
    h = x * 1.5
    h += x
    h *= h
    h /= 3
    h -= 1
    return h.relu()


def item_assignment(x: Tensor) -> Tensor:
    h = x * 1.0
    h[:, 0] = h[:, 1] * h[:, 2]
    h[:, 3] = 7.0
    return h.relu()


def index_add(x: Tensor) -> Tensor:
    h = torch.zeros_like(x)
    h.index_add_(1, torch.tensor([1, 1, 2, 0, 0, 5]), x)
    return F.gelu(h)


SPELLINGS: list[Callable[[Tensor], Tensor]] = [
    torch.relu, F.relu, Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True), in_place_relu, in_place_flag,
    lambda x: F.hardtanh(x, min_val=-0.1, max_val=0.4), lambda x: x.clamp(-0.1, 0.4), nn.ReLU6(),
    nn.LeakyReLU(0.2), nn.ELU(), nn.CELU(), nn.SELU(), nn.GELU(), nn.GELU(approximate="tanh"),
    nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Hardsigmoid(), nn.Sigmoid(), nn.Tanh(), nn.Softplus(),
    nn.Softsign(),
    nn.LogSigmoid(), nn.PReLU().double().requires_grad_(False),
    lambda x: torch.exp(x), lambda x: (x**2 + 1).log(), lambda x: (x**2 + 1).sqrt(),
    lambda x: torch.rsqrt(x**2 + 1), lambda x: x.pow(3), lambda x: x.abs(), lambda x: 1 / (x**2 + 1),
    lambda x: 2 - x.relu(), lambda x: -x.relu(), lambda x: x.relu() / (1 + x.square().sum(1, True)),
    lambda x: torch.minimum(x, x.flip(1)), lambda x: torch.maximum(x, x.roll(1, 1)),
    lambda x: x.softmax(1) * x, lambda x: F.log_softmax(x, dim=-1) * x, lambda x: x.logsumexp(1, True),
    lambda x: F.layer_norm(x, (6,)) * RAMP, lambda x: F.rms_norm(x, (6,)),
    lambda x: F.group_norm(x, 2) * RAMP,
    lambda x: x * x, lambda x: x * x.sigmoid(), lambda x: torch.einsum("bi,bj->bij", x, x.relu()),
    lambda x: x.unsqueeze(2) @ x.relu().unsqueeze(1), lambda x: x.cumsum(1).relu(),
    lambda x: torch.bmm(x[:, :, None], x.tanh()[:, None]), lambda x: x.mean(1, True).relu(),
    lambda x: torch.cat([x[:, :3].relu(), x[:, 3:]], 1),
    lambda x: torch.stack(x.chunk(2, 1)).relu().transpose(0, 1),
    lambda x: x[:, [0, 0, 2]].relu(), lambda x: x.gather(1, torch.zeros(4, 2, dtype=torch.long)).relu(),
    lambda x: F.pad(x, (1, 2)).relu(), lambda x: x.masked_fill(torch.eye(4, 6).bool(), 2.0).relu(),
    lambda x: x.max(1).values, lambda x: x.max(1)[0], lambda x: x.min(-1).values,
    lambda x: torch.max(x, dim=1, keepdim=True)[0] * x, lambda x: x.amax(1),
    lambda x: x.amin(1, True) * x, lambda x: x.reshape(4, 2, 3).amax((-1, 1)),
    lambda x: x.reshape(4, 2, 3).max(1)[0],
    lambda x: torch.max(x, x.flip(1)), lambda x: torch.min(x, other=x.flip(1)),
    lambda x: x.var(1), lambda x: x.var(1, False), lambda x: torch.var(x, dim=1, correction=2),
    lambda x: x.std(1), lambda x: torch.std(x, (1,), correction=0, keepdim=True) * x,
    lambda x: x.norm(dim=1), lambda x: torch.norm(x, 2, 1, True) * x,
    lambda x: torch.linalg.vector_norm(x, dim=1), lambda x: torch.linalg.norm(x, ord=2, dim=1),
    lambda x: F.normalize(x), lambda x: F.normalize(x, dim=-1) * RAMP, lambda x: F.glu(x), nn.GLU(1),
    lambda x: torch.softmax(x * 300, 1) * RAMP, lambda x: torch.softmax(x, 1, torch.float64) * RAMP,
    lambda x: F.log_softmax(x * 300, 1) * RAMP, lambda x: torch.logsumexp(x * 300, (1,)),
    lambda x: x.masked_fill(torch.eye(4, 6).bool(), -torch.inf).softmax(1) * x,
    lambda x: x.gather(1, torch.tensor([[0, 5, 5, 1, 2, 2]]).expand_as(x)).relu(),
    augmented, item_assignment, index_add,
]  # fmt: skip


@pytest.mark.parametrize("function", SPELLINGS, ids=range(len(SPELLINGS)))
def test_every_operation_keeps_the_sum(function: Callable[[Tensor], Tensor]) -> None:
    assert gap(function) < 1e-12


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 1, padding=1), nn.MaxPool2d(2, ceil_mode=True),
        nn.AvgPool2d(3, 2), nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(3),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.InstanceNorm2d(2), nn.Conv2d(2, 3, 3),
        nn.ConvTranspose2d(2, 3, 3, stride=2), nn.BatchNorm2d(2), nn.Dropout2d(0.5), nn.PixelShuffle(1),
    ],
    ids=repr,
)  # fmt: skip
def test_layers_on_images(layer: nn.Module) -> None:
    images = torch.randn(
        3, 2, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    layer = layer.double().eval()
    assert gap(lambda x: torch.relu(layer(x * 2) - 0.1), images) < 1e-12


def test_reductions_over_everything() -> None:
    for reduce in (torch.max, torch.min, torch.amax, torch.var, lambda x: x.std(False), torch.norm):
        assert gap(lambda x: x * reduce(x), X[:1]) < 1e-12  # noqa: B023  used at once


def test_a_row_that_does_not_change_has_no_part() -> None:
    for function in (lambda x: x.std(1), lambda x: x.norm(dim=1), lambda x: F.normalize(x).sum(1)):
        found = DeepLIFT()(function, torch.cat([X, torch.zeros(1, 6)]))
        assert isinstance(found.values, Tensor)
        assert found.values[-1].tolist() == [0] * 6
        assert found.checks[0].measured < 1e-12


def test_a_quotient_is_the_product_rule_solved() -> None:
    x = torch.tensor([[3.0, 2.0], [3.0, -2.0]], dtype=torch.float64)
    start = torch.tensor([1.0, 4.0], dtype=torch.float64)
    found = DeepLIFT()(lambda x: x[:, 0] / x[:, 1], x, baseline=start).values
    mean = (3 / 2 + 1 / 4) / 2
    expected = [[2 / 3, -mean * -2 / 3], [2 * (-1 / 2 + 1 / 4) / 2, -2 / -8 * -6]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("norm", [F.normalize, lambda x: F.rms_norm(x, (6,), eps=1e-12)])
def test_a_norm_of_nothing_at_the_baseline_gives_no_large_values(
    norm: Callable[..., Tensor],
) -> None:
    """No 1 / eps: 2 y_0 at the component itself less y_0 x_j^2 / |x|^2 for its part in the norm."""
    found = DeepLIFT()(lambda x: norm(x)[:, 0], X)
    y = norm(X)[:, :1]
    expected = -y * F.normalize(X).square()
    expected[:, :1] += 2 * y
    torch.testing.assert_close(found.values, expected, atol=1e-4, rtol=0)
    assert found.checks[0].measured < 1e-12


def test_a_softmax_far_from_its_baseline_stays_small() -> None:
    """Exact in logarithms: w_j = L(p_j, p'_j) / sum_i L(p_i, p'_i), L the logarithmic mean."""
    x, start = X[:1] * 3, torch.zeros(6, dtype=torch.float64)
    found = DeepLIFT()(lambda x: x.logsumexp(1), x, baseline=start).values
    assert isinstance(found, Tensor)
    p, p0 = x.softmax(1), start.softmax(0)
    means = (p - p0) / (p.log() - p0.log())
    torch.testing.assert_close(found, means / means.sum() * x)
    # Peaks of 1000 at either end: neither exp fits into a double without a shift of its own.
    far, other = torch.zeros(2, 6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    far[:, 0], other[3] = 1000, 1000
    found = DeepLIFT()(lambda x: x.softmax(1)[:, 0], far, baseline=other).values
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found.sum(1), torch.ones(2, dtype=torch.float64))
    assert found.abs().max() <= 1


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(
    "settings", [{}, {"bidirectional": True, "num_layers": 2}, {"bias": False}]
)
def test_recurrent_layers(kind: type[nn.RNNBase], settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = kind(2, 5, batch_first=True, **settings).double().eval()
    assert gap(lambda x: layer(x.reshape(4, 3, 2))[0]) < 1e-12


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_cells(kind: type[nn.RNNCellBase], bias: bool) -> None:
    torch.manual_seed(0)
    cell = kind(3, 3, bias).double().eval()

    def twice(x: Tensor) -> Tensor:
        state = cell(x[:, :3])
        again = cell(x[:, 3:], state)
        return again[0] * again[1] if isinstance(again, tuple) else again

    assert gap(twice) < 1e-12


@pytest.mark.parametrize("masked", ["none", "causal", "padding", "float"])
def test_attention_with_masks(masked: str) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(6, 2, batch_first=True).double().eval()
    settings: dict[str, object] = {}
    if masked == "causal":
        settings = {"attn_mask": torch.ones(4, 4, dtype=torch.bool).triu(1)}
    if masked == "padding":
        settings = {"key_padding_mask": torch.tensor([[False, False, True, True]] * 3)}
    if masked == "float":
        settings = {"attn_mask": torch.randn(4, 4, dtype=torch.float64)}
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    assert gap(lambda x: layer(x, x.flip(1), x * 2, **settings)[0], x) < 1e-11


def test_scaled_dot_product_attention_in_all_its_forms() -> None:
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    for settings in ({}, {"is_causal": True}, {"attn_mask": mask}, {"scale": 0.2}):
        attend = F.scaled_dot_product_attention
        assert gap(lambda x: attend(x, x.tanh(), x.flip(2), **settings), x) < 1e-11  # noqa: B023  used at once


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: torch.linalg.det(torch.diag_embed(x)), "'linalg_det' has no rule"),
        (lambda x: torch.exp(torch.fft.fft(x)).real, "complex numbers"),
        (lambda x: x.reshape(4, 2, 3).norm("nuc", (1, 2)), "norm"),
    ],
)
def test_what_has_no_rule_is_named_with_its_line(
    function: Callable[[Tensor], Tensor], words: str
) -> None:
    with pytest.raises(Unsupported, match=words) as error:
        gap(function)
    assert words == "norm" or "test_interception.py:" in str(error.value)


def test_a_plain_gradient_can_be_accepted_and_is_recorded() -> None:
    method = DeepLIFT(unsupported="gradient")
    found = method(lambda x: torch.linalg.det(torch.diag_embed(x)), X)
    assert any("linalg_det" in note for note in found.notes)
    with pytest.raises(BadInput, match="unsupported"):
        DeepLIFT(unsupported="ignore")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit announces its end
def test_models_that_hide_their_operations_are_refused() -> None:
    net = nn.Sequential(nn.Linear(6, 2), nn.ReLU()).double().eval()
    for hidden in (
        torch.jit.trace(net, X),
        torch.compile(net, backend="eager"),
        torch.nn.Sequential(torch.nn.Identity(), torch.jit.trace(net, X)),
    ):
        with pytest.raises(Unsupported, match="cannot be seen"):
            DeepLIFT()(hidden, X)
