"""whyglass: where a neural network's decision comes from, and how far to believe the answer."""

from whyglass.baseline import (
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
from whyglass.blackbox import NumpyModel
from whyglass.cam.cam import CAM
from whyglass.cam.counterfactual_grad_cam import CounterfactualGradCAM
from whyglass.cam.eigen_cam import EigenCAM
from whyglass.cam.grad_cam import GradCAM
from whyglass.cam.grad_cam_plus_plus import GradCAMPlusPlus
from whyglass.cam.layer_cam import LayerCAM
from whyglass.cam.score_cam import ScoreCAM
from whyglass.catalogue import METHODS
from whyglass.checks import Check
from whyglass.coalition.exact_shapley import ExactShapley
from whyglass.coalition.feature_permutation import FeaturePermutation
from whyglass.coalition.interactions import Interactions, interactions
from whyglass.coalition.kernel_shap import KernelSHAP
from whyglass.coalition.lime import LIME
from whyglass.coalition.linear_shap import LinearSHAP
from whyglass.coalition.low_order_shap import LowOrderSHAP
from whyglass.coalition.max_shap import MaxSHAP
from whyglass.coalition.occlusion import Occlusion
from whyglass.coalition.owen import Owen
from whyglass.coalition.permutation_shapley import PermutationShapley
from whyglass.coalition.qii import QII, Disparity, group_disparity
from whyglass.coalition.regression_adjusted_shapley import RegressionAdjustedShapley
from whyglass.coalition.rise import RISE
from whyglass.coalition.shapley_regression import ShapleyRegression, r_squared_shares
from whyglass.combined.guided_grad_cam import GuidedGradCAM
from whyglass.errors import BadInput, MissingExtra, Unsupported, WhyglassError
from whyglass.explain import explain
from whyglass.explanation import Explanation, Legend
from whyglass.gradient.expected_gradients import ExpectedGradients
from whyglass.gradient.gradient_x_input import GradientXInput
from whyglass.gradient.integrated_gradients import IntegratedGradients
from whyglass.gradient.linearise import Linearised, linearise
from whyglass.gradient.path_gradients import PathGradients
from whyglass.gradient.saliency import Saliency
from whyglass.gradient.smoothgrad import SmoothGrad
from whyglass.gradient.smoothgrad_squared import SmoothGradSquared
from whyglass.gradient.vargrad import VarGrad
from whyglass.guards import Layer
from whyglass.method import Method
from whyglass.propagation.attention_rollout import AttentionRollout
from whyglass.propagation.attn_lrp import AttnLRP
from whyglass.propagation.chefer import Chefer
from whyglass.propagation.composites import Composite, When
from whyglass.propagation.cp_lrp import CPLRP
from whyglass.propagation.dasp import DASP
from whyglass.propagation.deconvolution import Deconvolution
from whyglass.propagation.deep_shap import DeepSHAP
from whyglass.propagation.deeplift import DeepLIFT
from whyglass.propagation.guided_backprop import GuidedBackprop
from whyglass.propagation.layers import (
    Contributions,
    LayerRelevance,
    contributions,
    relevance_by_layer,
)
from whyglass.propagation.lrp import LRP
from whyglass.propagation.lrp_rules import (
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
from whyglass.propagation.weight_of_evidence import WeightOfEvidence
from whyglass.retrained import Retrained
from whyglass.target import Contrast, LogOdds, Probability, Several

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
