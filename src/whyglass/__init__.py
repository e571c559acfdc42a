"""whyglass: where a neural network's decision comes from, and how far to believe the answer."""

import difflib
from typing import TYPE_CHECKING, NoReturn

from whyglass import views as views
from whyglass.cam.cam import CAM
from whyglass.cam.counterfactual_grad_cam import CounterfactualGradCAM
from whyglass.cam.eigen_cam import EigenCAM
from whyglass.cam.grad_cam import GradCAM
from whyglass.cam.grad_cam_plus_plus import GradCAMPlusPlus
from whyglass.cam.layer_cam import LayerCAM
from whyglass.cam.score_cam import ScoreCAM
from whyglass.catalogue import METHODS
from whyglass.coalition.local.feature_permutation import FeaturePermutation
from whyglass.coalition.local.lime import LIME
from whyglass.coalition.local.occlusion import Occlusion
from whyglass.coalition.local.rise import RISE
from whyglass.coalition.shapley.exact_shapley import ExactShapley
from whyglass.coalition.shapley.interactions import Interactions, interactions
from whyglass.coalition.shapley.kernel_shap import KernelSHAP
from whyglass.coalition.shapley.linear_shap import LinearSHAP
from whyglass.coalition.shapley.low_order_shap import LowOrderSHAP
from whyglass.coalition.shapley.max_shap import MaxSHAP
from whyglass.coalition.shapley.owen import Owen
from whyglass.coalition.shapley.permutation_shapley import PermutationShapley
from whyglass.coalition.shapley.qii import QII, Disparity, group_disparity
from whyglass.coalition.shapley.regression_adjusted_shapley import RegressionAdjustedShapley
from whyglass.coalition.shapley.retrained import Retrained
from whyglass.coalition.shapley.shapley_regression import ShapleyRegression, r_squared_shares
from whyglass.combined.guided_grad_cam import GuidedGradCAM
from whyglass.core.baseline import (
    Background,
    Blur,
    Conditional,
    Deletion,
    Gaussian,
    Inpaint,
    Mean,
    Nearest,
    PerChannel,
)
from whyglass.core.checks import Check
from whyglass.core.entry import Box
from whyglass.core.errors import BadInput, MissingExtra, Unsupported, WhyglassError
from whyglass.core.explanation import Explanation
from whyglass.core.layer import Layer, LayerCall
from whyglass.core.legend import Legend
from whyglass.core.method import Method
from whyglass.core.numpy_model import NumpyModel
from whyglass.core.region import Region
from whyglass.core.target import Contrast, LogOdds, Probability, Several
from whyglass.explain import explain
from whyglass.gradient.expected_gradients import ExpectedGradients
from whyglass.gradient.gradient_x_input import GradientXInput
from whyglass.gradient.integrated_gradients import IntegratedGradients
from whyglass.gradient.linearise import Linearised, linearise
from whyglass.gradient.path_gradients import PathGradients
from whyglass.gradient.saliency import Saliency
from whyglass.gradient.smoothgrad import SmoothGrad
from whyglass.gradient.smoothgrad_squared import SmoothGradSquared
from whyglass.gradient.vargrad import VarGrad
from whyglass.propagation.attention.attention_rollout import AttentionRollout
from whyglass.propagation.attention.chefer import Chefer
from whyglass.propagation.deeplift.deep_shap import DeepSHAP
from whyglass.propagation.deeplift.deeplift import DeepLIFT
from whyglass.propagation.deeplift.weight_of_evidence import WeightOfEvidence
from whyglass.propagation.gating.deconvolution import Deconvolution
from whyglass.propagation.gating.guided_backprop import GuidedBackprop
from whyglass.propagation.lrp.attn_lrp import AttnLRP
from whyglass.propagation.lrp.composites import Composite, When
from whyglass.propagation.lrp.cp_lrp import CPLRP
from whyglass.propagation.lrp.layer_relevance import (
    Contributions,
    LayerRelevance,
    contributions,
    relevance_by_layer,
)
from whyglass.propagation.lrp.lrp import LRP
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
from whyglass.propagation.moments.dasp import DASP

__version__ = "0.1.0"

__all__ = [
    "CAM",
    "CPLRP",
    "DASP",
    "LIME",
    "LRP",
    "METHODS",
    "QII",
    "RISE",
    "AlphaBeta",
    "AttentionRollout",
    "AttnLRP",
    "Background",
    "BadInput",
    "Blur",
    "Box",
    "Check",
    "Chefer",
    "Composite",
    "Conditional",
    "Contrast",
    "Contributions",
    "CounterfactualGradCAM",
    "Deconvolution",
    "DeepLIFT",
    "DeepSHAP",
    "Deletion",
    "Disparity",
    "EigenCAM",
    "Epsilon",
    "ExactShapley",
    "ExpectedGradients",
    "Explanation",
    "FeaturePermutation",
    "Flat",
    "Gamma",
    "Gaussian",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "Inpaint",
    "IntegratedGradients",
    "Interactions",
    "KernelSHAP",
    "Layer",
    "LayerCAM",
    "LayerCall",
    "LayerRelevance",
    "Legend",
    "LinearSHAP",
    "Linearised",
    "LogOdds",
    "LowOrderSHAP",
    "MaxSHAP",
    "Mean",
    "Method",
    "MissingExtra",
    "Nearest",
    "NumpyModel",
    "Occlusion",
    "Owen",
    "PathGradients",
    "PerChannel",
    "PermutationShapley",
    "Probability",
    "Region",
    "RegressionAdjustedShapley",
    "Retrained",
    "Rule",
    "Saliency",
    "ScoreCAM",
    "Several",
    "ShapleyRegression",
    "SmoothGrad",
    "SmoothGradSquared",
    "Unsupported",
    "VarGrad",
    "WSquare",
    "WeightOfEvidence",
    "When",
    "WhyglassError",
    "ZBox",
    "ZPlus",
    "Zero",
    "contributions",
    "explain",
    "group_disparity",
    "interactions",
    "linearise",
    "r_squared_shares",
    "relevance_by_layer",
]

if not TYPE_CHECKING:  # so that type checkers still see which names there are

    def __getattr__(name: str) -> NoReturn:
        """Answer a name that is not here with those that are."""
        near = difflib.get_close_matches(name, __all__, 2, 0.8)
        methods = ", ".join(cls.__name__ for cls in METHODS.values())
        hint = f"did you mean {' or '.join(near)}?" if near else f"its methods are {methods}"
        raise AttributeError(f"whyglass has no {name!r}: {hint}")
