"""Every method by name: the command line, the docs' table and the contract tests read this."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from whyglass.cam.cam import CAM
from whyglass.cam.counterfactual_grad_cam import CounterfactualGradCAM
from whyglass.cam.eigen_cam import EigenCAM
from whyglass.cam.grad_cam import GradCAM
from whyglass.cam.grad_cam_plus_plus import GradCAMPlusPlus
from whyglass.cam.layer_cam import LayerCAM
from whyglass.cam.score_cam import ScoreCAM
from whyglass.coalition.local.feature_permutation import FeaturePermutation
from whyglass.coalition.local.lime import LIME
from whyglass.coalition.local.occlusion import Occlusion
from whyglass.coalition.local.rise import RISE
from whyglass.coalition.shapley.exact_shapley import ExactShapley
from whyglass.coalition.shapley.kernel_shap import KernelSHAP
from whyglass.coalition.shapley.linear_shap import LinearSHAP
from whyglass.coalition.shapley.low_order_shap import LowOrderSHAP
from whyglass.coalition.shapley.max_shap import MaxSHAP
from whyglass.coalition.shapley.owen import Owen
from whyglass.coalition.shapley.permutation_shapley import PermutationShapley
from whyglass.coalition.shapley.qii import QII
from whyglass.coalition.shapley.regression_adjusted_shapley import RegressionAdjustedShapley
from whyglass.coalition.shapley.shapley_regression import ShapleyRegression
from whyglass.combined.guided_grad_cam import GuidedGradCAM
from whyglass.core.errors import BadInput
from whyglass.core.method import Method
from whyglass.gradient.expected_gradients import ExpectedGradients
from whyglass.gradient.gradient_x_input import GradientXInput
from whyglass.gradient.integrated_gradients import IntegratedGradients
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
from whyglass.propagation.lrp.cp_lrp import CPLRP
from whyglass.propagation.lrp.lrp import LRP
from whyglass.propagation.moments.dasp import DASP

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Saliency,
        GradientXInput,
        SmoothGrad,
        SmoothGradSquared,
        VarGrad,
        IntegratedGradients,
        PathGradients,
        ExpectedGradients,
        CAM,
        GradCAM,
        CounterfactualGradCAM,
        GradCAMPlusPlus,
        LayerCAM,
        EigenCAM,
        ScoreCAM,
        LRP,
        AttnLRP,
        CPLRP,
        AttentionRollout,
        Chefer,
        DeepLIFT,
        DeepSHAP,
        WeightOfEvidence,
        DASP,
        GuidedBackprop,
        Deconvolution,
        GuidedGradCAM,
        Occlusion,
        ExactShapley,
        PermutationShapley,
        KernelSHAP,
        RegressionAdjustedShapley,
        ShapleyRegression,
        LIME,
        Owen,
        QII,
        FeaturePermutation,
        LinearSHAP,
        LowOrderSHAP,
        MaxSHAP,
        RISE,
    )
}


def method_class(name: str) -> type[Method]:
    """The method class of a catalogue name."""
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, 3, 0.4) or list(METHODS)
    raise BadInput(f"there is no method {name!r}; nearest: {', '.join(near)}")


def make_method(name: str, settings: dict[str, Any]) -> Method:
    """A method with these settings; a setting that it does not have is refused."""
    cls = method_class(name)
    known = [field.name for field in dataclasses.fields(cls)]
    for setting in settings:
        if setting not in known:
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise BadInput(f"{name} has no setting {setting!r}: {have}")
    return cls(**settings)


def table() -> list[dict[str, str]]:
    """One row of text a method, as the command line and the docs print it."""
    return [
        {
            "name": name,
            "family": cls.family,
            "shows": cls.shows,
            "needs": ", ".join(cls.needs) or "scores only",
            "baseline": cls.baseline_is,
            "data": ", ".join(cls.data),
            "cost": cls.cost,
            "axioms": ", ".join(cls.axioms),
            "paper": f"{cls.paper.authors.split(',')[0].split(' and ')[0].split()[-1]} "
            f"{cls.paper.year}",
            "url": cls.paper.url,
        }
        for name, cls in METHODS.items()
    ]
