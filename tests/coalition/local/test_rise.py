"""RISE against its published recipe, against long runs, and what its errors promise."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.transform import resize
from torch import Tensor, nn

from whyglass import RISE, BadInput, Blur, Several
from whyglass.coalition.local.grid_masks import BINS, GridMasks
from whyglass.coalition.local.masked_means import FOLDS, RIDGE, controlled


def masks_of(
    shape: tuple[int, ...], cells: tuple[int, ...], keep: float = 0.5, paired: bool = True
) -> GridMasks:
    def generators(block: int) -> torch.Generator:
        return RISE(seed=3)._generator(block)

    return GridMasks(shape, cells, keep, paired, generators, torch.zeros(0).double())


def published(
    shape: tuple[int, int], cells: tuple[int, int], grid: Tensor, shift: Tensor
) -> Tensor:
    """Petsiuk et al. (2018), section 3.2, by the resizing function of the authors' code."""
    size = [-(-n // h) for n, h in zip(shape, cells, strict=True)]
    up = [(h + 1) * c for h, c in zip(cells, size, strict=True)]
    large = resize(grid.numpy(), up, order=1, mode="reflect", anti_aliasing=False)
    top, left = shift.tolist()
    return torch.from_numpy(large[top : top + shape[0], left : left + shape[1]])


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 8 * 11, 3)
    return nn.Sequential(*layers).double().eval()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 2, 10, 13, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    ("shape", "cells"), [((10, 13), (3, 3)), ((10, 13), (7, 4)), ((224, 200), (7, 7))]
)
def test_masks_are_those_of_the_published_code(
    shape: tuple[int, int], cells: tuple[int, int]
) -> None:
    masks = masks_of(shape, cells)
    grids, shifts = masks.drawn(60, 70)
    made = masks.make(60, 70)
    assert made.shape == (10, *shape)
    for grid, shift, mask in zip(grids, shifts, made, strict=True):
        assert set(grid.unique().tolist()) == {0, 1}
        torch.testing.assert_close(mask, published(shape, cells, grid, shift), rtol=0, atol=1e-12)
    assert [int(s) for s in masks.drawn(0, 2000).shifts.amax(0) + 1] == masks.sizes


@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_pairs_mirror_one_another_and_cells_are_on_as_often_as_asked(keep: float) -> None:
    grids, shifts = masks_of((10, 13), (3, 4), keep).drawn(0, 4000)
    assert torch.equal(shifts[::2], shifts[1::2])
    assert (torch.minimum(grids[::2], grids[1::2]) == 0).all()
    if keep == 0.5:
        assert torch.equal(grids[::2], 1 - grids[1::2])
    assert (grids.mean(0) - keep).abs().max() < 4 * (keep * (1 - keep) / 4000) ** 0.5


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_published_sampler_is_the_published_sum(
    net: nn.Module, x: Tensor, baseline: float
) -> None:
    """Equation 6 one mask at a time, divided by the sum of the masks."""
    method = RISE(samples=90, cells=(3, 4), sampler="published", seed=3)
    found = method(net, x, target=1, baseline=baseline)
    grids, shifts = masks_of((10, 13), (3, 4), paired=False).drawn(0, 90)
    total, weight = torch.zeros(2, 1, 10, 13).double(), torch.zeros(10, 13).double()
    kept = []
    for grid, shift in zip(grids, shifts, strict=True):
        mask = published((10, 13), (3, 4), grid, shift)
        with torch.no_grad():
            score = net(x * mask + baseline * (1 - mask))[:, 1]
        total += score[:, None, None, None] * mask
        weight += mask
        kept.append((score, mask))
    values = total / weight
    torch.testing.assert_close(found.values, values)
    squares = sum((s[:, None, None, None] - values) ** 2 * m**2 for s, m in kept)
    torch.testing.assert_close(found.std_error, (squares * 90 / 89).sqrt() / weight)


@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_the_known_part_is_the_covariance_over_every_mask(keep: float) -> None:
    """All 2^6 grids and all shifts, one at a time."""
    masks = masks_of((6, 8), (2, 3), keep)
    slopes = torch.randn(6 * 8, generator=torch.Generator().manual_seed(0)).double()
    total = torch.zeros(6, 8).double()
    for shift in itertools.product(range(3), range(3)):
        for bits in itertools.product((0.0, 1.0), repeat=6):
            grid = torch.tensor(bits).double().reshape(2, 3)
            mask = published((6, 8), (2, 3), grid, torch.tensor(shift))
            weight = keep ** sum(bits) * (1 - keep) ** (6 - sum(bits)) / 9
            total += weight * (slopes @ mask.flatten()) * (mask - keep)
    assert min(6, 8, BINS) == 6  # each pixel is a bin of its own
    torch.testing.assert_close(masks.covariance(slopes[None])[0], total)


def test_the_paired_estimate_is_its_formula(net: nn.Module, x: Tensor) -> None:
    """Ridge fits without a pair's fold, the rest averaged over pairs, all from whole masks."""
    count, keep = 66, 0.4
    masks = masks_of((10, 13), (3, 4), keep)
    made = masks.make(0, count)
    with torch.no_grad():
        scores = net(x[:1] * made[:, None])[:, 2]
    edges = [[b * n // 8 for b in range(9)] for n in (10, 13)]
    bins = [
        made[:, top:bottom, left:right].mean((1, 2)) - keep
        for top, bottom in itertools.pairwise(edges[0])
        for left, right in itertools.pairwise(edges[1])
    ]
    features = torch.stack([torch.ones(count).double(), *bins], 1)
    pairs = []
    for pair in range(count // 2):
        other = torch.tensor([(m // 2) % FOLDS != pair % FOLDS for m in range(count)])
        inside = features[other]
        ridge = RIDGE * torch.eye(65).double() * (inside[:, 1:] ** 2).mean()
        ridge[0, 0] = 0
        fit = torch.linalg.solve(inside.T @ inside + ridge, inside.T @ scores[other])
        known = masks.covariance(fit[None, 1:])[0] / keep
        values = torch.zeros(10, 13).double()
        for m in (2 * pair, 2 * pair + 1):
            rest = scores[m] - features[m] @ fit
            values += (fit[0] + rest + rest * (made[m] - keep) / keep) / 2
        pairs.append((values, known))
    rests = torch.stack([values for values, _ in pairs])
    expected = rests.mean(0) + torch.stack([known for _, known in pairs]).mean(0)
    found = controlled(masks, scores[None])
    torch.testing.assert_close(found.values[0], expected)
    torch.testing.assert_close(found.std_error[0], rests.std(0) / (count // 2) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_unbiased_and_as_exact_as_it_says(net: nn.Module, x: Tensor, keep: float) -> None:
    """200 runs of 80 masks against 60,000 of the other sampler; the pair is the better bargain."""
    long = RISE(samples=60_000, cells=3, keep=keep, sampler="published")(net, x[:1], target=0)
    rmse = {}
    for sampler in ("paired", "published"):
        runs = [
            RISE(samples=80, cells=3, keep=keep, sampler=sampler, seed=seed)(net, x[:1], target=0)
            for seed in range(1, 201)
        ]
        off = torch.stack([run.values - long.values for run in runs])
        said = torch.stack([run.std_error for run in runs])
        inside = (off.abs() < 1.96 * said).double().mean()
        assert 0.91 < inside < 0.97, sampler
        rmse[sampler] = float(off.square().mean().sqrt())
        if sampler == "paired":
            error = (off.var(0) / 200 + long.std_error**2).sqrt()
            assert ((off.mean(0) / error).abs() < 4.5).all()
    assert rmse["paired"] < rmse["published"] / 2


def test_a_score_that_never_changes_is_its_own_map() -> None:
    for sampler in ("paired", "published"):
        found = RISE(samples=10, sampler=sampler)(
            lambda x: torch.full((len(x),), 2.5), torch.ones(1, 3, 9, 9)
        )
        torch.testing.assert_close(found.values, torch.full((1, 1, 9, 9), 2.5))
        assert found.std_error.abs().max() < 1e-6
        assert found.checks[0].verdict == "pass"


def test_the_map_lies_on_what_counts() -> None:
    x = torch.ones(1, 3, 24, 24)
    found = RISE(samples=400)(lambda x: x[:, :, 4:10, 12:18].mean((1, 2, 3)), x).values[0, 0]
    assert found[4:10, 12:18].min() > 2 * found[[0, 0, -1, -1], [0, -1, 0, -1]].max() - 0.5
    top, left = divmod(int(found.argmax()), 24)
    assert 4 <= top < 10
    assert 12 <= left < 18


def test_a_black_box_will_do() -> None:
    def remote(images: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(images.numpy()[:, 0, :4, :4].mean((1, 2))))

    found = RISE(samples=200, cells=4)(remote, torch.ones(1, 1, 12, 12))
    assert found.gradients == 0
    assert found.evaluations == 201
    assert found.values[0, 0, 1, 1] == found.values.max() or found.values[0, 0, 2, 2] > 0.6


def test_rows_stop_when_they_are_exact_enough(net: nn.Module, x: Tensor) -> None:
    method = RISE(samples=6000, cells=3, tol=0.1)
    found = method(net, x, target=0)
    assert max(found.checks[0].rows) <= 0.1
    assert found.evaluations < 2 * 6000
    counts = (128, 256, 512, 1024, 2048, 4096)
    by_count = [RISE(samples=n, cells=3)(net, x, target=0) for n in counts]
    for row in range(2):
        same = [torch.allclose(e.values[row], found.values[row], 1e-9, 1e-12) for e in by_count]
        assert sum(same) == 1
        assert all(e.checks[0].rows[row] > 0.1 for e in by_count[: same.index(True)])


def test_many_targets_at_the_price_of_one(net: nn.Module, x: Tensor) -> None:
    method = RISE(samples=64, cells=3)
    both = method(net, x, target=Several(0, 2))
    assert both.values.shape == (2, 1, 10, 13, 2)
    for k, target in enumerate((0, 2)):
        one = method(net, x, target=target)
        torch.testing.assert_close(both.values[..., k], one.values)
        torch.testing.assert_close(both.std_error[..., k], one.std_error)
        assert one.evaluations == both.evaluations


def test_an_image_beside_a_vector() -> None:
    image, vector = torch.ones(1, 1, 8, 8), torch.tensor([[3.0]])
    found = RISE(samples=200, cells=2)(lambda i, v: i[:, 0, 0, 0] * v[:, 0], (image, vector))
    assert found.values[0].shape == (1, 1, 8, 8)
    assert not found.values[1].any()
    assert found.notes == ("inputs[1] is no image: held fixed, not explained (zeros)",)
    assert found.values[0][0, 0, 0, 0] > 2


def test_memory_does_not_grow_with_the_masks() -> None:
    code = """
import resource, torch, whyglass
def peak(samples):
    model = lambda x: x[:, :, 20:40, 20:40].mean((1, 2, 3))
    whyglass.RISE(samples=samples)(model, torch.ones(1, 1, 96, 96))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
few = peak(600)
print(peak(9000) - few)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The masks alone would be 316 MiB.
    assert float(run.stdout) < 40


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"samples": 5}, "even and 4 or more, not 5"),
        ({"samples": 2}, "even and 4 or more, not 2"),
        ({"samples": 1}, "2 or more"),
        ({"cells": 0}, "cells must be a positive integer"),
        ({"cells": (3, 2.5)}, "cells must be a positive integer"),
        ({"keep": 1.0}, "less than 1"),
        ({"keep": 0}, "keep must be a positive"),
        ({"sampler": "sobol"}, "neither 'paired' nor 'published'"),
        ({"tol": -1}, "tol must be a positive"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        RISE(**settings)


@pytest.mark.parametrize(
    ("inputs", "settings", "words"),
    [
        (torch.ones(3, 5), {}, r"one image \(B, C, H, W\).*\(3, 5\)"),
        ((torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)), {}, "one image"),
        (torch.ones(1, 1, 4, 4), {"cells": (2, 2, 2)}, "names 3 axes and the input has 2"),
    ],
)
def test_inputs_that_no_mask_fits(inputs: object, settings: dict[str, object], words: str) -> None:
    def never(*_inputs: Tensor) -> Tensor:
        raise AssertionError("the model ran")

    with pytest.raises(BadInput, match=words):
        RISE(**settings)(never, inputs)


@pytest.mark.parametrize("baseline", [0, Blur(1.0)])
def test_an_image_of_integers_is_mixed_and_rounded(baseline: object) -> None:
    x = torch.randint(0, 255, (2, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    x = x.to(torch.uint8)

    def model(z: Tensor) -> Tensor:
        assert z.dtype == torch.uint8
        return z[:, :, :4, :4].double().mean((1, 2, 3))

    found = RISE(samples=200, cells=3)(model, x, baseline=baseline)
    floats = baseline(x).float() if isinstance(baseline, Blur) else 0.0
    expected = RISE(samples=200, cells=3)(
        lambda z: z[:, :, :4, :4].double().mean((1, 2, 3)), x.float(), baseline=floats
    )
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=0.6)
    assert not found.notes
