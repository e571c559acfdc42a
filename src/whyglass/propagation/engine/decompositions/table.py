"""Which operation has which decomposition; parameters have the names that torch gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from whyglass.propagation.engine import complex_numbers
from whyglass.propagation.engine.decompositions import (
    attention,
    layers,
    losses,
    norms,
    products,
    reductions,
)
from whyglass.propagation.engine.decompositions.recurrent import RECURRENT

# A decomposition that returns NotImplemented leaves this call to the operation's own rule.
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "log_softmax": reductions.log_softmax,
    "softmin": reductions.softmin,
    "logaddexp": reductions.logaddexp,
    "logaddexp2": reductions.logaddexp2,
    "logcumsumexp": reductions.logcumsumexp,
    "amax": reductions.highest,
    "amin": reductions.lowest,
    "aminmax": reductions.both_extremes,
    "max": reductions.extreme(
        reductions.highest, torch.argmax, torch.return_types.max, reductions.maximum
    ),
    "min": reductions.extreme(
        reductions.lowest, torch.argmin, torch.return_types.min, reductions.minimum
    ),
    "maximum": reductions.maximum,
    "minimum": reductions.minimum,
    "fmax": reductions.maximum,
    "fmin": reductions.minimum,
    "prod": reductions.product,
    "cumprod": reductions.cumulative_product,
    "sort": reductions.sort,
    "msort": reductions.msort,
    "topk": reductions.topk,
    "kthvalue": reductions.kth_value,
    "median": reductions.median,
    "quantile": reductions.quantile,
    "cummax": reductions.cumulative_extreme(torch.ge, torch.return_types.cummax),
    "cummin": reductions.cumulative_extreme(torch.le, torch.return_types.cummin),
    "scatter": reductions.scatter,
    "scatter_reduce": reductions.scatter_reduce,
    "div": products.divide,
    "rdiv": products.divide_swapped,
    "lerp": products.lerp,
    "addcmul": products.addcmul,
    "addcdiv": products.addcdiv,
    "addmm": products.addmm,
    "baddbmm": products.baddbmm,
    "addbmm": products.addbmm,
    "addmv": products.addmv,
    "addr": products.addr,
    "einsum": products.einsum,
    "bilinear": products.bilinear,
    "tensordot": products.tensordot,
    "linalg_multi_dot": products.chain_of_matrices,
    "xlogy": products.x_log_y,
    "cov": products.covariance,
    "corrcoef": products.correlation,
    "hypot": products.hypotenuse,
    "mse_loss": losses.mean_squared_error,
    "l1_loss": losses.mean_absolute_error,
    "cross_entropy": losses.cross_entropy,
    "binary_cross_entropy_with_logits": losses.cross_entropy_of_logits,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "local_response_norm": norms.local_response_norm,
    "normalize": norms.normalize,
    "cosine_similarity": norms.cosine_similarity,
    "pairwise_distance": norms.pairwise_distance,
    "cdist": norms.distance_matrix,
    "dist": norms.distance,
    "var": norms.variance,
    "std": norms.deviation,
    "var_mean": norms.variance_and_mean,
    "std_mean": norms.deviation_and_mean,
    "norm": norms.norm,
    "linalg_norm": norms.norm,
    "linalg_vector_norm": norms.norm,
    "glu": layers.glu,
    **{
        f"{kind}max_pool{axes}d_with_indices": layers.pool_with_indices(f"{kind}max_pool{axes}d")
        for kind in ("", "adaptive_")
        for axes in (1, 2, 3)
    },
    "diff": layers.differences,
    **{f"lp_pool{axes}d": layers.power_mean_pool(axes) for axes in (1, 2, 3)},
    "iter": layers.rows_of,
    "abs": complex_numbers.modulus,
    "polar": complex_numbers.polar,
    "scaled_dot_product_attention": attention.scaled_dot_product_attention,
    "multi_head_attention_forward": attention.multi_head_attention_forward,
    **RECURRENT,
}

# Decompositions of operations that have a rule while one operand descends from the input, and no
# rule for more.
OF_SEVERAL: dict[str, Callable[..., Any]] = {
    "pow": products.power,
    "float_power": products.power,
    "remainder": products.remainder,
    "fmod": products.fractional_remainder,
    "copysign": products.with_sign_of,
    "ldexp": products.times_power_of_two,
    "prelu": layers.parametric_relu,
    "clamp": reductions.clamp,
    "clamp_min": reductions.clamp,
    "clamp_max": reductions.clamp,
    **{
        name: products.with_bias(name)
        for name in ("linear", *(f"conv{k}{d}d" for k in ("", "_transpose") for d in (1, 2, 3)))
    },
}

# Decompositions of operations whose rules know one operand, the first, for calls where a weight
# descends from the input, too.
OF_WEIGHTS: dict[str, Callable[..., Any]] = {
    name: norms.with_tracked_weights(name)
    for name in ("layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm")
}

# An operand in which the operation is no linear map, though it is one in the others.
NOT_LINEAR_IN: dict[str, tuple[str, Callable[..., Any]]] = {
    "grid_sample": ("grid", layers.sample_at),
}


def copied(input: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """What `copy_` writes."""
    return torch.as_tensor(src).to(input).expand_as(input)


def filled(input: Tensor, value: Any) -> Tensor:
    """What `fill_` writes."""
    return torch.as_tensor(value).to(input).expand_as(input)


def zeroed(input: Tensor) -> Tensor:
    """What `zero_` writes."""
    return torch.zeros_like(input)


def assigned(input: Tensor, key: Any, value: Any) -> Tensor:
    """What `x[key] = value` makes of x."""
    result = input.clone()
    result[key] = value
    return result


# In-place calls for which torch has no function that works out of place.
WRITERS: dict[str, Callable[..., Any]] = {
    "copy": copied,
    "fill": filled,
    "zero": zeroed,
    "setitem": assigned,
}
