"""whyglass: where a neural network's decision comes from, and how far to believe the answer."""

from whyglass.baseline import Background, Blur, Mean, Nearest, PerChannel
from whyglass.cam.cam import CAM
from whyglass.cam.counterfactual_grad_cam import CounterfactualGradCAM
from whyglass.cam.eigen_cam import EigenCAM
from whyglass.cam.grad_cam import GradCAM
from whyglass.cam.grad_cam_plus_plus import GradCAMPlusPlus
from whyglass.cam.layer_cam import LayerCAM
from whyglass.cam.score_cam import ScoreCAM
from whyglass.catalogue import METHODS
from whyglass.checks import Check
from whyglass.coalition.occlusion import Occlusion
from whyglass.coalition.rise import RISE
from whyglass.combined.guided_grad_cam import GuidedGradCAM
from whyglass.errors import BadInput, MissingExtra, Unsupported, WhyglassError
from whyglass.explain import explain
from whyglass.explanation import Explanation, Legend
from whyglass.gradient.expected_gradients import ExpectedGradients
from whyglass.gradient.gradient_x_input import GradientXInput
from whyglass.gradient.integrated_gradients import IntegratedGradients
from whyglass.gradient.path_gradients import PathGradients
from whyglass.gradient.saliency import Saliency
from whyglass.gradient.smoothgrad import SmoothGrad
from whyglass.gradient.smoothgrad_squared import SmoothGradSquared
from whyglass.gradient.vargrad import VarGrad
from whyglass.method import Method
from whyglass.propagation.dasp import DASP
from whyglass.propagation.deconvolution import Deconvolution
from whyglass.propagation.deep_shap import DeepSHAP
from whyglass.propagation.deeplift import DeepLIFT
from whyglass.propagation.guided_backprop import GuidedBackprop
from whyglass.target import Contrast, LogOdds, Probability, Several

__version__ = "0.1.0"

__all__ = [
    "CAM",
    "DASP",
    "METHODS",
    "RISE",
    "Background",
    "BadInput",
    "Blur",
    "Check",
    "Contrast",
    "CounterfactualGradCAM",
    "Deconvolution",
    "DeepLIFT",
    "DeepSHAP",
    "EigenCAM",
    "ExpectedGradients",
    "Explanation",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientXInput",
    "GuidedBackprop",
    "GuidedGradCAM",
    "IntegratedGradients",
    "LayerCAM",
    "Legend",
    "LogOdds",
    "Mean",
    "Method",
    "MissingExtra",
    "Nearest",
    "Occlusion",
    "PathGradients",
    "PerChannel",
    "Probability",
    "Saliency",
    "ScoreCAM",
    "Several",
    "SmoothGrad",
    "SmoothGradSquared",
    "Unsupported",
    "VarGrad",
    "WhyglassError",
    "explain",
]
