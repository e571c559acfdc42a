"""Owen values: Shapley values where players of a group stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from whyglass.coalition.coalition_method import Estimate, SampledCoalitions
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.shapley.permutation_sampler import Permutations, affordable, mean_gains
from whyglass.core.errors import BadInput
from whyglass.core.paper import Paper

Tree = Sequence[Any] | int


@dataclass(frozen=True, kw_only=True)
class Owen(SampledCoalitions):
    r"""Means over the orders in which each group of a hierarchy joins without a break.

    .. math:: \phi_i = E_{\pi \in \Pi(H)} [v(\pi^{<i} \cup i) - v(\pi^{<i})]

    with :math:`\Pi(H)` the orders made by shuffling, at every node of the hierarchy H, the branches
    among themselves. A group's values add up to what it would get as one player among its siblings, and
    far fewer coalitions matter than without groups. Orders are drawn at random and walked both ways,
    background rows in turn, as in `PermutationShapley`. Units: score. Source: Owen (1977), for one
    level of groups; for many levels Winter (1989).

    Args:
        hierarchy: nested tuples of players' numbers, ((0, 1), (2, (3, 4))) say. By default halves of
            halves: an image cut across its longer side, the columns of a table in their order.

    >>> import torch, whyglass
    >>> model = lambda x: x[:, 0] * x[:, 1] * x[:, 2]
    >>> method = whyglass.Owen(hierarchy=((0, 1), 2))
    >>> method(model, torch.tensor([[1.0, 2.0, 2.0]])).values.round()
    tensor([[1., 1., 2.]])
    """

    hierarchy: tuple[Any, ...] | None = None

    name: ClassVar[str] = "owen"
    shows: ClassVar[str] = (
        "What each feature adds to the score when features that belong together join together; the "
        "parts sum to it."
    )
    paper: ClassVar[Paper] = Paper(
        "Guillermo Owen",
        "Values of Games with a Priori Unions",
        "Mathematical Economics and Game Theory",
        1977,
        "https://doi.org/10.1007/978-3-642-45494-3_7",
    )

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        affordable(self, groups.count, absent)
        if self.hierarchy is not None:
            players = _leaves(self.hierarchy)
            if sorted(players, key=str) != sorted(range(groups.count), key=str):
                raise BadInput(
                    f"hierarchy holds the players {players}: it must hold each number from 0 to "
                    f"{groups.count - 1} once"
                )

    def estimate(self, game: Game) -> Estimate:
        generator = self.generator()
        tree: Tree = halves(game.groups) if self.hierarchy is None else self.hierarchy
        count, both = affordable(self, game.n, game.masker)
        orders = torch.tensor([_shuffled(tree, generator) for _ in range(count)])
        stops = self.tol is not None
        permutations = Permutations(orders, both, game.background_size, generator, stops)
        return mean_gains(self, game, permutations)


def _leaves(tree: Tree) -> list[Any]:
    if isinstance(tree, tuple | list):
        return [leaf for branch in cast("Sequence[Tree]", tree) for leaf in _leaves(branch)]
    return [tree]


def _shuffled(tree: Tree, generator: torch.Generator) -> list[int]:
    """The players in an order that keeps every group together."""
    if isinstance(tree, int):
        return [tree]
    order = torch.randperm(len(tree), generator=generator).tolist()
    return [player for branch in order for player in _shuffled(tree[branch], generator)]


def halves(groups: FeatureGroups) -> Tree:
    """Players halved by where they are, again and again, across the axis they are spread along most.

    Players of several inputs are parted by input first.
    """
    trees = [
        _binary_tree(
            [(int(player), _centre(mask == player)) for player in mask.unique() if player >= 0]
        )
        for mask in groups.masks
        if bool((mask >= 0).any())
    ]
    whole = sorted(player for tree in trees for player in _leaves(tree))
    if whole != list(range(groups.count)):
        # A player with features in several inputs: only its number tells where it is.
        return _binary_tree(
            [(player, torch.tensor([float(player)])) for player in range(groups.count)]
        )
    return trees[0] if len(trees) == 1 else trees


def _centre(where: Tensor) -> Tensor:
    return where.nonzero().double().mean(0)


def _binary_tree(players: list[tuple[int, Tensor]]) -> Tree:
    if len(players) == 1:
        return players[0][0]
    positions = torch.stack([position for _, position in players])
    axis = int((positions.amax(0) - positions.amin(0)).argmax()) if positions.shape[1] else 0
    order = (
        positions[:, axis].argsort(stable=True)
        if positions.shape[1]
        else torch.arange(len(players))
    )
    ranked = [players[i] for i in order.tolist()]
    middle = len(ranked) // 2
    return (_binary_tree(ranked[:middle]), _binary_tree(ranked[middle:]))
