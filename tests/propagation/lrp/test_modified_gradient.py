"""LRP by a changed gradient is LRP: the same numbers as by carrying relevance itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from tests.propagation.lrp.test_rules import dense
from tests.zoo.networks import ZOO
from whyglass import CPLRP, LRP, AttnLRP, Composite, Epsilon, Gamma, When, Zero
from whyglass.propagation.lrp import relevance_method
from whyglass.propagation.lrp.composites import PRESETS, book
from whyglass.propagation.lrp.modified_gradient import fits
from whyglass.propagation.lrp.relevance_method import RelevanceMethod

F64 = torch.float64
EXACT = Composite((When(rule=Zero()),), sums=Zero())
# Epsilon at weighted operations; sums, which carry theirs exactly, do without in both.
SMALL = Composite((When(rule=Epsilon(epsilon=0.1)),), sums=Zero())


def both(method: RelevanceMethod, monkeypatch: pytest.MonkeyPatch, *args, **named):  # type: ignore[no-untyped-def]
    """Values by the gradient, and by relevance itself, as lists of leaves."""
    found: list[list[Tensor]] = []
    for by_gradient in (True, False):
        with monkeypatch.context() as patched:
            if not by_gradient:
                patched.setattr(relevance_method, "fits", lambda _: False)
            values = method(*args, **named).values
        leaves = values.values() if isinstance(values, dict) else values
        found.append([values] if isinstance(values, Tensor) else list(leaves))
    return found


@pytest.mark.parametrize("name", list(ZOO))
@pytest.mark.parametrize("rule", [EXACT, SMALL], ids=["zero", "epsilon"])
@pytest.mark.parametrize("kind", [CPLRP, AttnLRP])
def test_the_same_on_the_zoo(
    name: str, rule: Composite, kind: type[RelevanceMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ZOO[name]
    pair = both(
        kind(rule=rule, bias="share"), monkeypatch, net.make(), net.inputs(), target=1, at=net.at,
        output=net.output,
    )  # fmt: skip
    size = max(float(leaf.abs().max()) for leaf in pair[1])
    for one, other in zip(*pair, strict=True):
        assert size > 0
        assert float((one - other).abs().max()) <= 1e-8 * size


@given(st.integers(0, 2**31), st.lists(st.integers(1, 9), max_size=3))
@settings(max_examples=20, deadline=None)
def test_the_same_on_random_dense_networks(seed: int, widths: list[int]) -> None:
    net = dense(seed, widths)
    x = torch.randn(2, 5, dtype=F64, generator=torch.Generator().manual_seed(seed))
    with pytest.MonkeyPatch.context() as patched:
        one, other = both(LRP(rule=SMALL, bias="share"), patched, net, x, target=1)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_plain_epsilon_and_a_batch_norm_that_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.normal_()  # type: ignore[union-attr]
    norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm, nn.Hardtanh(0, 1), nn.BatchNorm2d(4), nn.Flatten(),
        nn.Linear(64, 3),
    ).double().eval()  # fmt: skip
    x = torch.randn(2, 2, 6, 6, dtype=F64)
    rule = Composite((When(rule=Epsilon(epsilon=0.3, plain=True)),), sums=Zero())
    one, other = both(LRP(rule=rule, bias="share"), monkeypatch, net, x, target=2)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_rule_by_layer_name(monkeypatch: pytest.MonkeyPatch) -> None:
    net = dense(3, [4, 6])
    x = torch.randn(2, 5, dtype=F64)
    rule = Composite((When(rule=Epsilon(epsilon=2.0), layers="2"), When(rule=Zero())), sums=Zero())
    one, other = both(LRP(rule=rule, bias="share"), monkeypatch, net, x, target=1)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    plain = LRP(rule="zero", bias="share")(net, x, target=1).values
    assert not torch.allclose(one[0], plain)  # type: ignore[arg-type]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


FIXED = torch.randn(2, 5, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
SPELLED: dict[str, Callable[..., Tensor]] = {
    "values constant": lambda q: attend(q, q, FIXED),
    "keys constant": lambda q: attend(q, FIXED, q),
    "values a gate": lambda q: attend(q, q, q.sigmoid()),
    "scores constant": lambda q: attend(FIXED, FIXED, q),
    "a mask that is explained": lambda q: functional.scaled_dot_product_attention(
        q, q, q, attn_mask=q @ q.mT
    ),
}


@pytest.mark.parametrize("name", list(SPELLED))
@pytest.mark.parametrize("kind", [CPLRP, AttnLRP])
def test_attention_of_which_a_part_is_constant_or_a_gate(
    name: str, kind: type[RelevanceMethod], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(2, 5, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    net = lambda q: SPELLED[name](q).sum((1, 2))  # noqa: E731
    one, other = both(kind(rule=EXACT, bias="share"), monkeypatch, net, x)
    assert other[0].any()
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_which_composites_a_gradient_may_be_enough_for() -> None:
    assert not any(fits(PRESETS[name]()) for name in ("gamma", "epsilon-plus-flat", "w-square"))
    assert fits(EXACT)
    assert fits(PRESETS["epsilon-plus"]())
    assert not fits(book())
    assert not fits(Composite((When(rule=Epsilon(), first=True), When(rule=Zero()))))
    assert not fits(Composite((When(rule=Zero()),), sums=Gamma()))


class Late(nn.Module):
    """Linear layers, and behind them a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.late, self.head = nn.Linear(6, 8), nn.Conv1d(2, 3, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.first(x)).reshape(-1, 2, 4)
        return self.head(torch.relu(self.late(hidden)).flatten(1))


def test_another_rule_counts_once_an_operation_meets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    late, x = Late().double().eval(), torch.randn(4, 6, dtype=F64)
    one, other = both(LRP(rule="epsilon-plus", bias="share"), monkeypatch, late, x, target=1)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    without = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    with monkeypatch.context() as patched:
        patched.setattr(RelevanceMethod, "by_relevance", lambda *_: pytest.fail("the slower way"))
        found = LRP(rule="epsilon-plus", bias="share")(without, x, target=1).values
    torch.testing.assert_close(
        found, LRP(rule="epsilon", bias="share")(without, x, target=1).values
    )
    counted = LRP(rule="epsilon-plus", bias="share")(late, x, target=1)
    assert (counted.evaluations, counted.gradients) == (4, 4)
