"""How relevance passes products, softmax, norms, sums, scattering and maxima: naive formulas."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.propagation.engine.test_interception import in_place_relu
from whyglass import CPLRP, LRP, AttnLRP, Gamma, Several
from whyglass.propagation.lrp.redistribution import Redistribution
from whyglass.propagation.lrp.relevance_method import RelevanceMethod

F64 = torch.float64
X = torch.randn(3, 4, dtype=F64, generator=torch.Generator().manual_seed(1))


def values(
    function: Callable[..., Tensor], x: Tensor | tuple[Tensor, ...] = X,
    kind: type[RelevanceMethod] = LRP,
) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
    """Relevance of the row sums of a function, by LRP-0 without biases."""
    found = kind(rule="zero", bias="ignore")(lambda *x: function(*x).flatten(1).sum(1), x).values
    return tuple(found) if isinstance(found, list) else found  # type: ignore[return-value]


def one(
    function: Callable[..., Tensor], x: Tensor = X, kind: type[RelevanceMethod] = LRP
) -> Tensor:
    found = values(function, x, kind)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("kind", [LRP, CPLRP])
def test_a_gate_takes_nothing(kind: type[RelevanceMethod]) -> None:
    layer = nn.Linear(4, 4, bias=False, dtype=F64)
    silu = one(lambda x: F.silu(layer(x)), kind=kind)
    torch.testing.assert_close(one(lambda x: layer(x) * layer(x).sigmoid(), kind=kind), silu)
    torch.testing.assert_close(one(lambda x: torch.sigmoid(layer(x)) * layer(x), kind=kind), silu)
    hard = one(lambda x: F.hardswish(layer(x)), kind=kind)
    torch.testing.assert_close(one(lambda x: layer(x) * F.hardsigmoid(layer(x)), kind=kind), hard)


GATED: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda a, b: a.sigmoid() * b,
    lambda a, b: b.mul(torch.sigmoid(a)),
    lambda a, b: (1 - a.sigmoid()) * b,
    lambda a, b: (a.sigmoid() - 1) * -b,
    lambda a, b: b * (0.5 * torch.sigmoid(a) + 0.5),
    lambda a, b: b * torch.sigmoid(a).reshape(-1, 2, 2).flatten(1),
    lambda a, b: F.glu(torch.cat([b, a], 1), 1),
    lambda a, b: b * torch.softmax(a, 1),
    lambda a, b: torch.softmax(a, 1)[:, None] @ b[:, :, None],
]


@pytest.mark.parametrize("gated", GATED)
def test_the_other_factor_takes_all(gated: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = X, X.roll(1, 0)
    gate, signal = values(gated, (a, b))
    with torch.no_grad():
        expected = gated(a, b).flatten(1)
    assert not gate.any()
    torch.testing.assert_close(signal.sum(1), expected.sum(1))
    if expected.shape == b.shape:
        torch.testing.assert_close(signal, expected)


def test_without_a_gate_or_under_attn_lrp_each_factor_takes_half() -> None:
    a, b = X, X.roll(1, 0)
    for function in (torch.mul, lambda a, b: a.tanh() * b):
        for kind in (LRP, CPLRP, AttnLRP):
            halves = values(function, (a, b), kind)
            for half in halves:
                torch.testing.assert_close(half, function(a, b) / 2)
    for half in values(lambda a, b: a.sigmoid() * b, (a, b), AttnLRP):
        torch.testing.assert_close(half, a.sigmoid() * b / 2)
    torch.testing.assert_close(one(lambda x: x * x), X * X)


def test_a_quotient_gives_all_to_its_numerator() -> None:
    a, b = X, X.roll(1, 0).square() + 1
    for kind in (LRP, CPLRP, AttnLRP):
        above, below = values(torch.div, (a, b), kind)
        torch.testing.assert_close(above, a / b)
        assert not below.any()
        above, below = values(lambda a, b: a * b.rsqrt(), (a, b), kind)
        torch.testing.assert_close(above, a * b.rsqrt())
        assert not below.any()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.softmax(q @ k.mT, -1) @ v


QKV = torch.randn(3, 2, 5, 4, dtype=F64, generator=torch.Generator().manual_seed(2)).unbind(0)


def test_attention_under_cp_lrp() -> None:
    """Ali et al. (2022), section 4: R_V = A_ij V_j / (sum_k A_ik V_k) R_i; queries, keys nothing."""
    for kind in (CPLRP, LRP):
        for spelled in (attend, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0)):
            to_q, to_k, to_v = values(spelled, QKV, kind)
            q, k, v = (part.numpy() for part in QKV)
            a = np.exp(q @ k.swapaxes(1, 2))
            a /= a.sum(-1, keepdims=True)
            y = a @ v
            # The score is the sum of y, so each of its terms begins with itself.
            by_hand = v * (a.swapaxes(1, 2) @ (y / y))
            assert not to_q.any()
            assert not to_k.any()
            np.testing.assert_allclose(to_v.numpy(), by_hand, atol=1e-10)


def test_attention_under_attn_lrp() -> None:
    """Achtibat et al. (2024), equation 13 for softmax, proposition 3.3 for both products."""
    for spelled in (attend, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=1.0)):
        to_q, to_k, to_v = values(spelled, QKV, AttnLRP)
        q, k, v = (part.numpy() for part in QKV)
        s = q @ k.swapaxes(1, 2)
        a = np.exp(s)
        a /= a.sum(-1, keepdims=True)
        y = a @ v
        half = y / (2 * y)
        r_a, r_v = a * (half @ v.swapaxes(1, 2)), v * (a.swapaxes(1, 2) @ half)
        r_s = s * (r_a - a * r_a.sum(-1, keepdims=True))
        half = r_s / (2 * s)
        np.testing.assert_allclose(to_v.numpy(), r_v, atol=1e-10)
        np.testing.assert_allclose(to_q.numpy(), q * (half @ k), atol=1e-10)
        np.testing.assert_allclose(to_k.numpy(), k * (half.swapaxes(1, 2) @ q), atol=1e-10)


def test_masked_places_take_nothing_under_attn_lrp() -> None:
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.mT).masked_fill(mask, -torch.inf)
        return (torch.softmax(scores, -1) @ v)[:, :2]

    found = values(masked, QKV, AttnLRP)
    fused = values(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)[:, :2],
        QKV, AttnLRP,
    )  # fmt: skip
    for part, same in zip(found, fused, strict=True):
        assert part.isfinite().all()
        assert not part[:, 2:].any()
        assert part[:, :2].any()
        torch.testing.assert_close(part, same)


@pytest.mark.parametrize("kind", [LRP, CPLRP, AttnLRP])
def test_norms_pass_relevance_unchanged(kind: type[RelevanceMethod]) -> None:
    weight, bias = torch.arange(1.0, 5, dtype=F64), torch.tensor([0.3, -1, 2, 0], dtype=F64)
    image = X[:, :, None] + torch.arange(3.0, dtype=F64)
    norms: list[tuple[Callable[[Tensor], Tensor], Tensor]] = [
        (lambda x: F.layer_norm(x, (4,), weight, bias), X),
        (lambda x: F.rms_norm(x, (4,), weight), X),
        (lambda x: F.group_norm(x, 2, weight, bias), image),
        (lambda x: F.instance_norm(x, weight=weight, bias=bias), image),
    ]
    for norm, x in norms:
        torch.testing.assert_close(one(norm, x, kind), norm(x))


def test_functions_of_one_number_pass_relevance_unchanged() -> None:
    for function in (torch.relu, F.gelu, torch.tanh, torch.exp, torch.abs, F.elu, in_place_relu):
        torch.testing.assert_close(one(function), function(X))
    torch.testing.assert_close(one(lambda x: x.relu() + 3), X.relu() + 3)
    torch.testing.assert_close(one(lambda x: 2 - x), 2 - X)
    torch.testing.assert_close(one(lambda x: -2 * x), -2 * X)


# A gamma of a quarter counts the positive 1 as 1.25 beside -.5: shares 5/3 and -2/3 of the sum .5.
@pytest.mark.parametrize(
    ("rule", "second"),
    [("zero", (1.0, -0.5)), ("alpha2-beta1", (1.0, -0.5)), ("gamma", (5 / 6, -1 / 3))],
)
def test_a_residual_sum_is_shared_out(rule: str, second: tuple[float, float]) -> None:
    def residual(a: Tensor, b: Tensor) -> Tensor:
        return torch.relu(a + b).sum(1)

    a, b = torch.tensor([[3.0, 1.0]], dtype=F64), torch.tensor([[1.0, -0.5]], dtype=F64)
    to_a, to_b = LRP(rule=rule)(residual, (a, b)).values
    np.testing.assert_allclose(to_a.numpy(), [[3.0, second[0]]], atol=1e-5)
    np.testing.assert_allclose(to_b.numpy(), [[1.0, second[1]]], atol=1e-5)


SUMS: list[tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = [
    (lambda a, b: a + b, 1, 1),
    (lambda a, b: a - b, 1, -1),
    (lambda a, b: torch.add(a, b, alpha=-0.5), 1, -0.5),
    (lambda a, b: torch.sub(a, b, alpha=-3), 1, 3),
    (lambda a, b: torch.rsub(a, b, alpha=2), -2, 1),
    (lambda a, _: a + a, 1, 1),
    (lambda a, _: torch.sub(a, a, alpha=0.25), 1, -0.25),
]


@pytest.mark.parametrize(("function", "of_a", "of_b"), SUMS)
def test_gamma_of_a_sum_knows_which_terms_are_negative(
    function: Callable[[Tensor, Tensor], Tensor], of_a: float, of_b: float
) -> None:
    b = X.flip(1) + 0.3
    other = function(torch.zeros_like(X), torch.ones_like(X)).any()
    found = LRP(rule=Gamma())(lambda a, b: function(a, b)[:, 0], (X, b)).values
    terms = torch.stack([of_a * X, of_b * (b if other else X)])[:, :, 0]
    total = terms.sum(0)
    terms = terms * torch.where(terms.sign() == total.sign(), 1.25, 1.0)
    expected = terms / terms.sum(0) * total
    torch.testing.assert_close(found[0][:, 0], expected[0] if other else expected.sum(0))
    torch.testing.assert_close(found[1][:, 0], expected[1] if other else 0 * total)


def test_sums_over_axes_share_out() -> None:
    for function in (
        lambda x: x.mean(1, True).relu(), lambda x: F.avg_pool1d(x[:, None], 4)[:, 0].relu(),
        lambda x: x.cumsum(1)[:, -1:].relu() / 4,
        lambda x: (x[:, :2] + x[:, 2:]).sum(1, True).relu() / 4,
    ):  # fmt: skip
        total = X.sum(1, keepdim=True)
        torch.testing.assert_close(one(function), X / total * (total / 4).relu())


def test_messages_are_shared_out_where_they_meet() -> None:
    goal = torch.tensor([0, 0, 2, 1])
    for function in (
        lambda x: torch.zeros_like(x).index_add(1, goal, x),
        lambda x: torch.zeros_like(x).scatter_add(1, goal.expand(3, -1), x),
        lambda x: torch.zeros_like(x).index_put((torch.arange(3)[:, None], goal[None]), x, True),
    ):
        found = one(lambda x, f=function: f(x).relu())
        met = torch.stack([X[:, 0] + X[:, 1], X[:, 0] + X[:, 1], X[:, 2], X[:, 3]], 1)
        torch.testing.assert_close(found, X / met * met.relu())


def test_a_maximum_gives_all_to_the_winner() -> None:
    a, b = X, X.roll(1, 0)
    to_a, to_b = values(torch.maximum, (a, b))
    torch.testing.assert_close(to_a, torch.where(a > b, a, 0.0))
    torch.testing.assert_close(to_b, torch.where(a > b, 0.0, b))
    largest = X * (X.amax(1, keepdim=True) == X)
    for function in (
        lambda x: F.max_pool1d(x[:, None], 4),
        lambda x: F.adaptive_max_pool1d(x[:, None], 1),
        lambda x: x.max(1, True)[0],
        lambda x: x.amax(1, True),
    ):
        torch.testing.assert_close(one(function), largest)
    windows = one(lambda x: F.max_pool1d(x[:, None], 3, 1))
    torch.testing.assert_close(windows.sum(1), F.max_pool1d(X[:, None], 3, 1).flatten(1).sum(1))


def test_moves_carry_relevance_along() -> None:
    for function in (
        lambda x: x.flip(1), lambda x: x.reshape(3, 2, 2).mT, lambda x: F.pad(x, (1, 1)),
        lambda x: torch.cat([x[:, 2:], x[:, :2]], 1), lambda x: F.dropout(x, 0.5, training=False),
        lambda x: x.unsqueeze(1).expand(-1, 1, -1),
    ):  # fmt: skip
        torch.testing.assert_close(one(function), X)
    torch.testing.assert_close(one(lambda x: x.repeat(1, 2)), 2 * X)
    torch.testing.assert_close(one(lambda x: x[:, :1]), X * torch.tensor([1.0, 0, 0, 0]))


def test_an_operation_is_dropped_once_relevance_has_passed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layers = (part for _ in range(6) for part in (nn.Linear(4, 4), nn.ReLU()))
    net = nn.Sequential(*layers).double().eval()
    passed: list[weakref.ref[Redistribution]] = []
    alive: list[int] = []
    pass_back = Redistribution.pass_back

    def watched(operation: Redistribution, relevance: Tensor) -> tuple[Tensor, ...]:
        alive.append(sum(known() is not None for known in passed))
        passed.append(weakref.ref(operation))
        return pass_back(operation, relevance)

    monkeypatch.setattr(Redistribution, "pass_back", watched)
    LRP()(net, X, target=0)
    assert len(alive) == 6
    assert max(alive) <= 1
    both = LRP()(net, X, target=Several(0, 1)).values
    monkeypatch.undo()
    for k in (0, 1):
        torch.testing.assert_close(both[..., k], LRP()(net, X, target=k).values)
