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
from whyglass.coalition.exact_shapley import ExactShapley
from whyglass.coalition.feature_permutation import FeaturePermutation
from whyglass.coalition.kernel_shap import KernelSHAP
from whyglass.coalition.lime import LIME
from whyglass.coalition.linear_shap import LinearSHAP
from whyglass.coalition.low_order_shap import LowOrderSHAP
from whyglass.coalition.max_shap import MaxSHAP
from whyglass.coalition.occlusion import Occlusion
from whyglass.coalition.owen import Owen
from whyglass.coalition.permutation_shapley import PermutationShapley
from whyglass.coalition.qii import QII
from whyglass.coalition.regression_adjusted_shapley import RegressionAdjustedShapley
from whyglass.coalition.rise import RISE
from whyglass.coalition.shapley_regression import ShapleyRegression
from whyglass.combined.guided_grad_cam import GuidedGradCAM
from whyglass.errors import BadInput
from whyglass.gradient.expected_gradients import ExpectedGradients
from whyglass.gradient.gradient_x_input import GradientXInput
from whyglass.gradient.integrated_gradients import IntegratedGradients
from whyglass.gradient.path_gradients import PathGradients
from whyglass.gradient.saliency import Saliency
from whyglass.gradient.smoothgrad import SmoothGrad
from whyglass.gradient.smoothgrad_squared import SmoothGradSquared
from whyglass.gradient.vargrad import VarGrad
from whyglass.method import Method
from whyglass.propagation.attention_rollout import AttentionRollout
from whyglass.propagation.attn_lrp import AttnLRP
from whyglass.propagation.chefer import Chefer
from whyglass.propagation.cp_lrp import CPLRP
from whyglass.propagation.dasp import DASP
from whyglass.propagation.deconvolution import Deconvolution
from whyglass.propagation.deep_shap import DeepSHAP
from whyglass.propagation.deeplift import DeepLIFT
from whyglass.propagation.guided_backprop import GuidedBackprop
from whyglass.propagation.lrp import LRP
from whyglass.propagation.weight_of_evidence import WeightOfEvidence

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


def find(name: str) -> type[Method]:
    """The method class of a catalogue name."""
    if name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(name, METHODS, 3, 0.4) or list(METHODS)
    raise BadInput(f"there is no method {name!r}; nearest: {', '.join(near)}")


def make(name: str, settings: dict[str, Any]) -> Method:
    """A method with these settings, refusing any it does not have."""
    kind = find(name)
    known = [field.name for field in dataclasses.fields(kind)]
    for setting in settings:
        if setting not in known:
            have = f"it has {', '.join(known)}" if known else "it has none"
            raise BadInput(f"{name} has no setting {setting!r}: {have}")
    return kind(**settings)


def table() -> list[dict[str, str]]:
    """One row a method, for people."""
    return [
        {
            "name": name,
            "family": kind.family,
            "shows": kind.shows,
            "needs": ", ".join(kind.needs) or "scores only",
            "baseline": kind.baseline_is,
            "data": ", ".join(kind.data),
            "cost": kind.cost,
            "axioms": ", ".join(kind.axioms),
            "paper": f"{kind.paper.authors.split(',')[0].split(' and ')[0].split()[-1]} "
            f"{kind.paper.year}",
            "url": kind.paper.url,
        }
        for name, kind in METHODS.items()
    ]
