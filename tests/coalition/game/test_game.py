"""The game: players, absence, memory of what was evaluated."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.zoo.networks import ZOO
from whyglass import (
    LIME,
    Background,
    BadInput,
    Blur,
    Conditional,
    Deletion,
    ExactShapley,
    Explanation,
    Gaussian,
    PermutationShapley,
)
from whyglass.coalition.game.evaluations import Evaluations
from whyglass.coalition.game.game import Game, members
from whyglass.coalition.game.maskers import masker
from whyglass.coalition.game.players import feature_groups
from whyglass.core.scorer import Scorer


def game_of(model: Any, x: Any, baseline: Any = None, players: Any = None, **more: Any) -> Game:
    scorer = Scorer(model, x, gradient=False, **more)
    groups = feature_groups(players, scorer)
    absent = masker(baseline, scorer, groups)
    return Game(scorer, absent, groups, scorer.at_inputs(False))


def rows(count: int, columns: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, columns, generator=generator, dtype=torch.float64)


def bent(x: Tensor) -> Tensor:
    return (x[:, 0] * x[:, 1]).tanh() + x[:, 2] ** 2 - x[:, 0] * x[:, 3]


class TestValue:
    """The worth of a coalition, by hand."""

    def test_against_a_baseline_row(self) -> None:
        x, other = rows(3), rows(1, seed=1)
        coalitions = members(torch.arange(16), 4)
        result = game_of(bent, x, other).value(coalitions)
        for s, row in itertools.product(range(16), range(3)):
            expected = bent(torch.where(coalitions[s], x[row], other[0])[None])[0]
            torch.testing.assert_close(result[row, s, 0], expected)

    def test_every_background_row_counts_the_same(self) -> None:
        x, data = rows(3), rows(5, seed=1)
        coalitions = members(torch.arange(16), 4)
        game = game_of(bent, x, Background(data))
        result = game.value(coalitions)
        for s, row in itertools.product(range(16), range(3)):
            expected = bent(torch.where(coalitions[s], x[row], data)).mean()
            torch.testing.assert_close(result[row, s, 0], expected)
        torch.testing.assert_close(game.all_values(), result)
        torch.testing.assert_close(game.empty[:, 0], bent(data).mean().expand(3))

    def test_no_evaluation_is_made_twice(self) -> None:
        x, data = rows(2), rows(3, seed=1)
        seen: list[bytes] = []

        def model(given: Tensor) -> Tensor:
            seen.extend(row.numpy().tobytes() for row in given)
            return bent(given)

        game = game_of(model, x, Background(data))
        before, again = (
            game.scores(
                Evaluations(
                    members(torch.tensor(numbers), 4).repeat_interleave(3, 0),
                    torch.arange(3).repeat(len(numbers)),
                )
            ).unflatten(1, (len(numbers), 3))
            for numbers in ([3, 5, 3, 15, 0], [5, 6, 3, 12])
        )
        # Two inputs, three background rows for each, four coalitions with three rows for each.
        assert len(seen) == 2 * (1 + 3 + 4 * 3) == game.scorer.cost.evaluations
        assert len(set(seen)) == 2 + 3 + 2 * 4 * 3
        torch.testing.assert_close(again[:, 0], before[:, 1], rtol=0, atol=0)
        torch.testing.assert_close(again[:, 2], before[:, 2], rtol=0, atol=0)

    def test_rows_that_are_done_cost_nothing(self) -> None:
        game = game_of(bent, rows(4))
        game.scores(Evaluations(members(torch.tensor([3]), 4), torch.tensor([0])))
        spent = game.scorer.cost.evaluations
        kept = torch.tensor([1, 3])
        two = Evaluations(members(torch.tensor([3, 5]), 4), torch.tensor([0, 0]))
        result = game.scores(two, kept)
        assert game.scorer.cost.evaluations == spent + 2
        whole = game_of(bent, rows(4)).value(members(torch.tensor([3, 5]), 4))
        torch.testing.assert_close(result, whole[kept])

    @pytest.mark.parametrize("players", [5, 40, 70])
    def test_many_players_have_keys_of_their_own(self, players: int) -> None:
        x = torch.ones(1, players, dtype=torch.float64)
        weights = torch.randn(players, generator=torch.Generator().manual_seed(0)).double()
        game = game_of(lambda given: given @ weights, x)
        coalitions = torch.rand(50, players, generator=torch.Generator().manual_seed(1)) > 0.5
        for _ in range(2):
            torch.testing.assert_close(
                game.value(coalitions)[0, :, 0], coalitions.double() @ weights
            )


DESCRIBING = ("attention_mask", "token_type_ids", "position_ids")


def beside_tokens(seed: int) -> tuple[Any, Tensor, list[Tensor]]:
    """A model of token ids with a mask, types and positions, and its inputs."""
    generator = torch.Generator().manual_seed(seed)
    table, types, places = (
        torch.randn(size, 5, generator=generator, dtype=torch.float64) for size in (20, 2, 4)
    )

    def model(
        input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, position_ids: Tensor
    ) -> Tensor:
        tokens = table[input_ids] + types[token_type_ids.long()] + places[position_ids]
        return (tokens * attention_mask[..., None]).sum(1).tanh().sum(1)

    ids = torch.randint(2, 20, (2, 4), generator=generator)
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    return model, ids, [mask, torch.tensor([[0, 0, 1, 1]] * 2), torch.arange(4).expand(2, 4)]


class TestPlayers:
    """Who stands or falls together."""

    def test_channels_of_an_image_go_together(self) -> None:
        groups = feature_groups(
            None, Scorer(lambda x: x.sum((1, 2, 3)), torch.rand(2, 3, 4, 5), gradient=False)
        )
        assert groups.count == 20
        assert groups.masks[0].shape == (1, 4, 5)

    def test_windows(self) -> None:
        scorer = Scorer(lambda x: x.sum((1, 2, 3)), torch.rand(2, 3, 5, 8), gradient=False)
        groups = feature_groups(2, scorer)
        assert groups.count == 4
        assert groups.masks[0][0].tolist() == [[0] * 4 + [1] * 4] * 3 + [[2] * 4 + [3] * 4] * 2

    def test_values_are_spread_over_the_features_and_add_up(self) -> None:
        x, groups = rows(3), (0, 1, 0, -1)
        result = ExactShapley(players=groups)(bent, x)
        assert result.player_values is not None
        assert result.player_values.shape == (3, 2)
        torch.testing.assert_close(result.values[:, 0], result.player_values[:, 0] / 2)
        torch.testing.assert_close(result.values[:, 1], result.player_values[:, 1])
        torch.testing.assert_close(result.values[:, 2], result.values[:, 0])
        assert not result.values[:, 3].any()
        torch.testing.assert_close(result.values.sum(1), result.score - result.baseline_score)
        # What no player holds is present even where nobody is.
        alone = torch.tensor([0.0, 0.0, 0.0, 1.0]) * x
        torch.testing.assert_close(result.baseline_score, bent(alone))

    def test_a_mask_of_an_image_with_and_without_channels(self) -> None:
        x = torch.rand(2, 3, 4, 4, dtype=torch.float64)
        flat = torch.arange(4).repeat_interleave(4).reshape(4, 4)
        apart = torch.arange(3)[:, None, None].expand(3, 4, 4)
        weights = torch.rand(3, 4, 4, dtype=torch.float64)
        by_line = ExactShapley(players=flat)(lambda g: (g * weights).sum((1, 2, 3)), x)
        by_channel = ExactShapley(players=apart)(lambda g: (g * weights).sum((1, 2, 3)), x)
        assert by_line.values.shape == (2, 1, 4, 4)
        assert by_channel.values.shape == x.shape
        torch.testing.assert_close(by_line.player_values, (x * weights).sum((1, 3)))
        torch.testing.assert_close(by_channel.player_values, (x * weights).sum((2, 3)))

    def test_two_inputs_with_masks_of_their_own(self) -> None:
        network = ZOO["two-inputs"]
        model, x = network.make(), network.inputs()
        result = ExactShapley(players=((0, 0, 1, 1), (-1, -1, -1)))(model, x)
        assert result.player_values.shape == (3, 2)
        assert not result.values[1].any()
        torch.testing.assert_close(result.values[0].sum(1), result.score - result.baseline_score)
        assert isinstance(result.players, tuple)

    @pytest.mark.parametrize(
        ("players", "words"),
        [
            ((0, 2, 0, 2), "every number from 0"),
            ((-1, -1, -1, -1), "every number"),
            ((0, 1), "broadcast"),
            ((0.5, 1.0, 0.0, 0.0), "integers"),
            (0, "windows"),
            (True, "windows"),
            ({"a": (0, 1)}, "mask"),
            (("a",), "mask"),
        ],
    )
    def test_masks_that_make_no_sense(self, players: Any, words: str) -> None:
        calls = []
        with pytest.raises(BadInput, match=words):
            ExactShapley(players=players)(lambda x: calls.append(1), rows(2))
        assert not calls

    def test_too_many_players(self) -> None:
        with pytest.raises(BadInput, match=r"2\^21.*permutation-shapley"):
            ExactShapley()(lambda x: x.sum(1), torch.rand(1, 21))

    def test_the_mask_travels_with_the_explanation(self, tmp_path: Any) -> None:
        result = ExactShapley(players=2)(ZOO["gap-cnn"].make(), ZOO["gap-cnn"].inputs())
        assert isinstance(result.players, Tensor)
        result.save(tmp_path / "it.safetensors")
        again = Explanation.load(tmp_path / "it.safetensors")
        assert torch.equal(again.players, result.players)
        assert torch.equal(again.player_values, result.player_values)


class TestAbsence:
    """What stands in for players that are absent."""

    def test_blur_is_a_baseline_row(self) -> None:
        network = ZOO["gap-cnn"]
        model, x = network.make(), network.inputs()
        result = ExactShapley(players=2)(model, x, target=1, baseline=Blur(1.0))
        with torch.no_grad():
            torch.testing.assert_close(result.baseline_score, model(Blur(1.0)(x))[:, 1])

    @pytest.mark.parametrize("neighbours", [1, 3, 8, 20])
    def test_the_nearest_rows(self, neighbours: int) -> None:
        x, data = rows(2), 3 * rows(8, seed=1)
        game = game_of(bent, x, Conditional(data, neighbours))
        coalitions = members(torch.arange(1, 15), 4)
        result = game.value(coalitions)
        for s, row in itertools.product(range(14), range(2)):
            kept = coalitions[s]
            away = ((data - x[row]) / data.std(0, correction=0))[:, kept].norm(dim=1)
            near = data[away.argsort()[:neighbours]]
            expected = bent(torch.where(kept, x[row], near)).mean()
            torch.testing.assert_close(result[row, s, 0], expected)
        torch.testing.assert_close(game.empty[:, 0], bent(data).mean().expand(2))

    def test_gaussian_moves_the_data_along_the_regression(self) -> None:
        """Conditional mean and covariance of the data's own Gaussian, by the textbook."""
        mixed = rows(50, seed=1) @ rows(4, seed=2)
        x = rows(2)
        kept = torch.tensor([True, False, True, False])
        game = game_of(lambda g: g[:, 1], x, Gaussian(mixed))
        mean, cov = mixed.mean(0), mixed.T.cov(correction=0)
        solved = torch.linalg.solve(cov[kept][:, kept], (x - mean)[:, kept].T).T
        expected = mean[~kept] + solved @ cov[kept][:, ~kept]
        torch.testing.assert_close(game.value(kept[None])[:, 0, 0], expected[:, 0])
        square = game_of(lambda g: g[:, 1] ** 2, x, Gaussian(mixed)).value(kept[None])[:, 0, 0]
        inner = torch.linalg.solve(cov[kept][:, kept], cov[kept][:, ~kept])
        spread = cov[~kept][:, ~kept] - cov[~kept][:, kept] @ inner
        torch.testing.assert_close(square - expected[:, 0] ** 2, spread[0, 0].expand(2))

    def test_gaussian_of_independent_columns_is_the_background(self) -> None:
        data = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=torch.float64)
        x = rows(2)
        result = ExactShapley()(bent, x, baseline=Gaussian(data)).values
        torch.testing.assert_close(
            result, ExactShapley()(bent, x, baseline=Background(data)).values
        )

    def test_a_mask_token(self) -> None:
        network = ZOO["tokens"]
        model, ids = network.make(), network.inputs()
        assert isinstance(ids, Tensor)
        result = ExactShapley()(model, ids, baseline=7)
        assert result.values.shape == ids.shape
        assert result.values.any()
        assert not result.notes
        with torch.no_grad():
            empty = model(torch.full_like(ids, 7)).gather(1, result.classes[:, None])[:, 0]
        torch.testing.assert_close(result.baseline_score, empty)

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("named", [True, False])
    @pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.double])
    @pytest.mark.parametrize("method", [ExactShapley(), PermutationShapley(), LIME()])
    def test_a_mask_beside_tokens_is_held(
        self, method: Any, dtype: torch.dtype, named: bool, seed: int
    ) -> None:
        model, ids, described = beside_tokens(seed)
        inputs = {
            "input_ids": ids,
            "attention_mask": described[0].to(dtype),
            "token_type_ids": described[1],
            "position_ids": described[2],
        }
        result = method(model, inputs if named else tuple(inputs.values()), baseline=7)
        values = tuple(result.values.values()) if named else result.values
        for row in range(2):
            alone = method(
                lambda ids, own=row: model(ids, *(d[own].expand(len(ids), 4) for d in described)),
                ids[row : row + 1],
                baseline=7,
            )
            torch.testing.assert_close(values[0][row], alone.values[0])
        assert not any(value.any() for value in values[1:])
        assert sum("held fixed" in note for note in result.notes) == 3
        baseline = tuple(result.baseline.values()) if named else result.baseline
        for leaf, given in zip(baseline[1:], list(inputs.values())[1:], strict=True):
            assert torch.equal(leaf, given)

    def test_what_describes_tokens_moves_along(self) -> None:
        model, ids, described = beside_tokens(0)
        named = dict(zip(("input_ids", *DESCRIBING), (ids, *described), strict=True))
        result = game_of(model, named, Deletion(0)).value(members(torch.arange(16), 4))
        for s, row in itertools.product(range(16), range(2)):
            kept = [i for i in range(4) if s >> i & 1]
            moved = [
                torch.cat([leaf[row, kept], leaf.new_zeros(4 - len(kept))])[None]
                for leaf in (ids, *described)
            ]
            torch.testing.assert_close(result[row, s, 0], model(*moved)[0])

    def test_other_numbers_beside_tokens_have_players(self) -> None:
        """What is neither a mask nor a count is explained, and so is all that is masks."""
        ids, other = torch.tensor([[3, 4]]), torch.tensor([[2, 5]])
        result = ExactShapley()(lambda a, b: (a * b).sum(1).double(), (ids, other), baseline=1)
        assert result.player_values.shape == (1, 4)
        bits = torch.tensor([[1, 0]])
        result = ExactShapley()(lambda a, b: (a - b).sum(1).double(), (bits, 1 - bits), baseline=0)
        assert result.player_values.shape == (1, 4)

    def test_a_dict_of_rows_is_a_baseline(self) -> None:
        model, ids, described = beside_tokens(0)
        named = dict(zip(("input_ids", *DESCRIBING), (ids, *described), strict=True))
        starts = named | {"input_ids": torch.full_like(ids, 7)}
        expected = ExactShapley()(model, named, baseline=7)
        result = ExactShapley()(model, named, baseline=starts)
        torch.testing.assert_close(result.player_values, expected.player_values)
        again = ExactShapley()(model, tuple(named.values()), baseline=tuple(starts.values()))
        torch.testing.assert_close(again.player_values, expected.player_values)

    def test_tokens_taken_out(self) -> None:
        seen: list[Tensor] = []

        def model(ids: Tensor, mask: Tensor) -> Tensor:
            seen.append(torch.stack([ids, mask], 1))
            return (ids * mask).sum(1).double()

        ids = torch.tensor([[5, 6, 7, 8]])
        game = game_of(
            model, (ids, torch.tensor([[1, 1, 1, 0]])), Deletion(9), ((0, 1, 2, -1), (-1,) * 4)
        )
        game.value(torch.tensor([[False, True, False]]))
        assert seen[-1][0].tolist() == [[6, 8, 9, 9], [1, 0, 0, 0]]

    @pytest.mark.parametrize(
        ("baseline", "x", "words"),
        [
            (None, torch.ones(1, 3, dtype=torch.uint8), "mask token"),
            (0.5, torch.ones(1, 3, dtype=torch.long), "mask token"),
            (torch.ones(1, 3), torch.ones(1, 3, dtype=torch.long), "mask token"),
            (Deletion(0), torch.ones(1, 3), "Deletion"),
            (Conditional(torch.ones(3, 2)), torch.ones(1, 3), "shape"),
            (Conditional(torch.ones(3, 3), 0), torch.ones(1, 3), "neighbours"),
            (Gaussian(torch.ones(1, 3)), torch.ones(1, 3), "two rows"),
            (Gaussian(torch.ones(3, 3)), torch.ones(1, 3, 4, 4), "table"),
            (Background(torch.ones(3, 2)), torch.ones(1, 3), "shapes"),
        ],
    )
    def test_absence_that_makes_no_sense(self, baseline: Any, x: Tensor, words: str) -> None:
        calls = []
        with pytest.raises(BadInput, match=words):
            ExactShapley()(lambda x: calls.append(1), x, baseline=baseline)
        assert not calls

    def test_other_methods_say_what_these_are_for(self) -> None:
        from whyglass import IntegratedGradients

        for baseline in (Conditional(torch.ones(3, 3)), Gaussian(torch.ones(3, 3)), Deletion(0)):
            with pytest.raises(BadInput, match="coalitions"):
                IntegratedGradients()(lambda x: x.sum(1), torch.ones(1, 3), baseline=baseline)


@pytest.mark.parametrize(
    "baseline", [0.0, Background(rows(5, seed=1)), Conditional(rows(9, seed=2), neighbours=3)]
)
@pytest.mark.parametrize("most", [1, 2, 4, 5, 11])
def test_pieces_may_end_within_an_evaluation(baseline: Any, most: int) -> None:
    """Where memory runs out midway, pieces are no longer whole evaluations of the three rows."""

    def model(given: Tensor) -> Tensor:
        return (given[:, 0] * given[:, 1]).sin() + given[:, 2] * given[:, 3]

    def small(given: Tensor) -> Tensor:
        if len(given) > most:
            raise torch.OutOfMemoryError
        return model(given)

    coalitions, x = members(torch.arange(1, 15), 4), rows(3)
    whole, pieces = (game_of(f, x, baseline, batch_size=64) for f in (model, small))
    torch.testing.assert_close(
        pieces.value(coalitions), whole.value(coalitions), rtol=0, atol=1e-12
    )
