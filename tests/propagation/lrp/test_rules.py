"""Each rule of LRP against the paper's equation on matrices; batch norm joined to its neighbour."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import fusion

from tests.propagation.lrp import naive_lrp as naive
from whyglass import (
    LRP,
    AlphaBeta,
    BadInput,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    When,
    WSquare,
    ZBox,
    Zero,
    ZPlus,
)
from whyglass.extend import Flow
from whyglass.propagation.lrp.relevance import Bias

F64 = torch.float64
RULES: list[tuple[Rule, naive.Rule]] = [
    (Zero(), naive.epsilon),
    (Epsilon(epsilon=0.1), partial(naive.epsilon, eps=0.1)),
    (Epsilon(epsilon=0.1, plain=True), partial(naive.epsilon, eps=0.1, plain=True)),
    (Gamma(), naive.gamma_signed),
    (Gamma(gamma=2.0, epsilon=0.1), partial(naive.gamma_signed, gamma=2.0, eps=0.1)),
    (Gamma(signed=False), naive.gamma_of_positive),
    (Gamma(signed=False, epsilon=0.1), partial(naive.gamma_of_positive, eps=0.1)),
    (AlphaBeta(), naive.alpha_beta),
    (AlphaBeta(alpha=4.0, beta=3.0), partial(naive.alpha_beta, alpha=4.0, beta=3.0)),
    (ZPlus(), partial(naive.alpha_beta, alpha=1.0, beta=0.0)),
    (WSquare(), naive.w_square),
    (Flat(), naive.flat),
    (ZBox(low=-3.0, high=4.0), partial(naive.z_box, low=-3.0, high=4.0)),
    (ZBox(), naive.z_box),
]

every_rule = pytest.mark.parametrize(
    ("rule", "plain"), RULES, ids=[repr(rule) for rule, _ in RULES]
)
both_ways = pytest.mark.parametrize("bias", ["ignore", "share"])


def dense(seed: int, widths: list[int]) -> nn.Sequential:
    """A ReLU network of 5 inputs and 3 outputs."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise([5, *widths, 3]):
        linear = nn.utils.skip_init(nn.Linear, a, b, dtype=F64)
        for parameter in linear.parameters():
            parameter.data = torch.randn(parameter.shape, dtype=F64, generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def agree(
    net: nn.Sequential, x: Tensor, rule: Rule | Composite, plain: list[naive.Rule], bias: Bias
) -> None:
    """The first row's relevance is the naive one, or both refuse to divide by zero."""
    layers = naive.matrices(net, x.shape[1:])
    try:
        expected, size = naive.relevance(layers, x[0].flatten().numpy(), 1, plain, bias=bias)
    except naive.NoShares:
        with pytest.raises(BadInput, match=r"divides relevance by zero in \w+ of layer"):
            LRP(rule=rule, bias=bias)(net, x[:1], target=1)
        return
    found = LRP(rule=rule, bias=bias)(net, x, target=1).values
    assert isinstance(found, Tensor)
    np.testing.assert_allclose(found[0].flatten().numpy(), expected, rtol=0, atol=1e-10 * size)


@every_rule
@both_ways
@given(st.integers(0, 2**31), st.lists(st.integers(1, 9), max_size=3), st.booleans())
@settings(max_examples=8, deadline=None)
def test_on_random_dense_networks(
    rule: Rule, plain: naive.Rule, bias: Bias, seed: int, widths: list[int], positive: bool
) -> None:
    net = dense(seed, widths)
    x = torch.randn(1, 5, dtype=F64, generator=torch.Generator().manual_seed(seed + 1))
    x = x.abs() if positive else x
    agree(net, x, rule, [plain] * (len(widths) + 1), bias)


def test_dividing_relevance_by_zero_happens_in_the_test_above() -> None:
    net, x = dense(0, [1]), torch.ones(1, 5, dtype=F64)
    with torch.no_grad():
        net[0].bias.fill_(-100.0)
    layers, rules = naive.matrices(net, x.shape[1:]), [naive.epsilon] * 2
    with pytest.raises(naive.NoShares):
        naive.relevance(layers, x[0].numpy(), 1, rules, bias="ignore")
    agree(net, x, Zero(), rules, "ignore")


CONVOLUTIONAL: list[tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = [
    (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(4, 6, 2, groups=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3),
        ),
        (2, 5, 5),
    ),
    (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, dilation=2), nn.ReLU(), nn.ConvTranspose1d(4, 3, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(21, 3),
        ),
        (2, 7),
    ),
    (
        lambda: nn.Sequential(
            nn.Conv3d(2, 2, 2), nn.ReLU(), nn.ConvTranspose3d(2, 1, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(27, 3),
        ),
        (2, 3, 3, 3),
    ),
    (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 3, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
        ),
        (2, 3, 3),
    ),
]  # fmt: skip


@every_rule
@both_ways
@pytest.mark.parametrize(("make", "shape"), CONVOLUTIONAL)
def test_on_convolutions_as_matrices(
    rule: Rule, plain: naive.Rule, bias: Bias, make: Callable[[], nn.Sequential],
    shape: tuple[int, ...],
) -> None:  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net, x = make().double().eval(), torch.randn(2, *shape, dtype=F64)
    weighted = sum(hasattr(module, "weight") for module in net)
    agree(net, x, rule, [plain] * weighted, bias)


def test_agree_is_for_untransformed_terms() -> None:
    assert Gamma(gamma=0.5).flows() == (Flow(agree=0.5, strict=True),)
    with pytest.raises(BadInput, match="agree is for untransformed terms: leave pairs out"):
        Flow(((torch.abs, torch.abs),), agree=0.5)


def test_a_bound_for_each_channel() -> None:
    net, shape = CONVOLUTIONAL[0][0]().double().eval(), (2, 5, 5)
    x = torch.rand(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    low, high = (-0.5, -1.0), (1.5, 3.0)
    per_input = [np.repeat(bounds, 25) for bounds in (low, high)]
    plain = partial(naive.z_box, low=per_input[0], high=per_input[1])
    first = When(rule=ZBox(low=low, high=high), first=True)
    rules = Composite((first, When(rule=Epsilon(epsilon=0.1))))
    other = partial(naive.epsilon, eps=0.1)
    agree(net, x, rules, [plain, other, other], "ignore")
    with pytest.raises(BadInput, match="ZBox has 2 bounds and axis 1 of an input of shape"):
        LRP(rule=ZBox(low=low, high=high))(dense(0, [4]), torch.ones(1, 5, dtype=F64), target=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("rule", [AlphaBeta(), AlphaBeta(alpha=4.0, beta=3.0), ZPlus()], ids=repr)
def test_contributions_of_one_sign_take_all(rule: Rule, sign: float) -> None:
    net = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, 3.0]], dtype=F64) * sign)
    found = LRP(rule=rule)(net, torch.tensor([[1.0, 1.0]], dtype=F64), target=0).values
    np.testing.assert_allclose(found.numpy(), [[sign, 3 * sign]], atol=1e-12)  # type: ignore[union-attr]


class Normed(nn.Module):
    """A weighted layer with a batch norm behind it, and another pair on top."""

    def __init__(self, layer: nn.Module, norm: nn.Module, features: int) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.hidden, self.last_norm = nn.Linear(features, 7), nn.BatchNorm1d(7)
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.layer(x))).flatten(1)
        return self.head(torch.relu(self.last_norm(self.hidden(x))))


NORMED: list[tuple[Callable[[], Normed], tuple[int, ...]]] = [
    (lambda: Normed(nn.Linear(5, 6), nn.BatchNorm1d(6), 6), (5,)),
    (lambda: Normed(nn.Conv1d(2, 4, 3, bias=False), nn.BatchNorm1d(4), 16), (2, 6)),
    (lambda: Normed(nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), 16), (2, 4, 4)),
    (lambda: Normed(nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4, affine=False), 32), (2, 3, 3, 3)),
]


def settled(make: Callable[[], nn.Module]) -> nn.Module:
    """With statistics as if trained, and scales of both signs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = make().double().eval()
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 2)
                if norm.affine:
                    nn.init.normal_(norm.weight)
                    nn.init.normal_(norm.bias)
    return model


def merged(model: Normed) -> Normed:
    """The same function without batch norm, its scale and shift in the weights."""
    plain = copy.deepcopy(model)
    if isinstance(plain.layer, nn.Linear):
        plain.layer = fusion.fuse_linear_bn_eval(plain.layer, plain.norm)
    else:
        plain.layer = fusion.fuse_conv_bn_eval(plain.layer, plain.norm)
    plain.hidden = fusion.fuse_linear_bn_eval(plain.hidden, plain.last_norm)
    plain.norm = plain.last_norm = nn.Identity()
    return plain


@pytest.mark.parametrize("rule", [rule for rule, _ in RULES], ids=repr)
@both_ways
@pytest.mark.parametrize(("make", "shape"), NORMED)
def test_batch_norm_is_joined_to_the_weights(
    rule: Rule, bias: Bias, make: Callable[[], Normed], shape: tuple[int, ...]
) -> None:
    model = settled(make)
    assert isinstance(model, Normed)
    x = torch.randn(2, *shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    method = LRP(rule=rule, bias=bias)
    found, expected = (method(net, x, target=1).values for net in (model, merged(model)))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


class Alone(nn.Module):
    """A batch norm with no weights before it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


def test_batch_norm_alone() -> None:
    model, x = settled(Alone), torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=F64)
    assert isinstance(model, Alone)
    with torch.no_grad():
        scale = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
        y = model.norm(x)
        at_norm = y * model.head.weight[0]
    ignored = LRP(rule="zero", bias="ignore")(model, x, target=0).values
    shared = LRP(rule="zero", bias="share")(model, x, target=0).values
    torch.testing.assert_close(ignored, at_norm)
    torch.testing.assert_close(shared, at_norm * scale * x / y)


def test_batch_norm_over_positions_is_no_scale_of_the_weights() -> None:
    """Behind a linear layer of sequences the norm's channels are the positions, not the outputs."""
    model = settled(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    x = torch.randn(1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = LRP(rule="zero", bias="ignore")(lambda x: model(x)[:, 1, 2], x).values
    with torch.no_grad():
        terms = x[0, 1] * model[0].weight[2]
        expected = torch.zeros(1, 4, 4, dtype=F64)
        expected[0, 1] = terms / terms.sum() * model(x)[0, 1, 2]
    torch.testing.assert_close(found, expected)


def test_one_sum_behind_two_batch_norms() -> None:
    model = settled(lambda: nn.ModuleList([nn.Linear(3, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2)]))
    assert isinstance(model, nn.ModuleList)

    def run(x: Tensor) -> Tensor:
        h = model[0](x)
        return (model[1](h) + model[2](h)).sum(1)

    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=F64)
    found = LRP(rule="zero")(run, x)
    with torch.no_grad():
        h = model[0](x)
        r = model[1](h) + model[2](h)
        terms = x * model[0].weight
        expected = (terms / terms.sum(1, keepdim=True) * r.T).sum(0)
    torch.testing.assert_close(found.values[0], expected)  # type: ignore[index]
