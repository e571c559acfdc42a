"""What all inputs of a softmax or a norm have in common has no part in the score, nor in the values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from whyglass import (
    LRP,
    AttnLRP,
    Background,
    DeepLIFT,
    DeepSHAP,
    LogOdds,
    Probability,
    Several,
    WeightOfEvidence,
)
from whyglass.core.method import Method

WIDTH = 6
RAMP = {dtype: torch.arange(WIDTH, dtype=dtype) - 1.7 for dtype in (torch.float32, torch.float64)}

Function = Callable[[Tensor], Tensor]
# Functions of (B, 6), and what their multipliers add up to.
FUNCTIONS: dict[str, tuple[Function, float]] = {
    "softmax": (lambda x: (x.softmax(1) * RAMP[x.dtype]).sum(1), 0.0),
    "log_softmax": (lambda x: (F.log_softmax(x, -1) * RAMP[x.dtype]).sum(1), 0.0),
    "logsumexp": (lambda x: x.logsumexp(1), 1.0),
    "logsumexp of two axes": (lambda x: x.view(-1, 2, 3).logsumexp((1, 2)), 1.0),
    "layer_norm": (lambda x: (F.layer_norm(x, (WIDTH,)) * RAMP[x.dtype]).sum(1), 0.0),
    "group_norm": (lambda x: (F.group_norm(x[..., None], 1)[..., 0] * RAMP[x.dtype]).sum(1), 0.0),
    "instance_norm": (lambda x: (F.instance_norm(x[:, None])[:, 0] * RAMP[x.dtype]).sum(1), 0.0),
}

every_function = pytest.mark.parametrize("name", FUNCTIONS)
both_formats = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def multipliers(function: Function, x: Tensor, start: Tensor) -> Tensor:
    found = DeepLIFT()(function, x, baseline=start).values
    assert isinstance(found, Tensor)
    return found.double() / (x - start).double()


@every_function
@both_formats
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([0.0, 3.0, -200.0, 1e4]))
def test_multipliers_add_up_before_they_meet_large_inputs(
    name: str, dtype: torch.dtype, seed: int, shift: float
) -> None:
    function, total = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(seed)
    x, start = torch.randn(2, 3, WIDTH, generator=generator, dtype=torch.float64) * 3
    x, start = (x + shift).to(dtype), start.to(dtype)
    m = multipliers(function, x, start)
    size = m.abs().sum(1)
    assert ((m.sum(1) - total).abs() <= 16 * torch.finfo(dtype).eps * size).all()


@every_function
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([-1e3, 1e6]))
def test_a_common_shift_changes_no_multiplier(name: str, seed: int, shift: float) -> None:
    function, _ = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(seed)
    x, start = torch.randn(2, 3, WIDTH, generator=generator, dtype=torch.float64) * 3
    torch.testing.assert_close(
        multipliers(function, x + shift, start),
        multipliers(function, x, start),
        rtol=1e-6,
        atol=1e-8,
    )


def ones(widths: list[int], softmax: bool, dtype: torch.dtype) -> nn.Sequential:
    """Layers of ones and biases of one: all logits are equal and, behind them, huge."""
    layers: list[nn.Module] = [nn.Linear(a, b) for a, b in pairwise(widths)]
    net = nn.Sequential(*layers, *[nn.Softmax(-1)] * softmax)
    for parameter in net.parameters():
        nn.init.ones_(parameter)
    return net.to(dtype).eval()


@pytest.mark.parametrize("method", [DeepLIFT(), DeepSHAP(), WeightOfEvidence()], ids=repr)
@both_formats
@settings(max_examples=10, deadline=None)
@given(
    hidden=st.lists(st.integers(2, 90), min_size=1, max_size=2),
    features=st.integers(5, 120),
    softmax=st.booleans(),
)
def test_equal_logits_however_large(
    method: Method, dtype: torch.dtype, hidden: list[int], features: int, softmax: bool
) -> None:
    evidence = isinstance(method, WeightOfEvidence)
    net = ones([features, *hidden, 10], softmax and not evidence, dtype)
    x = torch.arange(features, dtype=dtype)[None]
    target = Several(0, 3) if softmax else Several(Probability(0), LogOdds(1))
    target = 2 if evidence else target
    baseline = (
        Background(torch.stack([x[0] * 0, x[0] * 0.5])) if method.name == "deep-shap" else 0.0
    )
    found = method(net, x, target=target, baseline=baseline)
    assert isinstance(found.values, Tensor)
    logit = float(net[: 1 + len(hidden)](x).detach().max())
    noise = 32 * torch.finfo(dtype).eps * logit
    # All of it is rounding, for no input has a part in equal logits.
    assert float(found.values.abs().sum()) <= noise
    check = found.checks[0]
    if dtype == torch.float64:
        assert check.verdict == "pass"
    gaps = (found.values.sum(1) - (found.score - found.baseline_score)).abs()
    assert check.verdict != "fail"
    if float(gaps.max()) > 1e-3:
        assert check.verdict == "warn"
        assert "float64" in check.text


@pytest.mark.parametrize("method", [LRP(), LRP(rule="zero", bias="share"), AttnLRP()], ids=repr)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@both_formats
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([0.0, 50.0, -1e4]))
def test_first_order_terms_of_softmax_add_up(
    method: Method, name: str, dtype: torch.dtype, seed: int, shift: float
) -> None:
    """Relevance x_j c_j of softmax has coefficients that add up to zero."""
    function, _ = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(3, WIDTH, generator=generator, dtype=torch.float64) * 3 + shift).to(dtype)
    found = method(function, x).values
    assert isinstance(found, Tensor)
    c = found.double() / x.double()
    size = c.abs().sum(1) + RAMP[dtype].abs().max()
    assert (c.sum(1).abs() <= 16 * torch.finfo(dtype).eps * size).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inside", [False, True], ids=["all", "inside"])
@pytest.mark.parametrize("method", [DeepLIFT(), DeepLIFT(rule="reveal-cancel")], ids=repr)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_half_precision_warns_where_it_cannot_resolve_the_sum(
    method: Method, dtype: torch.dtype, inside: bool, seed: int
) -> None:
    """The format that counts is the network's, also where inputs and score are in float32."""
    torch.manual_seed(seed)
    first, last = nn.Linear(8, 16).to(dtype), nn.Linear(16, 3).to(dtype)

    def net(x: Tensor) -> Tensor:
        return last(torch.relu(first(x.to(dtype)))).to(x.dtype)

    x = torch.randn(3, 8).to(torch.float32 if inside else dtype)
    found = method(net, x, target=1)
    assert found.verdict != "fail"
    assert (found.checks[0].measured > 1e-3) == (found.verdict == "warn")
    assert ("float64" in found.checks[0].text) == (found.verdict == "warn")
