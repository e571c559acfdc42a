"""What kind of thing each operation is, by its name.

A name is the function's own without underscores at its ends, so that `torch.relu`, `F.relu`,
`x.relu_()` and, inside, `nn.ReLU` are one operation. Whatever is in no list is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Move or copy numbers; their own backward pass is right for every rule.
STRUCTURAL = _words(
    "view view_as reshape reshape_as flatten unflatten ravel permute transpose t swapaxes "
    "swapdims movedim moveaxis squeeze unsqueeze contiguous clone to type type_as float double "
    "half bfloat16 cpu cuda expand expand_as broadcast_to repeat tile repeat_interleave getitem "
    "select narrow chunk split tensor_split unbind hsplit vsplit dsplit index_select gather "
    "take_along_dim roll flip pad cat concat concatenate stack hstack vstack dstack dropout "
    "dropout1d dropout2d dropout3d feature_dropout alpha_dropout feature_alpha_dropout "
    "masked_fill where pixel_shuffle pixel_unshuffle unfold scatter_add index_add scatter "
    "index_put index_copy diagonal tril triu atleast_1d atleast_2d atleast_3d T mT H mH adjoint "
    "real imag requires_grad setitem as_strided laid_out with_part slice_scatter select_scatter "
    "diagonal_scatter diag diag_embed diagflat view_as_real view_as_complex complex conj "
    "conj_physical resolve_conj resolve_neg split_with_sizes unsafe_chunk unsafe_split "
    "unsafe_split_with_sizes take rot90 fliplr flipud block_diag column_stack row_stack meshgrid "
    "broadcast_tensors cartesian_prod masked_select masked_scatter index_fill unravel_index "
    "narrow_copy positive alias channel_shuffle native_channel_shuffle reversed im2col "
    "constant_pad_nd permute_copy expand_copy view_copy unfold_copy select_copy squeeze_copy "
    "unsqueeze_copy transpose_copy diagonal_copy unbind_copy split_copy split_with_sizes_copy "
    "alias_copy t_copy as_strided_copy view_as_real_copy view_as_complex_copy "
    "copy fill zero pack_padded_sequence pad_packed_sequence pad_sequence "
    "fft_fftshift fft_ifftshift max_unpool1d max_unpool2d "
    "max_unpool3d combinations chalf cfloat cdouble unsafe_index"
)

# These operations are linear in all their operands together.
ADDITIVE = _words("add sub rsub neg negative subtract")

# These are linear in what is explained, when only one operand is. "linear_map" and "bilinear_map"
# are those on complex numbers, as pairs of real ones.
LINEAR = _words(
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution "
    "batch_norm mean sum nansum cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d interpolate upsample fold col2im trace diff "
    "grid_sample affine_grid sum_to_size conv_tbc linear_map"
)

# These are linear in either of two operands.
BILINEAR = _words(
    "mul multiply matmul mm bmm einsum rmul addmm baddbmm mv dot outer rmatmul bilinear_map inner "
    "kron vdot cross vecdot"
)

# These are linear over the complex numbers, and their results are complex or were.
FOURIER = _words("stft istft") | frozenset(
    f"fft_{i}{kind}{d}"
    for i in ("", "i")
    for kind in ("fft", "rfft", "hfft")
    for d in ("", "2", "n")
)

# y_i depends on x_i alone.
ELEMENTWISE = _words(
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish "
    "hardsigmoid sigmoid logsigmoid log_sigmoid tanh tanhshrink softsign softplus softshrink "
    "hardshrink threshold exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square pow abs "
    "absolute clamp clamp_min clamp_max reciprocal sin cos tan atan sinh cosh asinh acosh atanh "
    "asin acos erf erfc erfinv erfcx i0 i0e i1 i1e sinc lgamma digamma polygamma logit deg2rad "
    "rad2deg nan_to_num floor ceil round trunc frac sign sgn rpow float_power ndtr ndtri log_ndtr "
    "entr psi multigammaln mvlgamma remainder fmod copysign bessel_j0 bessel_j1 bessel_y0 bessel_y1 "
    "modified_bessel_i0 modified_bessel_i1 ldexp heaviside gammaln atan2"
)

# These gate their input: the nonlinearities of guided backprop and deconvolution.
GATES = _words(
    "relu relu6 hardtanh leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish "
    "threshold softplus"
)

# These choose the largest of several entries.
MAX_POOLS = frozenset(f"{kind}max_pool{d}d" for kind in ("", "adaptive_") for d in (1, 2, 3))

# Numbers that the gradient takes for constants; `numpy` is an error of torch on what has a gradient.
CONSTANTS = _words("detach data item tolist detach_copy numpy")

COMPARISONS = _words("gt lt ge le eq ne")

# New tensors that take no more than a shape from an old one.
CREATIONS = _words(
    "zeros_like ones_like full_like empty_like rand_like randn_like randint_like new_zeros new_ones "
    "new_full new_empty new_empty_strided new_tensor"
)

# These take no more than a shape or a type from their second argument.
LIKE_ANOTHER = _words("expand_as view_as reshape_as type_as")

# Yes or no to Python, which may branch on it.
ANSWERS = _words("bool equal allclose is_nonzero contains")

# These answer a question about a tensor: no tensor, or one that has no gradient.
QUERIES = (
    COMPARISONS
    | CREATIONS
    | _words(
        "size dim ndim ndimension numel nelement shape stride dtype device layout is_contiguous "
        "is_floating_point is_complex is_cuda is_sparse is_quantized is_nested is_leaf is_meta "
        "len "
        "element_size data_ptr get_device requires_grad grad_fn grad retain_grad storage_offset "
        "names isnan isinf isfinite "
        "isneginf isposinf isreal signbit argmax argmin argsort register_hook "
        "is_inference is_same_size hash repr str format bool all any nonzero argwhere count_nonzero "
        "logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor "
        "bitwise_left_shift bitwise_right_shift one_hot bincount searchsorted bucketize isin unique "
        "unique_consecutive histc histogram long int short byte char floor_divide "
        "rfloordiv floordiv "
        "equal allclose isclose is_nonzero is_neg is_conj is_signed is_pinned is_shared is_set_to "
        "result_type "
        "can_cast nbytes itemsize untyped_storage version output_nr has_names is_cpu is_mps "
        "is_xpu is_mkldnn is_xla dim_order contains and or xor invert"
    )
)

# Two functions may compute the same: this names the one that has a rule.
_SAME = {
    "add": "add", "sub": "sub", "mul": "mul", "truediv": "div", "div": "div", "matmul": "matmul",
    "pow": "pow", "true_divide": "div", "divide": "div", "subtract": "sub", "clip": "clamp",
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "arcsinh": "asinh", "arccosh": "acosh",
    "arctanh": "atanh", "fix": "trunc", "expit": "sigmoid", "greater": "gt", "less": "lt",
    "greater_equal": "ge", "less_equal": "le", "not_equal": "ne",
    "arctan2": "atan2", "concatenate": "cat", "concat": "cat", "linalg_matmul": "matmul",
    "linalg_vecdot": "vecdot", "linalg_cross": "cross", "linalg_diagonal": "diagonal",
    "row_stack": "vstack", "ger": "outer",
    "absolute": "abs", "negative": "neg", "multiply": "mul", "mvlgamma": "multigammaln",
}  # fmt: skip
_PREFIXES = ("r", "i")  # __radd__, __iadd__
_ARITHMETIC = frozenset({"add", "sub", "mul", "truediv", "div", "matmul", "pow"})
# These are operators of a number in Python.
_TO_NUMBER = frozenset({"__float__", "__int__", "__index__", "__complex__"})
_IN_PLACE = frozenset(
    {"__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ipow__", "__setitem__"}
)


def name_of(func: Any) -> str:
    """The operation's name: of a property its attribute, of a dunder its arithmetic."""
    name = getattr(func, "__name__", "") or type(func).__name__
    if name == "__get__":
        return getattr(func.__self__, "__name__", "get")
    if name in _TO_NUMBER:
        return "item"
    bare = name.strip("_").removeprefix("special_")
    if name.startswith("__") and bare[:1] in _PREFIXES and bare[1:] in _ARITHMETIC:
        swapped = bare[0] == "r" and bare[1:] in {"sub", "truediv", "div", "pow", "matmul"}
        return ("r" if swapped else "") + _SAME[bare[1:]]
    return _SAME.get(bare, bare)


def schema_names(func: Callable[..., Any]) -> tuple[str, ...]:
    """Under which names torch may keep the function's schemas."""
    name: str = getattr(func, "__name__", "")
    return tuple(dict.fromkeys((name, name.strip("_"), name_of(func))))


def in_place(func: Any) -> bool:
    """Whether the call writes into its first argument: `relu_`, `+=`."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in _IN_PLACE
    return name.endswith("_") and not name.startswith("_")
