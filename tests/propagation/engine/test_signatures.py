"""Every operation that the engine takes apart, called in every form that torch allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from whyglass import LRP, DeepLIFT, GuidedBackprop
from whyglass.propagation.engine.arguments import leaves_of
from whyglass.propagation.engine.decompositions.table import (
    DECOMPOSITIONS,
    NOT_LINEAR_IN,
    OF_SEVERAL,
    OF_WEIGHTS,
    WRITERS,
)
from whyglass.propagation.engine.linear_operations import BIASED, PRODUCTS
from whyglass.propagation.engine.operations import MAX_POOLS
from whyglass.propagation.engine.signatures import bind

X = torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Make = Callable[[Tensor], dict[str, Any]]


def matrix(x: Tensor) -> Tensor:
    return x.reshape(-1, 2, 3) * 1.0


def square(x: Tensor) -> Tensor:
    return x[:, :4].reshape(-1, 2, 2) * 1.0


def image(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(1) * 2, x], 1)[:, :16].reshape(-1, 1, 4, 4)


def volume(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(1) * 2], 1)[:, :8].reshape(-1, 1, 2, 2, 2)


def channels(x: Tensor) -> Tensor:
    return torch.cat([x, x.flip(1) * 2], 1).reshape(-1, 2, 6)


def positive(x: Tensor) -> Tensor:
    return x.square() + 0.5


def constant(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def recurrent(gates: int, states: int) -> Make:
    def make(x: Tensor) -> dict[str, Any]:
        first = torch.zeros(1, len(x), 2, dtype=x.dtype)
        weights = [constant(2 * gates, 3), constant(2 * gates, 2), constant(2 * gates)]
        return {
            "input": matrix(x),
            "hx": [first, first] if states == 2 else first,
            "params": [*weights, weights[-1]],
            "has_biases": True,
            "num_layers": 1,
            "dropout": 0.0,
            "train": False,
            "bidirectional": False,
            "batch_first": True,
        }

    return make


def cell(gates: int, states: int) -> Make:
    def make(x: Tensor) -> dict[str, Any]:
        state = x[:, :2] * 2
        return {
            "input": x[:, 3:],
            "hx": [state, state.tanh()] if states == 2 else state,
            "w_ih": constant(2 * gates, 3),
            "w_hh": constant(2 * gates, 2),
            "b_ih": constant(2 * gates),
            "b_hh": constant(2 * gates),
        }

    return make


def attention(x: Tensor) -> dict[str, Any]:
    tokens = matrix(x).transpose(0, 1)
    return {
        "query": tokens,
        "key": tokens * 2,
        "value": tokens.flip(0),
        "embed_dim_to_check": 3,
        "num_heads": 1,
        "in_proj_weight": constant(9, 3),
        "in_proj_bias": constant(9),
        "bias_k": None,
        "bias_v": None,
        "add_zero_attn": False,
        "dropout_p": 0.0,
        "out_proj_weight": constant(3, 3),
        "out_proj_bias": constant(3),
        "training": False,
    }


def sources(x: Tensor) -> dict[str, Any]:
    index = torch.tensor([[0, 1, 1, 0, 2, 2]]).expand(len(x), -1)
    return {"input": x[:, :3] * 1.0, "dim": 1, "index": index, "src": x * 2}


def windows(axes: int, **named: Any) -> Make:
    maker = {1: channels, 2: image, 3: volume}[axes]
    return lambda x: {"input": maker(x), **named}


def convolution(axes: int) -> Make:
    maker = {1: channels, 2: image, 3: volume}[axes]

    def make(x: Tensor) -> dict[str, Any]:
        count = maker(x).shape[1]
        return {
            "input": maker(x),
            "weight": constant(count, count, *[2] * axes),
            "bias": constant(count),
            "stride": 1,
            "padding": 0,
        }

    return make


def of(function: Any, make: Make, **only: Any) -> tuple[Any, Make, dict[str, Any]]:
    """A function, arguments that stand by position or by name, and those by name alone."""
    return function, make, only


PAIR: Make = lambda x: {"input": x * 1.0, "other": x.flip(1)}  # noqa: E731
ALONG: Make = lambda x: {"input": x * 1.0, "dim": 1, "keepdim": True}  # noqa: E731
# By the name of the operation; several where a name has several functions.
CALLS: dict[str, list[tuple[Any, Make, dict[str, Any]]]] = {
    "log_softmax": [
        of(torch.log_softmax, lambda x: {"input": x, "dim": 1, "dtype": torch.float64}),
        of(F.log_softmax, lambda x: {"input": x, "dim": 1}, dtype=torch.float64),
    ],
    "softmax": [of(torch.softmax, lambda x: {"input": x, "dim": 1, "dtype": torch.float64}),
                of(F.softmax, lambda x: {"input": x, "dim": -1})],
    "softmin": [of(F.softmin, lambda x: {"input": x, "dim": 1})],
    "logsumexp": [of(torch.logsumexp, lambda x: {"input": x, "dim": (1,), "keepdim": True})],
    "logaddexp": [of(torch.logaddexp, PAIR)],
    "logaddexp2": [of(torch.logaddexp2, PAIR)],
    "logcumsumexp": [of(torch.logcumsumexp, lambda x: {"input": x, "dim": 1})],
    "amax": [of(torch.amax, lambda x: {"input": x, "dim": (1,), "keepdim": True})],
    "amin": [of(torch.amin, lambda x: {"input": x, "dim": (1,), "keepdim": True})],
    "aminmax": [of(torch.aminmax, lambda x: {"input": x}, dim=1, keepdim=True)],
    "max": [of(torch.max, ALONG), of(torch.max, PAIR)],
    "min": [of(torch.min, ALONG), of(torch.min, PAIR)],
    "maximum": [of(torch.maximum, PAIR)],
    "minimum": [of(torch.minimum, PAIR)],
    "fmax": [of(torch.fmax, PAIR)],
    "fmin": [of(torch.fmin, PAIR)],
    "prod": [of(torch.prod, ALONG, dtype=torch.float64)],
    "cumprod": [of(torch.cumprod, lambda x: {"input": x * 1.0, "dim": 1}, dtype=torch.float64)],
    "sort": [of(torch.sort, lambda x: {"input": x, "dim": 1, "descending": True})],
    "msort": [of(torch.msort, lambda x: {"input": x})],
    "topk": [of(torch.topk, lambda x: {
        "input": x, "k": 2, "dim": 1, "largest": False, "sorted": True})],
    "kthvalue": [of(torch.kthvalue, lambda x: {"input": x, "k": 2, "dim": 1, "keepdim": True})],
    "median": [of(torch.median, ALONG)],
    "quantile": [of(torch.quantile, lambda x: {
        "input": x, "q": 0.3, "dim": 1, "keepdim": True}, interpolation="linear")],
    "cummax": [of(torch.cummax, lambda x: {"input": x, "dim": 1})],
    "cummin": [of(torch.cummin, lambda x: {"input": x, "dim": 1})],
    "scatter": [of(torch.scatter, sources, reduce="add")],
    "scatter_reduce": [
        of(torch.scatter_reduce, lambda x, r=reduce: {**sources(x), "reduce": r}, include_self=own)
        for reduce in ("sum", "mean") for own in (True, False)
    ],
    "div": [
        of(torch.div, lambda x: {"input": x * 1.0, "other": positive(x)}, rounding_mode=None),
        of(torch.true_divide, lambda x: {"input": x * 1.0, "other": positive(x)}),
        of(torch.div, lambda x: {"input": x * 1.0, "other": 3.0}),
    ],
    "rdiv": [of(Tensor.__rdiv__, lambda x: {"self": positive(x), "other": 2.0})],
    "lerp": [of(torch.lerp, lambda x: {"input": x * 1.0, "end": x.flip(1), "weight": 0.3})],
    "addcmul": [of(torch.addcmul, lambda x: {
        "input": x * 1.0, "tensor1": x.flip(1), "tensor2": x.tanh()}, value=0.5)],
    "addcdiv": [of(torch.addcdiv, lambda x: {
        "input": x * 1.0, "tensor1": x.flip(1), "tensor2": positive(x)}, value=0.5)],
    "addmm": [of(torch.addmm, lambda x: {
        "input": x.new_ones(2, 2), "mat1": x[:2], "mat2": x[:2].T.tanh()}, beta=0.5, alpha=2.0)],
    "baddbmm": [of(torch.baddbmm, lambda x: {
        "input": square(x), "batch1": matrix(x), "batch2": matrix(x).mT}, beta=0.5, alpha=2.0)],
    "addbmm": [of(torch.addbmm, lambda x: {
        "input": square(x)[0], "batch1": matrix(x), "batch2": matrix(x).mT}, beta=0.5, alpha=2.0)],
    "addmv": [of(torch.addmv, lambda x: {
        "input": x[:, 0] * 1.0, "mat": x, "vec": x[0].tanh()}, beta=0.5, alpha=2.0)],
    "addr": [of(torch.addr, lambda x: {
        "input": x[:, :2] * 1.0, "vec1": x[:, 3], "vec2": x[0, :2].tanh()}, beta=0.5, alpha=2.0)],
    "einsum": [
        of(torch.einsum, lambda x, e=equation, n=count: {
            "equation": e, "operands": [x, x.tanh(), x.exp() / 9][:n]})
        for equation, count in (
            ("bi->b", 1), ("...i->i...", 1), ("bi,bj->bij", 2), ("bi,bi", 2), ("b...,b...->b...", 2),
            ("bi,bj,bk->bik", 3), ("bi,bi,bi->b", 3), ("...i,...i,...j->...j", 3),
            ("bi, bj, bi -> bj", 3),
        )
    ],
    "bilinear": [of(F.bilinear, lambda x: {
        "input1": x, "input2": x.tanh(), "weight": constant(2, 6, 6), "bias": constant(2)})],
    "tensordot": [
        of(torch.tensordot, lambda x, d=dims: {"a": matrix(x), "b": matrix(x).mT.tanh(), "dims": d})
        for dims in (2, ([1], [2]), ([2], [1]), ([2, 1], [1, 2]))
    ],
    "linalg_multi_dot": [of(torch.linalg.multi_dot, lambda x: {
        "tensors": [x[:2], x[:2].T, x[:2].tanh()]})],
    "xlogy": [of(torch.xlogy, lambda x: {"input": x * 1.0, "other": positive(x)}),
              of(torch.special.xlogy, lambda x: {"input": x * 1.0, "other": positive(x)})],
    "hypot": [of(torch.hypot, PAIR)],
    "mse_loss": [of(F.mse_loss, lambda x: {"input": x, "target": x.flip(1)}, reduction="sum")],
    "l1_loss": [of(F.l1_loss, lambda x: {"input": x, "target": x.flip(1)}, reduction="mean")],
    "cross_entropy": [
        of(F.cross_entropy, lambda x: {"input": x, "target": torch.tensor([1, 4])}, reduction="sum"),
        of(F.cross_entropy, lambda x: {"input": x, "target": x.flip(1).softmax(1)}),
    ],
    "binary_cross_entropy_with_logits": [of(F.binary_cross_entropy_with_logits, lambda x: {
        "input": x, "target": x.flip(1).sigmoid(), "weight": constant(6)}, reduction="sum")],
    "ldexp": [of(torch.ldexp, PAIR)],
    "prelu": [of(torch.prelu, lambda x: {"input": channels(x), "weight": x[0, :2] * 1.0})],
    "group_norm": [
        of(function, lambda x, w=weigh: {"input": channels(x), "num_groups": 2, "weight": w(x),
                                         "bias": constant(2), "eps": 0.1})
        for function in (F.group_norm, torch.group_norm)
        for weigh in (lambda _: constant(2), lambda x: x[0, :2] * 1.0)
    ],
    "instance_norm": [
        of(F.instance_norm, lambda x: {
            "input": channels(x), "running_mean": None, "running_var": None,
            "weight": constant(2), "bias": constant(2), "use_input_stats": True,
            "momentum": 0.2, "eps": 0.1}),
        of(torch.instance_norm, lambda x: {
            "input": channels(x), "weight": constant(2), "bias": constant(2), "running_mean": None,
            "running_var": None, "use_input_stats": True, "momentum": 0.2, "eps": 0.1,
            "cudnn_enabled": False}),
    ],
    "batch_norm": [
        of(F.batch_norm, lambda x: {
            "input": channels(x), "running_mean": constant(2), "running_var": constant(2).abs(),
            "weight": constant(2), "bias": constant(2), "training": False, "momentum": 0.2,
            "eps": 0.1}),
        of(torch.batch_norm, lambda x: {
            "input": channels(x), "weight": constant(2), "bias": constant(2),
            "running_mean": constant(2), "running_var": constant(2).abs(), "training": False,
            "momentum": 0.2, "eps": 0.1, "cudnn_enabled": False}),
    ],
    "layer_norm": [
        of(function, lambda x, w=weigh: {"input": x, "normalized_shape": (6,), "weight": w(x),
                                         "bias": w(x).flip(0), "eps": 0.1})
        for function in (F.layer_norm, torch.layer_norm)
        for weigh in (lambda _: constant(6), lambda x: x[0])
    ],
    "rms_norm": [
        of(function, lambda x: {
            "input": x, "normalized_shape": (6,), "weight": constant(6), "eps": 0.1})
        for function in (F.rms_norm, torch.rms_norm)
    ],
    "local_response_norm": [of(F.local_response_norm, lambda x: {
        "input": channels(x), "size": 2, "alpha": 0.5, "beta": 0.6, "k": 1.5})],
    "normalize": [of(F.normalize, lambda x: {"input": x, "p": 2.0, "dim": 1, "eps": 0.1})],
    "cosine_similarity": [of(F.cosine_similarity, lambda x: {
        "x1": x, "x2": x.flip(1).tanh(), "dim": 1, "eps": 0.1})],
    "pairwise_distance": [of(F.pairwise_distance, lambda x: {
        "x1": x, "x2": x.flip(1).tanh(), "p": 2.0, "eps": 0.1, "keepdim": True})],
    "cdist": [of(torch.cdist, lambda x: {"x1": matrix(x), "x2": matrix(x) * 2, "p": 2.0})],
    "dist": [of(torch.dist, lambda x: {"input": x, "other": x.flip(1).tanh(), "p": 2})],
    **{
        name: [
            of(function, lambda x: {"input": x, "dim": (1,)}, correction=2, keepdim=True),
            of(function, lambda x: {"input": x, "dim": (1,), "unbiased": False, "keepdim": True}),
        ]
        for name, function in (
            ("var", torch.var), ("std", torch.std), ("var_mean", torch.var_mean),
            ("std_mean", torch.std_mean),
        )
    },
    "norm": [
        of(torch.norm, lambda x, p=p: {"input": x, "p": p, "dim": 1, "keepdim": True})
        for p in (2, 1, 3, float("inf"), -float("inf"), "fro")
    ],
    "linalg_norm": [of(torch.linalg.norm, lambda x: {"input": x, "ord": 2, "dim": 1, "keepdim": True})],
    "linalg_vector_norm": [
        of(torch.linalg.vector_norm, lambda x: {"x": x, "ord": 3, "dim": 1, "keepdim": True})
    ],
    "glu": [of(F.glu, lambda x: {"input": x, "dim": 1})],
    "diff": [of(torch.diff, lambda x: {
        "input": x * 1.0, "n": 2, "dim": 1, "prepend": x[:, :1], "append": x[:, :1].tanh()})],
    **{
        f"lp_pool{axes}d": [of(getattr(F, f"lp_pool{axes}d"), windows(
            axes, norm_type=2.0, kernel_size=2, stride=1, ceil_mode=False))]
        for axes in (1, 2, 3)
    },
    **{
        f"max_pool{axes}d": [of(getattr(F, f"max_pool{axes}d"), windows(
            axes, kernel_size=2, stride=1, padding=1, dilation=1, ceil_mode=False))]
        for axes in (1, 2, 3)
    },
    **{
        f"adaptive_max_pool{axes}d": [
            of(getattr(F, f"adaptive_max_pool{axes}d"), windows(axes, output_size=2))
        ]
        for axes in (1, 2, 3)
    },
    **{
        f"max_pool{axes}d_with_indices": [of(getattr(F, f"max_pool{axes}d"), windows(
            axes, kernel_size=2, stride=1, padding=0, dilation=1, ceil_mode=False,
            return_indices=True))]
        for axes in (1, 2, 3)
    },
    **{
        f"adaptive_max_pool{axes}d_with_indices": [of(getattr(F, f"adaptive_max_pool{axes}d"),
            windows(axes, output_size=2, return_indices=True))]
        for axes in (1, 2, 3)
    },
    "iter": [of(Tensor.__iter__, lambda x: {"self": x})],
    "abs": [of(torch.abs, lambda x: {"input": torch.complex(x, x.flip(1) + 3)})],
    "polar": [of(torch.polar, lambda x: {"abs": positive(x), "angle": x})],
    "scaled_dot_product_attention": [of(F.scaled_dot_product_attention, lambda x: {
        "query": matrix(x), "key": matrix(x) * 2, "value": matrix(x).tanh(),
        "attn_mask": constant(2, 2), "dropout_p": 0.0, "is_causal": False}, scale=0.3)],
    "multi_head_attention_forward": [of(F.multi_head_attention_forward, attention)],
    "lstm": [of(torch.lstm, recurrent(4, 2))],
    "gru": [of(torch.gru, recurrent(3, 1))],
    "rnn_tanh": [of(torch.rnn_tanh, recurrent(1, 1))],
    "rnn_relu": [of(torch.rnn_relu, recurrent(1, 1))],
    "lstm_cell": [of(torch.lstm_cell, cell(4, 2))],
    "gru_cell": [of(torch.gru_cell, cell(3, 1))],
    "rnn_tanh_cell": [of(torch.rnn_tanh_cell, cell(1, 1))],
    "rnn_relu_cell": [of(torch.rnn_relu_cell, cell(1, 1))],
    "pow": [of(torch.pow, lambda x: {"input": positive(x), "exponent": x}),
            of(torch.pow, lambda x: {"input": positive(x), "exponent": 1.5}),
            of(torch.pow, lambda x: {"self": 2.0, "exponent": x})],
    "cov": [of(torch.cov, lambda x: {"input": x}, correction=0)],
    "corrcoef": [of(torch.corrcoef, lambda x: {"input": x})],
    "remainder": [of(torch.remainder, lambda x: {"input": x * 1.0, "other": positive(x)})],
    "fmod": [of(torch.fmod, lambda x: {"input": x * 1.0, "other": positive(x)})],
    "copysign": [of(torch.copysign, PAIR)],
    "float_power": [of(torch.float_power, lambda x: {"input": positive(x), "exponent": x})],
    "clamp": [of(torch.clamp, lambda x: {"input": x * 1.0, "min": x.flip(1) - 1, "max": positive(x)}),
              of(torch.clamp, lambda x: {"input": x * 1.0, "min": -0.2, "max": 0.4})],
    "clamp_min": [of(torch.clamp_min, lambda x: {"input": x * 1.0, "min": x.flip(1)})],
    "clamp_max": [of(torch.clamp_max, lambda x: {"input": x * 1.0, "max": x.flip(1)})],
    "linear": [of(F.linear, lambda x: {"input": x, "weight": constant(3, 6), "bias": constant(3)}),
               of(F.linear, lambda x: {
                   "input": x, "weight": x[:1] + constant(3, 6), "bias": x[0, :3]})],
    **{
        f"conv{axes}d": [of(getattr(F, f"conv{axes}d"), convolution(axes))] for axes in (1, 2, 3)
    },
    **{
        f"conv_transpose{axes}d": [of(getattr(F, f"conv_transpose{axes}d"), convolution(axes))]
        for axes in (1, 2, 3)
    },
    "grid_sample": [of(F.grid_sample, lambda x, p=padding, a=align: {
        "input": image(x), "grid": image(x)[..., :2].reshape(-1, 2, 4, 1).mT.reshape(-1, 2, 2, 2) / 3,
        "mode": "bilinear", "padding_mode": p, "align_corners": a})
        for padding, align in (("zeros", False), ("border", True))],
    "matmul": [of(torch.matmul, lambda x: {"input": matrix(x), "other": matrix(x).mT})],
    "rmatmul": [of(Tensor.__rmatmul__, lambda x: {"self": x.T, "other": constant(3, 6)})],
    "mm": [of(torch.mm, lambda x: {"input": x, "mat2": constant(6, 3)})],
    "bmm": [of(torch.bmm, lambda x: {"input": matrix(x), "mat2": matrix(x).mT})],
    "mv": [of(torch.mv, lambda x: {"input": x, "vec": constant(6)})],
    "dot": [of(torch.dot, lambda x: {"input": x[0], "tensor": x[1].tanh()})],
    "outer": [of(torch.outer, lambda x: {"input": x[0], "vec2": x[1].tanh()})],
    "copy": [of(Tensor.copy_, lambda x: {"self": x * 2, "src": x[:, :1]})],
    "fill": [of(Tensor.fill_, lambda x: {"self": x * 2, "value": x[0, 0]})],
    "zero": [of(Tensor.zero_, lambda x: {"self": x * 2})],
    "setitem": [of(Tensor.__setitem__, lambda x: {"self": x * 2})],
}  # fmt: skip
OTHER_NAMES = {"self": "input", "x": "input", "operands": "tensors"}


def total(result: Any) -> Tensor:
    """A score that every floating-point part of a result is in."""
    if hasattr(result, "__next__"):
        result = list(result)
    parts = [torch.view_as_real(p) if p.is_complex() else p for p in leaves_of(result)
             if isinstance(p, Tensor)]  # fmt: skip
    floats = [part for part in parts if part.is_floating_point()]
    return sum(((part * part).sum() + part.sum() for part in floats), torch.zeros(())).reshape(1)


def forms(function: Any, arguments: dict[str, Any], only: dict[str, Any]) -> dict[str, Any]:
    """The call by position, by name, in place and into `out`, those of them that torch allows."""
    first = next(iter(arguments.values()))
    others = {name: value for name, value in arguments.items() if value is not first}
    positional = list(arguments.values())
    if function is torch.einsum:
        positional = [arguments["equation"], *arguments["operands"]]
    calls: dict[str, Callable[[], Any]] = {"position": lambda: function(*positional, **only)}
    if "self" in arguments or function is torch.einsum:
        return calls
    calls["name"] = lambda: function(**arguments, **only)
    calls["mixed"] = lambda: function(first, **dict(reversed(others.items())), **only)
    method = getattr(Tensor, getattr(function, "__name__", ""), None)
    if method is not None and isinstance(first, Tensor):
        calls["method"] = lambda: method(first, *positional[1:], **only)
    writing = getattr(Tensor, getattr(function, "__name__", "") + "_", None)
    if writing is not None and isinstance(first, Tensor):

        def in_place() -> Any:
            copy = first * 1.0
            writing(copy, *positional[1:], **only)
            return copy

        calls["in place"] = in_place

    def into_out() -> Any:
        with torch.no_grad(), torch._C.DisableTorchFunction():
            plain = function(*positional, **only)
            out = [torch.empty_like(part) for part in leaves_of(plain)]
        target = out[0] if isinstance(plain, Tensor) else tuple(out)
        function(*positional, **only, out=target)
        return target

    calls["out"] = into_out
    return calls


@pytest.mark.filterwarnings("ignore:The reduce argument of torch.scatter:UserWarning")
@pytest.mark.parametrize("name", sorted(set(CALLS) - {"zero", "setitem", "fill"}))
def test_every_form_of_a_call_is_one_operation(name: str) -> None:
    for function, make, only in CALLS[name]:
        for form in ("position", "name", "mixed", "method", "in place", "out"):

            def network(x: Tensor, form: str = form) -> Tensor:
                arguments = make(x.reshape(-1, 6))  # noqa: B023  used at once
                calls = forms(function, arguments, only)  # noqa: B023  used at once
                return total(calls[form]())

            x = X.reshape(1, -1)
            with torch.no_grad():
                try:
                    expected = network(x)
                except (KeyError, TypeError, RuntimeError):
                    # A form that torch does not have.
                    assert form != "position"
                    continue
            explanation = DeepLIFT()(network, x, baseline=0.2)
            torch.testing.assert_close(explanation.score, expected, msg=f"{form}: {function}")
            measured = explanation.checks[0].measured
            assert measured < 1e-8, f"{form}: {function} {measured}"


def test_every_operation_that_is_taken_apart_has_a_call_here() -> None:
    named = set(DECOMPOSITIONS) | set(OF_SEVERAL) | set(NOT_LINEAR_IN) | set(WRITERS)
    named |= BIASED | PRODUCTS | MAX_POOLS
    named |= {"softmax", "logsumexp", *OF_WEIGHTS}
    assert named == set(CALLS)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_arguments_have_the_names_of_torch(name: str) -> None:
    for function, make, only in CALLS[name]:
        if name == "setitem":
            continue
        arguments = make(X)
        positional = list(arguments.values())
        if function is torch.einsum:
            positional = [arguments["equation"], *arguments["operands"]]
        bound = bind(function, positional, only)
        expected = (
            {OTHER_NAMES.get(key, key) for key in arguments}
            if "x1" not in arguments
            else set(arguments)
        )
        assert set(bound) == expected | set(only)


def test_the_methods_share_the_binding() -> None:
    """Bloom's attention scores, by name."""
    keys = constant(2, 3, 3)

    def network(x: Tensor) -> Tensor:
        batch = matrix(x)
        bias = x.new_zeros(len(x), 2, 3)
        return torch.baddbmm(
            input=bias, batch1=batch, batch2=keys[: len(x)], beta=1.0, alpha=0.5
        ).sum((1, 2))

    for method in (LRP(rule="zero"), DeepLIFT(), GuidedBackprop()):
        values = method(network, X).values
        expected = 0.5 * keys.sum(2)[:, None].expand(2, 2, 3).reshape(2, 6)
        if not isinstance(method, GuidedBackprop):
            expected = expected * X
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-4)
