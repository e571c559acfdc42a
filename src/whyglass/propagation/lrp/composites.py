"""Composites: which rule of LRP applies where, as data, and the field's presets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from whyglass.core.errors import BadInput
from whyglass.propagation.engine.linear_operations import PRODUCTS
from whyglass.propagation.lrp.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    WSquare,
    ZBox,
    Zero,
    ZPlus,
)

CONVOLUTIONS = (
    *(f"conv{d}d" for d in (1, 2, 3)),
    *(f"conv_transpose{d}d" for d in (1, 2, 3)),
)
WEIGHTED = PRODUCTS.union(("linear", *CONVOLUTIONS))


@dataclass(frozen=True, kw_only=True)
class When:
    """A rule, and the weighted operations it is for: those that meet every stated condition.

    Args:
        rule: the rule.
        ops: names of operations, such as "linear" or "conv2d".
        layers: a pattern for the submodule's dotted name, as in a shell: "features.*".
        depth: an interval of the network's depth, counted in weighted operations from the input:
            (0, 1/3) is its lower third, and the last operation is at 1.
        first: only operations that no weighted operation precedes.
    """

    rule: Rule
    ops: tuple[str, ...] | None = None
    layers: str | None = None
    depth: tuple[float, float] | None = None
    first: bool = False

    def __post_init__(self) -> None:
        ops = self.ops
        if ops is not None and (isinstance(ops, str) or not WEIGHTED.issuperset(ops)):
            known = ", ".join(map(repr, sorted(WEIGHTED)))
            raise BadInput(f"ops must be a tuple of names among {known}, not {ops!r}")
        if self.depth is not None and not 0 <= self.depth[0] < self.depth[1] <= 1:
            raise BadInput(f"depth must be two rising numbers from 0 to 1, not {self.depth!r}")

    def holds(self, op: str, layer: str, depth: int, deepest: int) -> bool:
        """Whether an operation, number `depth` from 1 on a path of `deepest`, meets the conditions."""
        return (
            (self.ops is None or op in self.ops)
            and (self.layers is None or fnmatchcase(layer, self.layers))
            and (self.depth is None or self.depth[0] < depth / deepest <= self.depth[1])
            and (not self.first or depth == 1)
        )


SUMS = Epsilon()


@dataclass(frozen=True)
class Composite:
    """Rules by place: the first clause that holds gives the rule.

    `sums` is for what adds without weights: pooling, means, residual additions.
    """

    clauses: tuple[When, ...]
    sums: Zero | Epsilon | Gamma = SUMS

    def rule(self, op: str, layer: str, depth: int, deepest: int) -> Rule:
        """The rule of a weighted operation."""
        for clause in self.clauses:
            if clause.holds(op, layer, depth, deepest):
                return clause.rule
        raise BadInput(
            f"the composite has no clause for operation {op!r} of layer {layer or 'none'!r}: end it "
            "with When(rule=Epsilon()), which holds everywhere"
        )


def everywhere(rule: Rule) -> Composite:
    """One rule for every weighted operation, and for sums if it is one for sums."""
    return Composite((When(rule=rule),), rule if isinstance(rule, Zero | Epsilon | Gamma) else SUMS)


def by_kind(convolutions: Rule, first: Rule | None = None) -> Composite:
    """A rule for convolutions, epsilon for the rest, and for the first layer `first`."""
    clauses = (When(rule=convolutions, ops=CONVOLUTIONS), When(rule=Epsilon()))
    sums = convolutions if isinstance(convolutions, Gamma) else SUMS
    return Composite(clauses if first is None else (When(rule=first, first=True), *clauses), sums)


def book() -> Composite:
    """Gamma in the lower third, epsilon in the middle, LRP-0 on top."""
    return Composite(
        (
            When(rule=Gamma(epsilon=1e-6), depth=(0, 1 / 3)),
            When(rule=Epsilon(), depth=(1 / 3, 2 / 3)),
            When(rule=Zero()),
        )
    )


PRESETS: dict[str, Callable[[], Composite]] = {
    "zero": lambda: everywhere(Zero()),
    "epsilon": lambda: everywhere(Epsilon()),
    "gamma": lambda: everywhere(Gamma(epsilon=1e-6)),
    "z-plus": lambda: everywhere(ZPlus()),
    "alpha2-beta1": lambda: everywhere(AlphaBeta()),
    "w-square": lambda: by_kind(ZPlus(), WSquare()),
    "epsilon-plus": lambda: by_kind(ZPlus()),
    "epsilon-plus-flat": lambda: by_kind(ZPlus(), Flat()),
    "epsilon-alpha2-beta1": lambda: by_kind(AlphaBeta()),
    "epsilon-alpha2-beta1-flat": lambda: by_kind(AlphaBeta(), Flat()),
    "epsilon-gamma-box": lambda: by_kind(Gamma(epsilon=1e-6), ZBox()),
    "gamma-epsilon-zero": book,
}


def composite(rule: str | Rule | Composite) -> Composite:
    """A composite from a preset's name, one rule, or itself."""
    if isinstance(rule, Composite):
        return rule
    if isinstance(rule, Rule):
        return everywhere(rule)
    # zennit's spellings, EpsilonPlusFlat and epsilon_plus_flat, are understood too.
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", str(rule)).lower().replace("_", "-")
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, 3, 0.3) or list(PRESETS)
        raise BadInput(f"there is no rule or preset {rule!r}; nearest: {', '.join(near)}")
    return PRESETS[name]()
