"""Every method by name: the command line, the docs' table and the contract tests read this."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Sequence
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
from whyglass.propagation.lrp.composites import PRESETS
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


# What other libraries call these methods; `_spelling` says how names are compared.
ALIASES = {
    # Captum
    "ig": "integrated-gradients",
    "InputXGradient": "gradient-x-input",
    "NoiseTunnel": "smoothgrad",
    "GradientShap": "expected-gradients",
    "DeepLiftShap": "deep-shap",
    "FeatureAblation": "occlusion",
    "ShapleyValues": "exact-shapley",
    "ShapleyValueSampling": "permutation-shapley",
    # shap: its explainers are found with and without "Explainer"
    "shap": "kernel-shap",
    "shapley": "permutation-shapley",
    "KernelExplainer": "kernel-shap",
    "PermutationExplainer": "permutation-shapley",
    "SamplingExplainer": "permutation-shapley",
    "ExactExplainer": "exact-shapley",
    "DeepExplainer": "deep-shap",
    "GradientExplainer": "expected-gradients",
    "LinearExplainer": "linear-shap",
    "PartitionExplainer": "owen",
    # pytorch-grad-cam
    "grad-cam++": "grad-cam-plus-plus",
    "grad-cam-pp": "grad-cam-plus-plus",
    # zennit, whose composites are presets of lrp's rule besides
    "deconvnet": "deconvolution",
    "layer-wise-relevance-propagation": "lrp",
    # Everyday names
    "grad-times-input": "gradient-x-input",
    "input-times-gradient": "gradient-x-input",
    "vanilla-gradient": "saliency",
    "rollout": "attention-rollout",
    "transformer-attribution": "chefer",
    "leave-one-out": "occlusion",
    "permutation-importance": "feature-permutation",
    "owen-values": "owen",
}

_COUNTS = ("steps", "samples", "budget")
# What other libraries call settings and arguments; the first one that a method has is suggested.
SYNONYMS = {
    **dict.fromkeys(
        "n_steps nsteps num_steps n_samples nsamples num_samples nt_samples max_evals "
        "steps samples budget evaluations n_perturbations".split(),
        _COUNTS,
    ),
    **dict.fromkeys(
        "baselines background background_data reference references".split(), ("baseline",)
    ),
    **dict.fromkeys("targets target_class label class_idx".split(), ("target",)),
    **dict.fromkeys("layer layers target_layer target_layers".split(), ("at",)),
    **dict.fromkeys(
        "internal_batch_size perturbations_per_eval chunk_size".split(), ("batch_size",)
    ),
    **dict.fromkeys("stdev stdevs stdev_spread sigma noise_level".split(), ("noise",)),
    **dict.fromkeys("feature_mask superpixels segmentation groups".split(), ("players",)),
    **dict.fromkeys("sliding_window_shapes window_size patch_size".split(), ("window",)),
    **dict.fromkeys("random_state random_seed".split(), ("seed",)),
    **dict.fromkeys("num_features n_features".split(), ("features",)),
    "strides": ("stride",),
    "kernel_width": ("width",),
    "composite": ("rule",),
    "feature_names": ("legend",),
    "class_names": ("legend",),
}


def method_class(name: str) -> type[Method]:
    """The method class of a catalogue name, or of the name that another library gives it.

    Raises:
        BadInput: no method has that name; the message lists the nearest, or all of them.
    """
    spellings = {_spelling(known): known for known in METHODS}
    spellings |= {_spelling(alias): known for alias, known in ALIASES.items()}
    spelling = _spelling(name)
    if spelling in spellings:
        return METHODS[spellings[spelling]]
    near = difflib.get_close_matches(spelling, spellings, 3, 0.75)
    if near:
        names = dict.fromkeys(spellings[entry] for entry in near)
        raise BadInput(f"there is no method {name!r}; did you mean {' or '.join(names)}?")
    raise BadInput(f"there is no method {name!r}; there are {', '.join(METHODS)}")


def method_and_settings(name: str) -> tuple[type[Method], dict[str, Any]]:
    """The method class of a name and the settings that it stands for: a preset of LRP's rule has one.

    Raises:
        BadInput: as `method_class`.
    """
    presets = {_spelling(preset): preset for preset in PRESETS}
    if _spelling(name) in presets:
        return LRP, {"rule": presets[_spelling(name)]}
    return method_class(name), {}


def make_method(method: str | type[Method], settings: dict[str, Any]) -> Method:
    """A method, by name or class, with these settings.

    Raises:
        BadInput: no method has that name, or it has no such setting.
    """
    cls: Any = method
    if isinstance(method, str):
        cls, implied = method_and_settings(method)
        settings = implied | settings
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise BadInput(
            f"method must be a name of whyglass.METHODS, a method or its class, not {method!r}"
        )
    known = [field.name for field in dataclasses.fields(cls)]
    for setting in settings:
        if setting not in known:
            raise BadInput(f"{cls.name} has no setting {setting!r}: {_instead(setting, known)}")
    return cls(**settings)


def _spelling(name: str) -> str:
    """Names are compared without case, hyphens, underscores and spaces: GradCAM is grad-cam."""
    plain = re.sub(r"[^a-z0-9+]", "", name.lower()).replace("+", "plus")
    return plain.removesuffix("explainer")


def _instead(setting: str, known: Sequence[str]) -> str:
    """The setting of a method, or the argument of a call, that is called otherwise elsewhere."""
    call = list(inspect.signature(Method.__call__).parameters)[3:]
    names = [*known, *call]
    meant = [name for name in SYNONYMS.get(setting, ()) if name in names][:1]
    meant = meant or difflib.get_close_matches(setting, names, 1, 0.75)
    have = f"it has {', '.join(known)}" if known else "it has none"
    return f"did you mean {meant[0]}=? ({have})" if meant else have


def table() -> list[dict[str, str]]:
    """One row of text a method, as the command line and the docs print it."""
    return [
        {
            "name": name,
            "aliases": ", ".join(alias for alias, known in ALIASES.items() if known == name),
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
