"""Filled pixels against the equations of the scheme one by one, and what holds exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from whyglass import BadInput, ExactShapley, Inpaint, IntegratedGradients
from whyglass.coalition.game.inpainting import SWEEPS, inpaint


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def patches(height: int, width: int, seed: int = 0) -> Tensor:
    """(1, 1, H, W): a quarter of the 3 x 3 patches present."""
    coarse = draw(seed, -(-height // 3), -(-width // 3)) > 0.6
    return coarse.repeat_interleave(3, 0).repeat_interleave(3, 1)[None, None, :height, :width]


def naive(image: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """One channel (H, W), pixel by pixel."""
    height, width = image.shape
    if keep.all() or image.size == 1:
        return np.where(keep, image, 0)
    half = (height + 1) // 2, (width + 1) // 2
    coarse, some = np.zeros(half), np.zeros(half, bool)
    for i, j in np.ndindex(*half):
        block = np.s_[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        some[i, j] = keep[block].any()
        if some[i, j]:
            coarse[i, j] = image[block][keep[block]].mean()
    coarse = naive(coarse, some)
    filled = image.copy()

    def at(place: float, size: int) -> tuple[int, int, float]:
        place = min(max(place, 0), size - 1)
        return int(place), min(int(place) + 1, size - 1), place - int(place)

    for y, x in zip(*(~keep).nonzero(), strict=True):
        top, bottom, down = at((y + 0.5) / 2 - 0.5, half[0])
        left, right, across = at((x + 0.5) / 2 - 0.5, half[1])
        upper = coarse[top, left] * (1 - across) + coarse[top, right] * across
        lower = coarse[bottom, left] * (1 - across) + coarse[bottom, right] * across
        filled[y, x] = upper * (1 - down) + lower * down
    for _ in range(SWEEPS):
        for parity in (1, 0):
            for y, x in zip(*(~keep).nonzero(), strict=True):
                if (y + x) % 2 == parity:
                    ys, xs = (
                        np.clip([y - 1, y + 1], 0, height - 1),
                        np.clip([x - 1, x + 1], 0, width - 1),
                    )
                    filled[y, x] = (
                        filled[ys[0], x] + filled[ys[1], x] + filled[y, xs[0]] + filled[y, xs[1]]
                    ) / 4
    return filled


@pytest.mark.parametrize("size", [(16, 16), (13, 10), (1, 7), (5, 1)])
def test_pixel_by_pixel(size: tuple[int, int]) -> None:
    images, keep = draw(1, 2, 3, *size), patches(*size, seed=3).expand(2, 1, *size).clone()
    keep[1] = patches(*size, seed=4)
    keep[:, :, 0, 0] = True
    result = inpaint(images, keep)
    for row in range(2):
        for channel in range(3):
            expected = naive(images[row, channel].numpy(), keep[row, 0].numpy())
            torch.testing.assert_close(result[row, channel], torch.from_numpy(expected))


def test_near_the_harmonic_filling() -> None:
    """Laplace's equation solved, on a smooth image of which a quarter is present."""
    size = 24
    y, x = torch.meshgrid(*2 * [torch.linspace(-1, 1, size).double()], indexing="ij")
    image = torch.sin(2 * x + y) + x * y
    keep = patches(size, size)[0, 0]
    matrix, right = np.eye(size * size), np.zeros(size * size)
    for i, j in np.ndindex(size, size):
        if keep[i, j]:
            right[i * size + j] = image[i, j]
            continue
        for di, dj in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            k, m = np.clip(i + di, 0, size - 1), np.clip(j + dj, 0, size - 1)
            matrix[i * size + j, k * size + m] -= 0.25
    solved = torch.from_numpy(np.linalg.solve(matrix, right)).reshape(size, size)
    result = inpaint(image[None, None], keep[None, None])[0, 0]
    off = (result - solved)[~keep].abs()
    assert off.mean() < 0.03 * image.std()
    assert off.max() < 0.15 * image.std()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_present_stays_and_a_constant_image_too(dtype: torch.dtype) -> None:
    images, keep = draw(0, 2, 3, 21, 30).to(dtype), patches(21, 30)
    result = inpaint(images, keep)
    assert result.dtype == dtype
    assert torch.equal(result[:, :, keep[0, 0]], images[:, :, keep[0, 0]])
    assert not torch.equal(result, images)
    flat = torch.full((1, 1, 21, 30), 0.7, dtype=dtype)
    torch.testing.assert_close(inpaint(flat, keep), flat)
    assert torch.equal(inpaint(images, torch.ones_like(keep)), images)


def test_linear_and_between_the_extremes_of_what_is_present() -> None:
    one, other, keep = draw(0, 1, 2, 17, 17), draw(1, 1, 2, 17, 17), patches(17, 17)
    both = inpaint(2 * one - 3 * other, keep)
    torch.testing.assert_close(both, 2 * inpaint(one, keep) - 3 * inpaint(other, keep))
    seen, filled = one[:, :1, keep[0, 0]], inpaint(one, keep)[:, 0]
    assert seen.min() <= filled.min()
    assert filled.max() <= seen.max()
    # What is absent has no say.
    torch.testing.assert_close(inpaint(torch.where(keep, one, other), keep), inpaint(one, keep))


def test_nothing_present_is_the_mean_colour() -> None:
    images = draw(0, 2, 3, 9, 9)
    result = inpaint(images, torch.zeros(2, 1, 9, 9, dtype=torch.bool))
    torch.testing.assert_close(result, images.mean((2, 3), keepdim=True).expand_as(images))


def test_in_a_game_of_windows() -> None:
    """Four players, each coalition filled by hand; a constant image gives nobody anything."""
    x = draw(5, 2, 3, 8, 8)
    weights = draw(6, 3, 8, 8)

    def model(images: Tensor) -> Tensor:
        return (images * weights).sum((1, 2, 3)).tanh()

    result = ExactShapley(players=2)(model, x, baseline=Inpaint())
    mask = result.players[0]
    table = []
    for number in range(16):
        keep = torch.tensor([number >> player & 1 > 0 for player in range(4)])[mask]
        table.append(model(inpaint(x, keep.expand(2, 1, 8, 8))))
    from whyglass.coalition.shapley.exact_shapley import shapley

    expected = shapley(torch.stack(table, 1)[..., None], 4)[..., 0]
    torch.testing.assert_close(result.player_values, expected)
    mean = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(result.baseline, mean)
    torch.testing.assert_close(result.baseline_score, model(mean))
    flat = ExactShapley(players=2)(model, torch.full_like(x, 0.3), baseline=Inpaint())
    assert flat.values.abs().max() < 1e-12


def test_channels_may_be_players() -> None:
    x = draw(1, 1, 2, 4, 4)
    mask = torch.arange(2)[:, None, None].expand(2, 4, 4)
    result = ExactShapley(players=mask)(lambda g: (g**2).sum((1, 2, 3)), x, baseline=Inpaint())
    gains = (x - x.mean((2, 3), keepdim=True)).square().sum((2, 3))
    torch.testing.assert_close(result.player_values, gains)


@pytest.mark.parametrize(
    "inputs", [torch.ones(1, 4), (torch.ones(1, 1, 2, 2), torch.ones(1, 2))], ids=["table", "two"]
)
def test_what_is_no_image_is_refused(inputs: Tensor | tuple[Tensor, ...]) -> None:
    with pytest.raises(BadInput, match="Inpaint fills one image"):
        ExactShapley()(lambda *given: given[0].flatten(1).sum(1), inputs, baseline=Inpaint())


def test_other_methods_say_what_it_is_for() -> None:
    with pytest.raises(BadInput, match="Inpaint depends on what is present"):
        IntegratedGradients()(
            lambda x: x.sum((1, 2, 3)), torch.ones(1, 1, 4, 4), baseline=Inpaint()
        )
