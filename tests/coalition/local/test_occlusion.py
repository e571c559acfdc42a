"""Occlusion against the loop it is, and its windows."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from whyglass import BadInput, Occlusion, Several


def naive(
    model: nn.Module, x: Tensor, window: int, stride: int, base: float, target: int
) -> Tensor:
    """Zeiler & Fergus (2014), section 4.2, one window and one row at a time."""
    total, count = torch.zeros_like(x[:, :1]), torch.zeros_like(x[:, :1])
    height, width = x.shape[2:]
    tops = sorted({*range(0, height - window + 1, stride), height - window})
    lefts = sorted({*range(0, width - window + 1, stride), width - window})
    for row, top, left in itertools.product(range(len(x)), tops, lefts):
        hidden = x[row : row + 1].clone()
        hidden[:, :, top : top + window, left : left + window] = base
        with torch.no_grad():
            fall = model(x[row : row + 1])[0, target] - model(hidden)[0, target]
        total[row, 0, top : top + window, left : left + window] += fall
        count[row, 0, top : top + window, left : left + window] += 1
    return total / count


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 6 * 9, 3)
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (4, 4), (8, 1), (1, 1)])
def test_equals_the_loop(net: nn.Module, window: int, stride: int) -> None:
    x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
    found = Occlusion(window=window, stride=stride)(net, x, target=1, baseline=0.3)
    torch.testing.assert_close(found.values, naive(net, x, window, stride, 0.3, 1))


def test_many_targets_at_the_price_of_one(net: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 11, dtype=torch.float64)
    both = Occlusion(window=4)(net, x, target=Several(0, 2))
    assert isinstance(both.values, Tensor)
    for k, target in enumerate((0, 2)):
        one = Occlusion(window=4)(net, x, target=target)
        torch.testing.assert_close(both.values[..., k], one.values)
        assert one.evaluations == both.evaluations


def test_leave_one_out_on_a_table_and_two_inputs() -> None:
    a, b = torch.tensor([[2.0, 3.0]]), torch.tensor([[5.0]])
    found = Occlusion()(lambda a, b: a[:, 0] * b[:, 0] + a[:, 1], (a, b)).values
    assert isinstance(found, tuple)
    assert found[0].tolist() == [[10, 3]]
    assert found[1].tolist() == [[10]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 9}, "larger than the input"),
        ({"window": (3, 3, 3)}, "axes"),
        ({"window": 2, "stride": 3}, "gaps"),
        ({"window": 0}, "positive integer"),
        ({"window": 1.5}, "positive integer"),
    ],
)
def test_windows_that_make_no_sense(net: nn.Module, settings: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Occlusion(**settings)(net, torch.randn(1, 3, 8, 11, dtype=torch.float64))
