"""What someone who writes a method imports, in one place.

A method is a frozen, keyword-only dataclass that derives from `Method`, says what it is in class
variables and computes in `attribute`; docs/how-to/add-a-method.md builds one. Some abstract methods
do part of the work already: `ActivationMap` leaves only the map of a layer, `PathMethod` only the
path, `Smoothing` only what to make of gradients under noise, `CoalitionMethod` only what to make of
the values of coalitions. docs/how-to/add-a-rule.md builds a rule of LRP from `Rule` and `Flow`, and one
of the engine from `Call`, `Table` and `Propagation`.
"""

from whyglass.baseline import Baseline, background, resolve
from whyglass.cam.activation_map import ActivationMap, channel_weights
from whyglass.checks import Check, completeness, completeness_gap, not_flat, worst_target
from whyglass.coalition.coalition_method import CoalitionMethod, Estimate, SampledCoalitions
from whyglass.coalition.game import Game
from whyglass.errors import BadInput, MissingExtra, Unsupported
from whyglass.gradient.path_gradients import PathMethod
from whyglass.gradient.path_integral import Curve
from whyglass.gradient.sampling import Moments
from whyglass.gradient.smoothing import Smoothing
from whyglass.inputs import Leaves, Structure, explained, flat_sum, per_row, times
from whyglass.method import Attribution, Axiom, Method, Need, positive, positive_integer
from whyglass.paper import Paper
from whyglass.propagation.calls import Call, Table
from whyglass.propagation.engine import Propagation
from whyglass.propagation.lrp_rules import Flow, Rule
from whyglass.propagation.relevance_method import RelevanceMethod
from whyglass.scorer import Evaluated, Points, Scorer

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
    "Flow",
    "Game",
    "Leaves",
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
    "explained",
    "flat_sum",
    "not_flat",
    "per_row",
    "positive",
    "positive_integer",
    "resolve",
    "times",
    "worst_target",
]
