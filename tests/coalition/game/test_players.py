"""Players by name."""

from __future__ import annotations

import pytest
import torch

from whyglass import LIME, BadInput, KernelSHAP, Occlusion, PermutationShapley
from whyglass.data.image import Superpixels


def model(images: torch.Tensor) -> torch.Tensor:
    return images.mean((1, 2, 3)) + images[:, 0, :8, :8].amax((1, 2))


def image(seed: int) -> torch.Tensor:
    """Squares of even colour, as a photograph has patches."""
    squares = torch.rand(1, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    return squares.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.mark.parametrize("method", [LIME, PermutationShapley, KernelSHAP])
@pytest.mark.parametrize("seed", range(2))
def test_superpixels_by_name_are_those_of_the_class(
    method: type[LIME] | type[PermutationShapley] | type[KernelSHAP], seed: int
) -> None:
    pytest.importorskip("skimage")
    by_name = method(players="superpixels", budget=200)(model, image(seed))
    by_class = method(players=Superpixels(), budget=200)(model, image(seed))
    torch.testing.assert_close(by_name.values, by_class.values)
    assert by_name.player_values is not None
    assert by_name.player_values.shape[1] > 10
    assert by_name.settings["players"] == "superpixels"


def test_another_word_is_answered_with_what_players_may_be() -> None:
    with pytest.raises(BadInput, match="players 'pixels' must be \"superpixels\", a number"):
        LIME(players="pixels")(model, image(0))
    with pytest.raises(BadInput, match="one image"):
        LIME(players="superpixels")(model, image(0).repeat(2, 1, 1, 1))


def test_tokens_without_a_baseline_are_refused_and_with_one_explained() -> None:
    ids = torch.tensor([[3, 1, 4, 1]])

    def score(tokens: torch.Tensor) -> torch.Tensor:
        return (tokens == 1).float().sum(1)

    with pytest.raises(BadInput, match="give an integer"):
        Occlusion()(score, ids)
    for method in (PermutationShapley(), Occlusion(window=1)):
        values = method(score, ids, baseline=0).values
        torch.testing.assert_close(values, torch.tensor([[0.0, 1.0, 0.0, 1.0]]))
