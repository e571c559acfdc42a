"""Occlusion against the loop it is, and its windows."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whyglass import BadInput, Blur, Occlusion, Several


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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("baseline", [0, 7, Blur(1.0), "rows"])
def test_integers_are_hidden_as_floats_are(
    net: nn.Module, dtype: torch.dtype, baseline: Any
) -> None:
    x = torch.randint(0, 255, (2, 3, 8, 11), generator=torch.Generator().manual_seed(0)).to(dtype)
    if baseline == "rows":
        baseline = x.flip(0)
    elif callable(baseline):
        baseline = baseline(x)

    def model(z: Tensor) -> Tensor:
        return net(z.double())

    found = Occlusion(window=3)(model, x, target=1, baseline=baseline)
    floats = baseline.double() if isinstance(baseline, Tensor) else float(baseline)
    expected = Occlusion(window=3)(net, x.double(), target=1, baseline=floats)
    torch.testing.assert_close(found.values.double(), expected.values)
    assert not found.notes


def test_integers_without_a_baseline_of_integers_are_refused() -> None:
    with pytest.raises(BadInput, match="give an integer"):
        Occlusion()(lambda x: x.float().sum(1), torch.arange(8)[None])
    found = Occlusion()(lambda x: x.float().sum(1), torch.arange(8)[None], baseline=0)
    assert found.values.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("form", [tuple, dict])
def test_each_input_has_windows_of_its_own(form: Any) -> None:
    image, row = torch.rand(2, 1, 6, 6).double(), torch.rand(2, 4).double()

    def model(image: Tensor, row: Tensor) -> Tensor:
        return image.sum((1, 2, 3)) * row.sum(1)

    def pack(one: Any, other: Any) -> Any:
        return (one, other) if form is tuple else {"image": one, "row": other}

    inputs = pack(image, row)
    found = Occlusion(window=pack((2, 3), 2), stride=pack(None, 2))(model, inputs)
    values = found.values if form is tuple else tuple(found.values.values())
    for index, (leaf, window, stride) in enumerate(((image, (2, 3), None), (row, 2, 2))):
        # The score is a product of sums: with the other input as it is, a multiple of this one's.
        other = row.sum(1) if index == 0 else image.sum((1, 2, 3))
        alone = Occlusion(window=window, stride=stride)(lambda z: z.flatten(1).sum(1), leaf).values
        torch.testing.assert_close(
            values[index], alone * other.reshape(-1, *[1] * (leaf.dim() - 1))
        )
    with pytest.raises(BadInput, match="one entry for each of the inputs"):
        Occlusion(window=pack((2, 3), 2) if form is dict else (1, 2, 3))(
            model, (image, row) if form is tuple else {"image": image, "other": row}
        )


def test_an_input_without_a_feature_axis_is_one_feature() -> None:
    age, row = torch.tensor([2.0, 3.0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    alone = Occlusion()(lambda a: a**2, age)
    assert alone.values.tolist() == [4.0, 9.0]
    both = Occlusion()(lambda a, r: a * r.sum(1), (age, row)).values
    assert both[0].tolist() == [6.0, 21.0]
    assert both[1].tolist() == [[2.0, 4.0], [9.0, 12.0]]
