"""Passes that run again, choices of another length at the baseline, extremes beside huge bounds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whyglass import LRP, DeepLIFT, Method, WeightOfEvidence

F64 = torch.float64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("method", [DeepLIFT(), WeightOfEvidence(), LRP()], ids=lambda m: m.name)
def test_a_network_that_draws_numbers_to_no_effect_has_one_pass_a_piece(method: Method) -> None:
    x, weight = drawn(4, 3), drawn(3, 2, seed=1)

    def draws(z: Tensor) -> Tensor:
        return torch.relu(z) @ weight + 0 * torch.rand(1, dtype=F64)

    expected = method(lambda z: torch.relu(z) @ weight, x, target=0)
    for size in ("auto", 2):
        found = method(draws, x, target=0, batch_size=size)
        torch.testing.assert_close(found.values, expected.values)
        assert found.verdict == expected.verdict


def experts(x: Tensor) -> Tensor:
    """As many rounds as there are experts that some row chooses; at zero all rows choose the first."""
    flat, out = x.flatten(0, 1), torch.zeros_like(x.flatten(0, 1))
    chosen = (flat[:, :3] + torch.tensor([1e-3, 0, 0], dtype=F64)).argmax(1)
    for number in chosen.unique():
        (rows,) = torch.where(chosen == number)
        out = out.index_add(0, rows, torch.tanh(flat[rows] * (number + 1.0)))
    return out.view_as(x).sum((1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_over_choices_is_the_one_of_the_input(seed: int) -> None:
    found = DeepLIFT()(experts, drawn(2, 4, 3, seed=seed))
    assert found.verdict == "pass"
    assert any("as at the inputs" in note for note in found.notes)


@pytest.mark.parametrize("bound", [0.3, 1e9, 1e38])
@pytest.mark.parametrize("seed", range(3))
def test_extremes_beside_a_huge_bound_lose_no_digit(bound: float, seed: int) -> None:
    """A running maximum starts at -1e38, and a mask is as large."""
    x, weight = drawn(3, 4, seed=seed), drawn(4, 4, seed=9)

    def model(z: Tensor) -> Tensor:
        z = z @ weight
        high = torch.maximum(torch.full_like(z, -bound), z)
        low = torch.minimum(z + 1, torch.full_like(z, bound))
        return (torch.exp(z - torch.maximum(high, z + 0.3)) + high * low).sum(1)

    found = DeepLIFT()(model, x)
    gap = found.values.sum(1) - (found.score - found.baseline_score)  # type: ignore[operator,union-attr]
    assert gap.abs().max() <= 1e-12 * found.values.abs().sum()  # type: ignore[union-attr]


def test_in_place_on_a_part_whose_whole_is_gone() -> None:
    x = drawn(2, 8)

    def model(z: Tensor) -> Tensor:
        left, right = (z * 2).chunk(2, 1)
        left.relu_()
        right.tanh_().mul_(3)
        return (left * right).sum(1)

    def plain(z: Tensor) -> Tensor:
        left, right = (z * 2).chunk(2, 1)
        return (torch.relu(left) * torch.tanh(right) * 3).sum(1)

    for method in (DeepLIFT(), LRP()):
        torch.testing.assert_close(
            method(model, x).values, method(plain, x).values, atol=1e-5, rtol=1e-5
        )
