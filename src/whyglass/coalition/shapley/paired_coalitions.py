"""What the estimators on pairs of a coalition and its complement share: what a budget pays for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from whyglass.coalition.coalition_method import SampledCoalitions
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups
from whyglass.coalition.shapley.paired_sampling import strata
from whyglass.core.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class PairedCoalitions(SampledCoalitions):
    """Abstract. `fits` is what is fitted, `least` the pairs that it takes for each player."""

    drops_unchanged: ClassVar[bool] = True
    fits: ClassVar[str]
    least: ClassVar[int]

    def ready(self, groups: FeatureGroups, absent: Masker) -> None:
        self.pairs(groups.count, absent)

    def pairs(self, n: int, absent: Masker) -> int:
        """How many pairs the budget pays for."""
        pairs = absent.affords(self.budget) // 2
        least = min(self.least * n, sum(layer.total for layer in strata(n, absent.background_size)))
        if pairs < least:
            raise BadInput(
                f"budget {self.budget} is too small for {self.fits} on {n} players, which takes "
                f"{absent.evaluations(2 * least)} evaluations a row at least: raise it, or group "
                "features with players= (players=8 makes 8 windows along each axis)"
            )
        return pairs

    def stages(self, n: int, absent: Masker) -> list[int]:
        """Numbers of pairs after which rows may stop: doubling up to what the budget pays for.

        None where a single player gets the whole change.
        """
        stages = [self.pairs(n, absent)] if n > 1 else []
        floor = max(2 * self.least * n, 2 * (n // 2), 8)
        while stages and self.tol is not None and stages[-1] // 2 >= floor:
            stages.append(stages[-1] // 2)
        return stages[::-1]
