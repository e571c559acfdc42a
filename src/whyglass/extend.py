"""What someone who writes a method imports, in one place.

A method is a frozen, keyword-only dataclass that derives from `Method`, says what it is in class
variables and computes in `attribute`; docs/how-to/add-a-method.md builds one. Some abstract methods
do part of the work already: `ActivationMap` leaves only the map of a layer, `PathMethod` only the
path, `Smoothing` only what to make of gradients under noise, `CoalitionMethod` only what to make of
the values of coalitions. docs/how-to/add-a-check.md makes a check, docs/how-to/add-a-masker.md a
masker of coalitions, docs/how-to/add-a-rule.md a rule of LRP from `Rule` and `Flow`, and one of the
engine from `Call`, `Table` and `Propagation`.
"""

from whyglass.cam.activation_map import ActivationMap, channel_weights
from whyglass.coalition.coalition_method import CoalitionMethod, Estimate, SampledCoalitions
from whyglass.coalition.game.game import Game
from whyglass.coalition.game.masker import Masker
from whyglass.coalition.game.players import FeatureGroups, feature_mask, with_every_row
from whyglass.core.baseline import Baseline
from whyglass.core.baseline_rows import background, resolve
from whyglass.core.checks import Check, completeness, completeness_gap, not_flat, worst_target
from whyglass.core.errors import BadInput, MissingExtra, Unsupported
from whyglass.core.inputs import Leaves, Structure, differentiable, flat_sum, multiply, per_row
from whyglass.core.method import Attribution, Axiom, Method, Need, positive, positive_integer
from whyglass.core.paper import Paper
from whyglass.core.scorer import Evaluated, Points, Scorer
from whyglass.gradient.path_gradients import PathMethod
from whyglass.gradient.path_integral import Curve
from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing
from whyglass.propagation.engine.calls import Call, Table
from whyglass.propagation.engine.interception import Propagation
from whyglass.propagation.lrp.relevance_method import RelevanceMethod
from whyglass.propagation.lrp.rules import Flow, Rule

__all__ = [
    "ActivationMap",
    "Attribution",
    "Axiom",
    "BadInput",
    "Baseline",
    "Call",
    "Check",
    "CoalitionMethod",
    "Curve",
    "Estimate",
    "Evaluated",
    "FeatureGroups",
    "Flow",
    "Game",
    "Leaves",
    "Masker",
    "Method",
    "MissingExtra",
    "Moments",
    "Need",
    "Paper",
    "PathMethod",
    "Points",
    "Propagation",
    "RelevanceMethod",
    "Rule",
    "SampledCoalitions",
    "Scorer",
    "Smoothing",
    "Structure",
    "Table",
    "Unsupported",
    "background",
    "channel_weights",
    "completeness",
    "completeness_gap",
    "differentiable",
    "feature_mask",
    "flat_sum",
    "multiply",
    "not_flat",
    "per_row",
    "positive",
    "positive_integer",
    "resolve",
    "with_every_row",
    "worst_target",
]
