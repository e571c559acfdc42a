"""What kind of thing each operation is, by its name.

A name is the function's own without underscores at its ends, so that `torch.relu`, `F.relu`,
`x.relu_()` and, inside, `nn.ReLU` are one operation. Whatever is in no list is refused.
"""

from __future__ import annotations

from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Move or copy numbers; their own backward pass is right for every rule.
STRUCTURAL = _words(
    "view view_as reshape reshape_as flatten unflatten ravel permute transpose t swapaxes "
    "swapdims movedim moveaxis squeeze unsqueeze contiguous clone to type type_as float double "
    "half bfloat16 cpu cuda expand expand_as broadcast_to repeat tile repeat_interleave getitem "
    "select narrow chunk split tensor_split unbind hsplit vsplit index_select gather "
    "take_along_dim roll flip pad cat concat concatenate stack hstack vstack dstack dropout "
    "dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout "
    "masked_fill where pixel_shuffle pixel_unshuffle unfold scatter_add index_add scatter "
    "index_put index_copy diagonal tril triu atleast_1d atleast_2d T mT H mH real requires_grad"
)

# Linear in all their operands together.
ADDITIVE = _words("add sub rsub neg negative")

# Linear in what is explained, when only one operand is.
LINEAR = _words(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution "
    "batch_norm mean sum nansum cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample fold"
)

# Linear in either of two operands.
BILINEAR = _words("mul multiply matmul mm bmm einsum rmul addmm baddbmm mv dot outer rmatmul")

# y_i depends on x_i alone.
ELEMENTWISE = _words(
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish "
    "hardsigmoid sigmoid logsigmoid log_sigmoid tanh tanhshrink softsign softplus softshrink "
    "hardshrink threshold exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square pow abs "
    "absolute clamp clamp_min clamp_max clip reciprocal sin cos tan atan arctan sinh cosh asinh "
    "erf erfc"
)

# Those that gate their input: the nonlinearities of guided backprop and deconvolution.
GATES = _words(
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish "
    "threshold softplus"
)

# Of several entries one, the largest.
MAX_POOLS = frozenset(f"{kind}max_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3))

# Answer a question about a tensor: no tensor, or one that has no gradient.
QUERIES = _words(
    "size dim ndim ndimension numel nelement shape stride dtype device layout is_contiguous "
    "is_floating_point is_complex is_cuda is_sparse is_quantized is_nested is_leaf is_meta len "
    "element_size data_ptr get_device requires_grad grad_fn grad retain_grad storage_offset "
    "names gt lt ge le eq ne greater less greater_equal less_equal not_equal isnan isinf "
    "isfinite argmax argmin argsort zeros_like ones_like full_like empty_like rand_like "
    "randn_like new_zeros new_ones new_full new_empty new_tensor register_hook is_inference "
    "is_same_size hash repr format bool all any"
)

_PREFIXES = ("r", "i")  # __radd__, __iadd__
_ARITHMETIC = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "div": "div", "matmul": "matmul",
    "pow": "pow", "true_divide": "div", "divide": "div", "subtract": "sub",
}  # fmt: skip


def name_of(func: Any) -> str:
    """The operation's name: of a property its attribute, of a dunder its arithmetic."""
    name = getattr(func, "__name__", "") or type(func).__name__
    if name == "__get__":
        return getattr(func.__self__, "__name__", "get")
    bare = name.strip("_")
    if name.startswith("__") and bare[:1] in _PREFIXES and bare[1:] in _ARITHMETIC:
        swapped = bare[0] == "r" and bare[1:] in {"sub", "truediv", "div", "pow", "matmul"}
        return ("r" if swapped else "") + _ARITHMETIC[bare[1:]]
    return _ARITHMETIC.get(bare, bare)


def in_place(func: Any) -> bool:
    """Whether the call writes into its first argument: `relu_`, `+=`."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__"}
    return name.endswith("_") and not name.startswith("_")
