"""Attention in elementary operations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass.core.errors import Unsupported


def scaled_dot_product_attention(
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
            F.linear(source, weight, bias)
            for source, weight, bias in zip((query, key, value), weights, biases, strict=True)
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
    """Both masks as one mask to be added, (B or 1, heads or 1, L, S)."""
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
