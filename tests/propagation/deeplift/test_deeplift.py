"""DeepLIFT and Deep SHAP: the book's figures, a naive version, means of runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.zoo.networks import ZOO
from whyglass import Background, DeepLIFT, DeepSHAP, Mean, Several

F64 = torch.float64


def book(x: Tensor) -> Tensor:
    """NND2 chapter 9, P9.1."""
    first = torch.tensor([[1.0, -1], [-1, 1]], dtype=F64)
    second = torch.tensor([[1.0, 1], [-1, -1]], dtype=F64)
    return torch.relu(x @ first.T - 0.5) @ second.T + torch.tensor([-1.0, 1], dtype=F64)


def exercise(x: Tensor) -> Tensor:
    """E9.2."""
    first = torch.tensor([[1.0, -1], [-1, 1], [0, -1]], dtype=F64)
    second = torch.tensor([[1.0, 1, 1], [-1, -1, -1]], dtype=F64)
    hidden = torch.relu(x @ first.T + torch.tensor([-5.0, -5, -3], dtype=F64))
    return hidden @ second.T + torch.tensor([-1.0, 1], dtype=F64)


@pytest.mark.parametrize(
    ("network", "point", "target", "baseline", "expected"),
    [
        (book, (0, 3), 0, (0, 0), (0, 2.5)),
        (book, (3, 3), 1, (0, 3), (2.5, 0)),
        (exercise, (0, -5), 0, (0, 0), (0, 2)),
        (exercise, (0, -5), 0, (3, 0), (0, 2)),
        (exercise, (0, -5), 0, (0, 5), (0, 2)),
        (exercise, (0, -5), 0, (6, 0), (-6, 7)),
        (exercise, (0, -5), 0, (9, 0), (-9, 7)),
        (exercise, (0, -5), 0, (3, -5), (-3, 0)),
        (exercise, (3, 0), 1, (9, 0), (4, 0)),
        (exercise, (3, 0), 1, (0, -5), (0, 2)),
        (exercise, (3, 0), 1, (0, 6), (1 / 3, 2 / 3)),
        (exercise, (3, 0), 1, (0, 9), (1, 3)),
    ],
)
def test_figures_of_the_book(
    network: object, point: tuple[float, float], target: int, baseline: tuple[float, float],
    expected: tuple[float, float],
) -> None:  # fmt: skip
    x, start = torch.tensor([point], dtype=F64), torch.tensor(baseline, dtype=F64)
    found = DeepLIFT()(network, x, target=target, baseline=start).values  # type: ignore[arg-type]
    assert isinstance(found, Tensor)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def test_saturation_that_the_gradient_does_not_see() -> None:
    found = DeepLIFT()(lambda x: 1 - torch.relu(1 - x[:, 0]), torch.tensor([[2.0]]))
    assert found.values.tolist() == [[1.0]]  # type: ignore[union-attr]


def test_two_networks_of_one_function_differ_as_published() -> None:
    """Sundararajan et al. (2017), figure 7: DeepLIFT is not implementation invariant."""
    x = torch.tensor([[3.0, 1.0]], dtype=F64)

    def one(x: Tensor) -> Tensor:
        z = torch.relu(x)
        return torch.relu(z[:, 0] - 1 - z[:, 1])

    def other(x: Tensor) -> Tensor:
        z = torch.relu(x)
        return torch.relu(torch.relu(z[:, 0] - 1) - z[:, 1])

    found = [DeepLIFT()(net, x).values[0].tolist() for net in (one, other)]  # type: ignore[index]
    assert sorted(found) == [[1.5, -0.5], [2.0, -1.0]]


def naive(weights: list[np.ndarray], biases: list[np.ndarray], x: np.ndarray, base: np.ndarray,
          target: int) -> np.ndarray:  # fmt: skip
    """Shrikumar et al. (2017), equations 3 and 5 and the Rescale rule, on a ReLU network."""
    inputs, before = [x], [base]
    sums, sums_before = [], []
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        sums.append(w @ inputs[-1] + b)
        sums_before.append(w @ before[-1] + b)
        last = layer == len(weights) - 1
        inputs.append(sums[-1] if last else np.maximum(sums[-1], 0))
        before.append(sums_before[-1] if last else np.maximum(sums_before[-1], 0))
    multiplier = weights[-1][target]
    for layer in reversed(range(len(weights) - 1)):
        step = sums[layer] - sums_before[layer]
        change = inputs[layer + 1] - before[layer + 1]
        slope = np.divide(change, step, out=(sums[layer] > 0).astype(float), where=step != 0)
        multiplier = (multiplier * slope) @ weights[layer]
    return multiplier * (x - base)


@given(st.integers(0, 2**31), st.lists(st.integers(1, 9), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_equals_the_naive_version_on_random_networks(seed: int, widths: list[int]) -> None:
    draw = np.random.default_rng(seed)
    sizes = [5, *widths, 3]
    weights = [draw.normal(size=(b, a)) for a, b in itertools.pairwise(sizes)]
    biases = [draw.normal(size=b) for b in sizes[1:]]
    layers: list[nn.Module] = []
    for w, b in zip(weights, biases, strict=True):
        linear = nn.Linear(*w.shape[::-1]).double()
        linear.load_state_dict({"weight": torch.from_numpy(w), "bias": torch.from_numpy(b)})
        layers += [linear, nn.ReLU()]
    net = nn.Sequential(*layers[:-1]).eval()
    x, base = draw.normal(size=5), draw.normal(size=5)
    found = DeepLIFT()(net, torch.from_numpy(x)[None], target=1, baseline=torch.from_numpy(base))
    np.testing.assert_allclose(
        found.values[0].numpy(),
        naive(weights, biases, x, base, 1),
        atol=1e-9,  # type: ignore[index]
    )


def test_deep_shap_is_the_mean_of_deeplift() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 9), nn.GELU(), nn.Linear(9, 3)).double().eval()
    x, rows = torch.randn(3, 4, dtype=F64), torch.randn(7, 4, dtype=F64)
    found = DeepSHAP()(net, x, target=2, baseline=Background(rows))
    one_by_one = torch.stack(
        [DeepLIFT()(net, x, target=2, baseline=row).values for row in rows]  # type: ignore[misc]
    )
    torch.testing.assert_close(found.values, one_by_one.mean(0))
    torch.testing.assert_close(found.std_error, one_by_one.std(0) / 7**0.5)
    assert found.checks[0].measured < 1e-12
    several = DeepSHAP()(net, x, target=Several(0, 2), baseline=Background(rows), batch_size=5)
    assert isinstance(several.values, Tensor)
    torch.testing.assert_close(several.values[..., 1], found.values)
    mean = DeepLIFT()(net, x, target=2, baseline=Mean(rows))
    assert not torch.allclose(mean.values, found.values)  # type: ignore[arg-type]


def test_deep_shap_at_a_layer() -> None:
    net = ZOO["tokens"]
    model = net.make()
    found = DeepSHAP()(model, net.inputs(), at=net.at, baseline=Background(net.inputs(4)))
    assert found.checks[0].measured < 1e-9


@pytest.mark.parametrize("function", [torch.relu, torch.abs, lambda x: x.clamp(-0.5, 0.5)])
def test_memory_in_another_order(function: Callable[[Tensor], Tensor]) -> None:
    """Transposed tensors and channels last, with places that the baseline does not change."""
    generator = torch.Generator().manual_seed(0)
    x, start = torch.randn(2, 2, 3, 4, 5, dtype=F64, generator=generator).unbind(0)
    start[:, :, :2] = x[:, :, :2]
    weights = torch.randn(2, 4, 5, 3, dtype=F64, generator=generator)

    def network(x: Tensor) -> Tensor:
        return (function(x.movedim(1, 3)) * weights).sum((1, 2, 3))

    found = DeepLIFT()(network, x, baseline=start)
    plain = DeepLIFT()(
        lambda x: (function(x) * weights.movedim(3, 1)).sum((1, 2, 3)), x, baseline=start
    )
    assert found.verdict == "pass"
    torch.testing.assert_close(found.values, plain.values)
    channels_last = x.to(memory_format=torch.channels_last)
    assert not channels_last.is_contiguous()
    other = DeepLIFT()(network, channels_last, baseline=start)
    torch.testing.assert_close(other.values, plain.values)
