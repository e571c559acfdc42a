"""Checks of the model, its inputs and its scores, and the errors that they raise."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.inputs import Leaves, Structure, differentiable, require_finite
from whyglass.core.numpy_model import BlackBox, no_gradients

_DROPOUT = (
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
_NORM = nn.modules.batchnorm._NormBase  # pyright: ignore[reportPrivateUsage]  its only common base
_QUANTISED = ("torch.ao.nn.quantized", "torch.nn.quantized")


class NonfiniteScore(BadInput):
    """A score is NaN or infinite: that of the evaluation numbered `position`."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


def check_call(
    model: Callable[..., Any], leaves: Leaves, structure: Structure, gradient: bool, at_input: bool
) -> None:
    """Refuse a model and inputs that cannot give a right answer."""
    if not callable(model):
        way = "pass its predict_proba or predict" if hasattr(model, "predict") else "pass one"
        raise BadInput(
            f"model must be a torch.nn.Module or a callable, not {type(model).__name__}: {way}"
        )
    if gradient:
        if isinstance(model, BlackBox):
            raise no_gradients(type(model).__name__)
        if torch.is_inference_mode_enabled():
            raise BadInput(
                "gradients do not exist under torch.inference_mode(): leave it, or use "
                "torch.no_grad(), which is fine"
            )
        if any(leaf.is_inference() for leaf in leaves):
            raise BadInput("inputs were made under torch.inference_mode(): pass inputs.clone()")
        if at_input and not any(map(differentiable, leaves)):
            raise BadInput(
                f"{structure.label(0)} is {leaves[0].dtype}, which has no gradient: "
                f"for tokens explain the embedding with at={_embedding_name(model)!r}, "
                "for numbers pass inputs.float()"
            )
    if isinstance(model, nn.Module):
        _refuse_misfit(model, leaves, structure)
        _refuse_modules(model, gradient)


def require_finite_inputs(leaves: Leaves, structure: Structure, why: str) -> None:
    """Refuse NaN and infinity in the inputs, and say why they cannot be explained."""
    for index, leaf in enumerate(leaves):
        require_finite(
            leaf,
            structure.label(index),
            f"{why}: leave such rows out, or fill them as in training (torch.nan_to_num for one). A "
            "model that takes missing values (NaN) itself is explained by the methods of coalitions, "
            "permutation-shapley say",
        )


def token_embedding(model: Callable[..., Any], leaves: Leaves) -> nn.Module | None:
    """The embedding of a model as in transformers, where the inputs are token ids.

    Floats of the shape of the ids, an attention mask say, describe the tokens.
    """
    of_ids = [leaf.shape for leaf in leaves if leaf.dtype in {torch.int64, torch.int32}]
    if not of_ids or any(differentiable(leaf) and leaf.shape not in of_ids for leaf in leaves):
        return None
    try:
        embedding = cast("Any", model).get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return None
    return embedding if isinstance(embedding, nn.Module) else None


def _embedding_name(model: Callable[..., Any]) -> str:
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    names = (name for name, module in modules if isinstance(module, nn.Embedding))
    return next(names, "name.of.embedding")


def float_type(model: Callable[..., Any]) -> torch.dtype | None:
    """The type of the parameters of a module, where it has any of floats."""
    parameter = _float_parameter(model) if isinstance(model, nn.Module) else None
    return None if parameter is None else parameter.dtype


def _float_parameter(model: nn.Module) -> Tensor | None:
    return next((p for p in model.parameters() if p.is_floating_point()), None)


def _refuse_misfit(model: nn.Module, leaves: Leaves, structure: Structure) -> None:
    parameter = _float_parameter(model)
    if parameter is None:
        return
    for index, leaf in enumerate(leaves):
        if leaf.device != parameter.device:
            raise BadInput(
                f"{structure.label(index)} is on {leaf.device} and the model on {parameter.device}: "
                f"move one, for example inputs.to({str(parameter.device)!r})"
            )
        if differentiable(leaf) and leaf.dtype != parameter.dtype:
            raise BadInput(
                f"{structure.label(index)} is {leaf.dtype} and the model {parameter.dtype}: "
                f"convert one, for example inputs.to({parameter.dtype})"
            )


def _refuse_modules(model: nn.Module, gradient: bool) -> None:
    for name, module in model.named_modules():
        if gradient and type(module).__module__.startswith(_QUANTISED):
            raise Unsupported("quantised layers have no gradient: explain the float model")
        if module.training and _depends_on_training(module):
            kind = type(module).__name__
            raise BadInput(
                f"layer {name or 'model'!r} ({kind}) is in training mode, where its output is "
                "random or depends on the other rows: call model.eval() first"
            )


def _depends_on_training(module: nn.Module) -> bool:
    if isinstance(module, _DROPOUT):
        return module.p > 0
    if isinstance(module, nn.RNNBase):
        return module.dropout > 0
    if isinstance(module, nn.MultiheadAttention):
        return module.dropout > 0
    if isinstance(module, nn.modules.instancenorm._InstanceNorm):  # pyright: ignore[reportPrivateUsage]  as above
        return module.track_running_stats
    return isinstance(module, _NORM)


def refuse_nonfinite(
    tensor: Tensor,
    name: str,
    model: Callable[..., Any],
    total: Tensor | None = None,
    start: int = 0,
) -> None:
    """Refuse NaN and infinity in a score or gradient, pointing to the parameters if they hold it.

    `name` is "score", "score away from the input" or "gradient"; `total` is the sum of the tensor,
    where it is known; `start` is the number of its first evaluation.
    """
    summed = tensor.sum() if total is None else total
    if math.isfinite(summed.item()) or torch.isfinite(tensor).all():
        return
    if isinstance(model, nn.Module):
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise BadInput(f"parameter {key!r} of the model holds NaN or infinity")
    hint = {
        "score": "the input may lie outside the range the model was trained on",
        "score away from the input": "what replaces it (a baseline, a point on the path from it, "
        "a mask, noise) may lie outside the range of the model; give another baseline=, or less noise",
        "gradient": "typical causes are sqrt, log or a division at zero; add a small constant there",
    }[name]
    message = f"the {name} is NaN or infinite although inputs and parameters are finite: {hint}"
    if name != "gradient":
        bad = ~torch.isfinite(tensor).reshape(len(tensor), -1).all(1)
        raise NonfiniteScore(message, start + int(bad.nonzero()[0]))
    raise BadInput(message)


def refuse_randomness(state: Tensor, score_again: Callable[[], Tensor]) -> None:
    """Refuse a forward pass that draws random numbers and differs because of them.

    `state` is that of torch's generator before the pass.

    Only draws from torch's own generator show, at no cost. A generator that the model keeps to
    itself, or numpy's, would take a second pass of every model to notice.
    """
    if not torch.equal(state, torch.get_rng_state()) and not torch.equal(
        score_again(), score_again()
    ):
        raise BadInput(
            "two forward passes on the same input differ: the model draws random numbers, which no "
            "explanation can follow; make it deterministic (model.eval(), a fixed generator)"
        )


def differentiable_recurrence(
    model: Callable[..., Any], device: torch.device
) -> AbstractContextManager[None]:
    """Within, recurrent layers have a backward pass in eval mode, which those of cuDNN lack."""
    if (
        device.type == "cuda"
        and isinstance(model, nn.Module)
        and any(isinstance(module, nn.RNNBase) for module in model.modules())
    ):
        return torch.backends.cudnn.flags(enabled=False)
    return nullcontext()
