"""Composite operations in elementary ones. Each runs under the mode, so its calls meet the rules.

The first argument is the engine, for what a tensor is at the baseline; the rest are the operation's
own, by the names torch gives them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function

from whyglass.core.errors import Unsupported
from whyglass.propagation.engine.recurrent import RECURRENT

if TYPE_CHECKING:
    from whyglass.propagation.engine.interception import Propagation


def _dtype(given: tuple[Any, ...]) -> torch.dtype | None:
    """Where a softmax is told its type: by position after an internal number, or by name."""
    return next((one for one in given if isinstance(one, torch.dtype)), None)


def log_softmax(_: Propagation, input: Tensor, dim: int, *rest: Any, **named: Any) -> Tensor:  # noqa: A002  torch's name
    """x - log sum exp x."""
    wanted = _dtype((*rest, *named.values()))
    input = input if wanted is None else input.to(wanted)  # noqa: A001  torch's name
    return input - torch.logsumexp(input, dim, keepdim=True)


def quotient(a: Any, b: Tensor) -> Tensor:
    """a / b as one operation that the mode sees, whoever spelled it."""
    if has_torch_function((a, b)):
        return handle_torch_function(quotient, (a, b), a, b)
    return a / b


def divide(_: Propagation, a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    """a / b, or a times a constant."""
    if rounding_mode is not None:
        raise Unsupported("division with rounding has no gradient and no rule")
    return quotient(a, b) if isinstance(b, Tensor) else torch.mul(a, 1 / b)


def divide_swapped(_: Propagation, b: Tensor, a: Any) -> Tensor:
    """a / b, called as b's method."""
    return quotient(a, b)


def addmm(
    _: Propagation, c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """beta c + alpha a b."""
    return beta * c + alpha * torch.matmul(a, b)


def _standardise(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(torch.square(centred).mean(axes, keepdim=True) + eps)


def group_norm(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *__: Any,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias within groups of channels."""
    shape = input.shape
    found = _standardise(input.reshape(shape[0], num_groups, -1), (-1,), eps).reshape(shape)
    return _affine(found, weight, bias)


def instance_norm(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *__: Any,
) -> Tensor:
    """Standardised over space, or by the running statistics."""
    if use_input_stats or running_mean is None or running_var is None:
        return _affine(_standardise(input, tuple(range(2, input.dim())), eps), weight, bias)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    shape = (1, -1, *[1] * (x.dim() - 2))
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def glu(_: Propagation, input: Tensor, dim: int = -1) -> Tensor:  # noqa: A002  torch's name
    """a sigmoid(b), of the two halves."""
    a, b = input.chunk(2, dim)
    return a * torch.sigmoid(b)


def _axes(x: Tensor, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes meant, counted from the front."""
    if dim is None or dim == ():
        return tuple(range(x.dim()))
    return tuple(d % x.dim() for d in ((dim,) if isinstance(dim, int) else dim))


def variance(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    dim: int | Sequence[int] | bool | None = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """sum (x - mean)^2 / (n - correction)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = _axes(input, dim)
    count = math.prod(input.shape[axis] for axis in axes)
    free = count - (float(unbiased) if correction is None else correction)
    centred = input - input.mean(axes, keepdim=True)
    return torch.square(centred).sum(axes, keepdim=keepdim) / free


def deviation(engine: Propagation, *args: Any, **kwargs: Any) -> Tensor:
    """The square root of the variance."""
    return torch.sqrt(variance(engine, *args, **kwargs))


def norm(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    p: float | str | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    **named: Any,
) -> Tensor:
    """sqrt(sum x^2)."""
    if named.get("ord", p) not in {2, "fro", None} or named.get("dtype") is not None:
        raise Unsupported("of norms only the Euclidean one, in its own dtype, has a rule")
    return torch.sqrt(torch.square(input).sum(_axes(input, dim), keepdim=keepdim))


def normalize(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    p: float = 2.0,
    dim: int = 1,
    eps: float = 1e-12,
    **__: Any,
) -> Tensor:
    """x / max(|x|, eps)."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps)


def highest(
    _: Propagation,
    input: Tensor,  # noqa: A002  torch's name
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
) -> Tensor:
    """max x, as one pooling window over the axes."""
    axes = _axes(input, dim)
    rest = [axis for axis in range(input.dim()) if axis not in axes]
    kept = [input.shape[axis] for axis in rest]
    rows = input.permute(*rest, *axes).reshape(math.prod(kept), 1, -1)
    shape = [1 if axis in axes else size for axis, size in enumerate(input.shape)]
    return F.max_pool1d(rows, rows.shape[-1]).reshape(shape if keepdim else kept)


def lowest(engine: Propagation, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002  torch's name
    """-max(-x)."""
    return -highest(engine, -input, *args, **kwargs)


def _with_places(reduce: Callable[..., Tensor], place: Any, pair: Any, binary: Any) -> Any:
    """`max` and `min`: of all, along an axis with the places, or of two tensors."""

    def run(
        engine: Propagation,
        input: Tensor,  # noqa: A002  torch's name
        dim: Any = None,
        keepdim: bool = False,
        *,
        other: Tensor | None = None,
    ) -> Any:
        if other is not None or isinstance(dim, Tensor):
            return binary(engine, input, dim if other is None else other)
        found = reduce(engine, input, dim, keepdim)
        return found if dim is None else pair((found, place(input, dim, keepdim)))

    return run


def maximum(_: Propagation, a: Tensor, b: Tensor) -> Tensor:
    """a + relu(b - a)."""
    return a + torch.relu(b - a)


def minimum(_: Propagation, a: Tensor, b: Tensor) -> Tensor:
    """a - relu(a - b)."""
    return a - torch.relu(a - b)


def scaled_dot_product_attention(
    _: Propagation,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T * scale + mask) v."""
    if enable_gqa:
        repeat = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeat, -3), value.repeat_interleave(repeat, -3)
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        size = scores.shape[-2:]
        attn_mask = torch.ones(size, dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min / 4)
        else:
            scores = scores + attn_mask.clamp_min(torch.finfo(scores.dtype).min / 4)
    return torch.matmul(F.softmax(scores, -1), value)


def multi_head_attention_forward(
    _: Propagation,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Projections, attention by heads, projection; inputs (L, B, E) or (L, E)."""
    if bias_k is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise Unsupported(
            "multi-head attention with bias_k, add_zero_attn or static keys has no rule"
        )
    single = query.dim() == 2
    same = query is key and key is value
    if single:
        query, key, value = (t.unsqueeze(1) for t in (query, key, value))
    if same and not use_separate_proj_weight:
        assert in_proj_weight is not None
        parts = F.linear(query, in_proj_weight, in_proj_bias).chunk(3, -1)
    else:
        weights = (q_proj_weight, k_proj_weight, v_proj_weight)
        if not use_separate_proj_weight:
            assert in_proj_weight is not None
            weights = in_proj_weight.chunk(3)
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        parts = [
            F.linear(given, weight, bias)
            for given, weight, bias in zip((query, key, value), weights, biases, strict=True)
            if weight is not None
        ]
    length, batch, _width = query.shape
    q, k, v = (
        part.reshape(part.shape[0], batch, num_heads, -1).permute(1, 2, 0, 3) for part in parts
    )
    mask = _attention_mask(attn_mask, key_padding_mask, batch, num_heads, q.dtype)
    if need_weights:
        scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
        weights_ = F.softmax(scores if mask is None else scores + mask, -1)
        mixed = torch.matmul(weights_, v)
    else:
        weights_, mixed = None, F.scaled_dot_product_attention(q, k, v, mask)
    mixed = mixed.permute(2, 0, 1, 3).reshape(length, batch, -1)
    result = F.linear(mixed, out_proj_weight, out_proj_bias)
    if single:
        result = result.squeeze(1)
    if weights_ is None:
        return result, None
    shown = weights_.mean(1) if average_attn_weights else weights_
    return result, shown.squeeze(0) if single else shown


def _attention_mask(
    attn_mask: Tensor | None, padding: Tensor | None, batch: int, heads: int, dtype: torch.dtype
) -> Tensor | None:
    """Both masks as one to be added, (B or 1, heads or 1, L, S)."""
    low = torch.finfo(dtype).min / 4
    total: Tensor | None = None
    if attn_mask is not None:
        total = _additive(attn_mask, dtype, low)
        total = total if total.dim() == 2 else total.reshape(batch, heads, *total.shape[1:])
    if padding is not None:
        extra = _additive(padding, dtype, low).reshape(batch, 1, 1, -1)
        total = extra if total is None else total + extra
    return total


def _additive(mask: Tensor, dtype: torch.dtype, low: float) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, low)
    return mask.to(dtype).clamp_min(low)


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "log_softmax": log_softmax,
    "div": divide,
    "rdiv": divide_swapped,
    "addmm": addmm,
    "baddbmm": addmm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "glu": glu,
    "var": variance,
    "std": deviation,
    "norm": norm,
    "linalg_norm": norm,
    "linalg_vector_norm": norm,
    "normalize": normalize,
    "amax": highest,
    "amin": lowest,
    "max": _with_places(highest, torch.argmax, torch.return_types.max, maximum),
    "min": _with_places(lowest, torch.argmin, torch.return_types.min, minimum),
    "maximum": maximum,
    "minimum": minimum,
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
    **RECURRENT,
}
