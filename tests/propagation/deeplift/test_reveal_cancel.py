"""RevealCancel: a naive version, the paper's example, batch norm, Deep SHAP with it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.propagation.lrp.test_rules import Normed, dense, merged, settled
from whyglass import Background, DeepLIFT, DeepSHAP, Several
from whyglass.propagation.deeplift.difference_method import Differences

F64 = torch.float64
CANCEL = DeepLIFT(rule="reveal-cancel")
RULES: tuple[Differences, ...] = ("rescale", "reveal-cancel")


def minimum(x: Tensor) -> Tensor:
    """min(x1, x2) as x1 - relu(x1 - x2), each sum in a layer of its own."""
    w = torch.tensor([[1.0, -1.0]], dtype=x.dtype)
    return x[:, 0] - torch.relu(nn.functional.linear(x, w))[:, 0]


@pytest.mark.parametrize(
    ("point", "rescaled"), [((2.0, 1.0), (0, 1)), ((1.0, 3.0), (1, 0)), ((2.0, 2.0), (2, 0))]
)
def test_the_minimum_of_two(point: tuple[float, float], rescaled: tuple[float, float]) -> None:
    """Shrikumar et al. (2017), section 3.5.3: Rescale gives all to one input, this half to each."""
    x = torch.tensor([point], dtype=F64)
    found = [DeepLIFT(rule=rule)(minimum, x).values for rule in RULES]
    np.testing.assert_allclose(found[0].numpy(), [rescaled], atol=1e-12)  # type: ignore[union-attr]
    np.testing.assert_allclose(found[1].numpy(), [[min(point) / 2] * 2], atol=1e-12)  # type: ignore[union-attr]


def naive(net: nn.Sequential, x: np.ndarray, base: np.ndarray, target: int) -> np.ndarray:
    """Shrikumar et al. (2017), sections 3.3 to 3.5: contributions, positive and negative apart.

    Each layer's difference from the baseline has a positive and a negative part. A ReLU turns those of
    its sum into those of its output; a linear layer mixes them by the signs of its weights.
    """
    layers = [module for module in net if isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().numpy() for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]

    def relu(t: np.ndarray) -> np.ndarray:
        return np.maximum(t, 0)

    here, there = [x], [base]
    for w, b in zip(weights, biases, strict=True):
        for run in (here, there):
            given = run[-1] if run[-1] is run[0] else relu(run[-1])
            run.append(w @ given + b)
    # Multipliers of the target with respect to what enters each linear layer, from the top.
    up = down = weights[-1][target]
    for layer in reversed(range(len(weights) - 1)):
        w, y0, y1 = weights[layer], there[layer + 1], here[layer + 1]
        below = (
            (here[layer], there[layer]) if not layer else (relu(here[layer]), relu(there[layer]))
        )
        step = below[0] - below[1]
        terms = w * step
        plus, minus = np.maximum(terms, 0).sum(1), np.minimum(terms, 0).sum(1)
        f_plus = (relu(y0 + plus) - relu(y0) + relu(y1) - relu(y0 + minus)) / 2
        f_minus = (relu(y0 + minus) - relu(y0) + relu(y1) - relu(y0 + plus)) / 2
        flat = ((y1 > 0).astype(float) + (y0 > 0)) / 2
        m_plus = np.divide(f_plus, plus, out=flat.copy(), where=plus != 0)
        m_minus = np.divide(f_minus, minus, out=flat.copy(), where=minus != 0)
        # The multiplier of the unit's output, by the sign of its own difference.
        change = relu(y1) - relu(y0)
        out = np.where(change > 0, up, np.where(change < 0, down, (up + down) / 2))
        rising, falling = np.maximum(w, 0), np.minimum(w, 0)
        up = (out * m_plus) @ rising + (out * m_minus) @ falling
        down = (out * m_plus) @ falling + (out * m_minus) @ rising
    multiplier = np.where(x > base, up, np.where(x < base, down, (up + down) / 2))
    return multiplier * (x - base)


@given(
    seed=st.integers(0, 2**31),
    widths=st.lists(st.integers(1, 9), max_size=3),
    unchanged=st.integers(0, 4),
)
@example(seed=3, widths=[4, 1], unchanged=4)  # no change but of rounding's size
@settings(max_examples=40, deadline=None)
def test_equals_the_naive_version_on_random_networks(
    seed: int, widths: list[int], unchanged: int
) -> None:
    net, draw = dense(seed, widths), np.random.default_rng(seed)
    x, base = draw.normal(size=(2, 5))
    base[:unchanged] = x[:unchanged]
    found = CANCEL(net, torch.from_numpy(x)[None], target=1, baseline=torch.from_numpy(base))
    assert isinstance(found.values, Tensor)
    np.testing.assert_allclose(found.values[0].numpy(), naive(net, x, base, 1), atol=1e-9)
    change = found.score - found.baseline_score
    torch.testing.assert_close(found.values.sum(1), change, rtol=1e-9, atol=1e-12)
    assert found.checks[0].measured < 1e-9


LAYERS: list[tuple[Callable[[], Normed], tuple[int, ...]]] = [
    (lambda: Normed(nn.Linear(5, 6), nn.BatchNorm1d(6), 6), (5,)),
    (lambda: Normed(nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), 16), (2, 6)),
    (lambda: Normed(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), 16), (2, 4, 4)),
    (lambda: Normed(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4, affine=False), 32), (2, 3, 3, 3)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
@pytest.mark.parametrize("rule", ["reveal-cancel", "reveal-cancel-dense"])
def test_batch_norm_is_joined_to_the_weights(
    rule: Differences, make: Callable[[], Normed], shape: tuple[int, ...]
) -> None:
    model = settled(make)
    assert isinstance(model, Normed)
    with torch.no_grad():
        # So that the terms of a sum carry it over the ReLU's kink.
        model.hidden.weight.mul_(5)
    x, base = torch.randn(2, 3, *shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    found, expected = (
        DeepLIFT(rule=rule)(net, x, target=Several(0, 1), baseline=base[0])
        for net in (model, merged(model))
    )
    torch.testing.assert_close(found.values, expected.values)
    assert found.checks[0].measured < 1e-12
    other = DeepLIFT(rule="rescale")(model, x, target=Several(0, 1), baseline=base[0])
    assert not torch.allclose(found.values, other.values)  # type: ignore[arg-type]


def test_batch_norm_over_positions_is_no_scale_of_the_weights() -> None:
    def make() -> nn.Module:
        return nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
        )

    model = settled(make)
    x = torch.randn(2, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = CANCEL(model, x, target=1)
    assert found.checks[0].measured < 1e-12
    # The norm stands between the sum and the ReLU, so there is no sum to look into.
    torch.testing.assert_close(found.values, DeepLIFT()(model, x, target=1).values)


def test_dense_keeps_convolutions_to_rescale() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten()).double().eval()
        head = nn.Sequential(nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
        x = torch.randn(2, 2, 5, 5, dtype=F64)
    model = nn.Sequential(features, head)
    # The head's multipliers by one rule, passed on to the pixels by the other.
    with torch.no_grad():
        hidden, start = features(x), features(torch.zeros_like(x))
    above = CANCEL(head, hidden, target=1, baseline=start[:1]).values
    multipliers = torch.where(hidden == start, 0.0, above / (hidden - start))  # type: ignore[operator]
    found = DeepLIFT(rule="reveal-cancel-dense")(model, x, target=1).values
    for rule in RULES:
        assert not torch.allclose(found, DeepLIFT(rule=rule)(model, x, target=1).values)  # type: ignore[arg-type]
    by_pixel = DeepLIFT()(lambda x: (features(x) * multipliers).sum(1), x).values
    torch.testing.assert_close(found, by_pixel)


def test_without_a_sum_before_it_the_rule_is_rescale() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.tanh(x.sin()).sum(1)

    x = torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(CANCEL(model, x).values, DeepLIFT()(model, x).values)


@pytest.mark.parametrize("rule", ["reveal-cancel", "reveal-cancel-dense"])
def test_deep_shap_is_the_mean_over_the_background(rule: Differences) -> None:
    net = dense(4, [7, 6])
    x, rows = (
        torch.randn(count, 5, dtype=F64, generator=torch.Generator().manual_seed(count))
        for count in (3, 8)
    )
    found = DeepSHAP(rule=rule)(net, x, target=2, baseline=Background(rows))
    one_by_one = torch.stack(
        [DeepLIFT(rule=rule)(net, x, target=2, baseline=row).values for row in rows]  # type: ignore[misc]
    )
    torch.testing.assert_close(found.values, one_by_one.mean(0))
    torch.testing.assert_close(found.std_error, one_by_one.std(0) / 8**0.5)
    assert found.checks[0].measured < 1e-12
    plain = DeepSHAP()(net, x, target=2, baseline=Background(rows))
    assert not torch.allclose(found.values, plain.values)  # type: ignore[arg-type]
