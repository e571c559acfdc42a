"""Captum, zennit and LXT say the same where they are right; where not, see benchmarks.disagreements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.peers import peer, zennit_composite, zennit_relevance
from whyglass import (
    CPLRP,
    LRP,
    AlphaBeta,
    AttnLRP,
    Composite,
    DeepLIFT,
    Epsilon,
    Flat,
    Gamma,
    GuidedBackprop,
    Rule,
    When,
    WSquare,
    ZBox,
    ZPlus,
)
from whyglass.core.method import Method
from whyglass.propagation.lrp.relevance import Bias

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore")  # these are other people's


def _absent(name: str) -> bool:
    try:
        peer(name)
    except ImportError:
        return True
    return False


with_captum = pytest.mark.skipif(_absent("captum.attr"), reason="extra bench is not installed")
with_zennit = pytest.mark.skipif(_absent("zennit.rules"), reason="zennit is not installed")
with_lxt = pytest.mark.skipif(_absent("lxt.explicit.functional"), reason="lxt is not installed")


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 4)
    )


def cnn() -> nn.Sequential:
    """With average and maximum pooling, and no bias where rules disagree about it."""
    return nn.Sequential(
        nn.Conv2d(2, 16, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 24, 2),
        nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 4),
    )  # fmt: skip


def made(make: Callable[[], nn.Sequential]) -> tuple[nn.Sequential, Tensor, Tensor]:
    """Network, inputs, and a class for each row."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().double().eval()
        x = torch.randn(3, *((6,) if make is mlp else (2, 8, 8)), dtype=F64)
    return model, x, torch.tensor([0, 2, 3])


def ours(method: Method, model: nn.Module, x: Tensor, target: Tensor, **given: Any) -> Tensor:
    found = method(model, x, target=target, **given).values
    assert isinstance(found, Tensor)
    return found


both = pytest.mark.parametrize("make", [mlp, cnn])


@with_captum
@both
def test_deeplift_and_guided_backprop_of_captum(make: Callable[[], nn.Sequential]) -> None:
    captum = peer("captum.attr")
    model, x, target = made(make)
    base = x.roll(1, 0)
    if make is cnn:
        model[2] = nn.AvgPool2d(2)  # through maximum pooling Captum's does not add up
    theirs = captum.DeepLift(model).attribute(x, base, target=target)
    found = torch.cat(
        [
            ours(DeepLIFT(), model, x[i : i + 1], target[i : i + 1], baseline=base[i])
            for i in range(3)
        ]
    )
    torch.testing.assert_close(found, theirs, rtol=1e-6, atol=1e-9)
    theirs = captum.GuidedBackprop(model).attribute(x, target=target)
    torch.testing.assert_close(ours(GuidedBackprop(), model, x, target), theirs)


class Flattened(nn.Module):
    """The same network without a flattening module, for which Captum's LRP has no rule."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        place = next(i for i, part in enumerate(model) if isinstance(part, nn.Flatten))
        self.body, self.head = model[:place], model[place + 1 :]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


@with_captum
@both
def test_lrp_of_captum(make: Callable[[], nn.Sequential]) -> None:
    captum = peer("captum.attr")
    model, x, target = made(make)
    network = model if make is mlp else Flattened(model)
    theirs = captum.LRP(network).attribute(x, target=target).detach()
    rule = Epsilon(epsilon=1e-9)
    found = ours(LRP(rule=rule, bias="share"), model, x, target)
    torch.testing.assert_close(found, theirs, rtol=1e-6, atol=1e-9)


RULES: list[tuple[Rule, Callable[[Any], Any], Bias]] = [
    (Epsilon(), lambda z: z.Epsilon(1e-6), "share"),
    (Epsilon(epsilon=0.2), lambda z: z.Epsilon(0.2), "share"),
    (Epsilon(epsilon=0.2), lambda z: z.Epsilon(0.2, zero_params="bias"), "ignore"),
    (Gamma(epsilon=1e-6), lambda z: z.Gamma(0.25), "share"),
    (Gamma(gamma=2.0, epsilon=1e-6), lambda z: z.Gamma(2.0), "share"),
    (ZPlus(), lambda z: z.ZPlus(1e-12), "share"),
    (AlphaBeta(), lambda z: z.AlphaBeta(2.0, 1.0, 1e-12), "share"),
    (AlphaBeta(alpha=3.0, beta=2.0), lambda z: z.AlphaBeta(3.0, 2.0, 1e-12), "share"),
]


@with_zennit
@both
@pytest.mark.parametrize(("rule", "theirs", "bias"), RULES, ids=[repr(r[0]) + r[2] for r in RULES])
def test_rules_of_zennit(
    make: Callable[[], nn.Sequential], rule: Rule, theirs: Callable[[Any], Any], bias: Bias
) -> None:
    model, x, target = made(make)
    composite = zennit_composite(theirs(peer("zennit.rules")))
    found = ours(LRP(rule=Composite((When(rule=rule),)), bias=bias), model, x, target)
    expected = zennit_relevance(model, composite, x, target)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


FIRST: list[tuple[Rule, Callable[[Any], Any]]] = [
    (WSquare(), lambda z: z.WSquare(1e-12, zero_params="bias")),
    (Flat(), lambda z: z.Flat(1e-12, zero_params="bias")),
    (ZBox(low=-4.0, high=5.0), lambda z: z.ZBox(torch.tensor(-4.0), torch.tensor(5.0), 1e-12)),
]


@with_zennit
@both
@pytest.mark.parametrize(("rule", "theirs"), FIRST, ids=[repr(r[0]) for r in FIRST])
def test_rules_for_the_first_layer_of_zennit(
    make: Callable[[], nn.Sequential], rule: Rule, theirs: Callable[[Any], Any]
) -> None:
    model, x, target = made(make)
    rules = peer("zennit.rules")
    rest = Composite((When(rule=rule, first=True), When(rule=Epsilon())))
    found = ours(LRP(rule=rest, bias="share"), model, x, target)
    composite = zennit_composite(rules.Epsilon(1e-6), theirs(rules))
    torch.testing.assert_close(
        found, zennit_relevance(model, composite, x, target), rtol=1e-4, atol=1e-6
    )


@with_zennit
@pytest.mark.parametrize(
    "name", ["EpsilonPlus", "EpsilonPlusFlat", "EpsilonAlpha2Beta1", "EpsilonAlpha2Beta1Flat"]
)
def test_composites_of_zennit(name: str) -> None:
    model, x, target = made(cnn)
    composite = getattr(peer("zennit.composites"), name)(stabilizer=1e-12)
    found = ours(LRP(rule=name, bias="share"), model, x, target)
    expected = zennit_relevance(model, composite, x, target)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@with_zennit
def test_gamma_and_box_of_zennit() -> None:
    model, x, target = made(cnn)
    low, high = x.amin(), x.amax()
    theirs = peer("zennit.composites").EpsilonGammaBox(low, high)
    box = ZBox(low=float(low), high=float(high))
    rules = Composite(
        (
            When(rule=box, first=True),
            When(rule=Gamma(epsilon=1e-6), ops=("conv2d",)),
            When(rule=Epsilon()),
        )
    )
    found = ours(LRP(rule=rules, bias="share"), model, x, target)
    torch.testing.assert_close(
        found, zennit_relevance(model, theirs, x, target), rtol=1e-4, atol=1e-6
    )


@with_zennit
def test_batch_norm_merged_by_zennit() -> None:
    def normed() -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(),
            nn.Linear(320, 4),
        )  # fmt: skip

    model, x, target = made(normed)
    with torch.no_grad():
        model[1].running_mean.normal_(generator=torch.Generator().manual_seed(0))
        model[1].weight.mul_(-1.5)
    canonizers = [peer("zennit.canonizers").SequentialMergeBatchNorm()]
    composite = zennit_composite(peer("zennit.rules").Gamma(), canonizers=canonizers)
    found = ours(LRP(rule="gamma", bias="share"), model, x, target)
    torch.testing.assert_close(
        found, zennit_relevance(model, composite, x, target), rtol=1e-4, atol=1e-6
    )


@with_zennit
def test_residual_sum_of_zennit_where_it_is_a_module() -> None:
    add = peer("zennit.layer").Sum()

    class Residual(nn.Module):
        def __init__(self, *, spelled: bool) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 4)
            self.relu, self.add = nn.ReLU(), add
            self.spelled = spelled

        def forward(self, x: Tensor) -> Tensor:
            y = self.relu(self.inner(x))
            z = self.add(torch.stack([x, y], -1)) if self.spelled else x + y
            return self.head(z)

    theirs, mine = Residual(spelled=True).double().eval(), Residual(spelled=False).double().eval()
    mine.load_state_dict(theirs.state_dict())
    x, target = torch.randn(3, 6, dtype=F64), torch.tensor([0, 1, 2])
    expected = zennit_relevance(theirs, zennit_composite(peer("zennit.rules").Epsilon()), x, target)
    found = ours(LRP(rule="epsilon", bias="share"), mine, x, target)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@with_lxt
@pytest.mark.parametrize("kind", [AttnLRP, CPLRP])
def test_a_transformer_block_by_lxt(kind: type[Method]) -> None:
    """Attention, residual sums, RMS norm and a gated layer, from LXT's functions and from torch's."""
    lxt = peer("lxt.explicit.functional")
    rules = peer("lxt.explicit.rules")
    draw = torch.Generator().manual_seed(0)
    wq, wk, wv, wo, up, gate, down = (
        torch.randn(a, b, dtype=F64, generator=draw)
        for a, b in [(8, 8)] * 4 + [(16, 8), (16, 8), (8, 16)]
    )
    scale = torch.rand(8, dtype=F64, generator=draw) + 0.5

    def block(x: Tensor) -> Tensor:
        h = nn.functional.rms_norm(x, (8,), scale, 1e-6)
        a = torch.softmax((h @ wq.T) @ (h @ wk.T).mT / 8**0.5, -1)
        x = x + (a @ (h @ wv.T)) @ wo.T
        h = nn.functional.rms_norm(x, (8,), scale, 1e-6)
        x = x + (nn.functional.silu(h @ gate.T) * (h @ up.T)) @ down.T
        return x[:, 0].sum(1)

    def lxt_block(x: Tensor) -> Tensor:
        linear = lxt.linear_epsilon
        h = lxt.rms_norm_identity(x, scale, 1e-6)
        q, k, v = (linear(h, w) for w in (wq, wk, wv))
        scores = lxt.mul2(lxt.matmul(q, k.mT), torch.tensor(8**-0.5, dtype=F64))
        a = lxt.softmax(scores, -1)
        if kind is CPLRP:
            a = a.detach()
        moved = lxt.matmul(a, v) if kind is AttnLRP else rules.epsilon_lrp(torch.matmul, 1e-8, a, v)
        x = lxt.add2(x, linear(moved, wo))
        h = lxt.rms_norm_identity(x, scale, 1e-6)
        act = rules.identity(nn.functional.silu, linear(h, gate))
        x = lxt.add2(x, linear(lxt.mul2(act, linear(h, up)), down))
        return x[:, 0]

    x = torch.randn(2, 5, 8, dtype=F64, generator=draw)
    leaf = x.clone().requires_grad_()
    out = lxt_block(leaf)
    (expected,) = torch.autograd.grad(out, leaf, out.detach())
    rule = Epsilon(epsilon=1e-6, plain=True)
    found = kind(rule=Composite((When(rule=rule),), sums=rule))(block, x).values  # type: ignore[call-arg]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@with_lxt
def test_a_layer_norm_by_lxt() -> None:
    lxt = peer("lxt.explicit.functional")
    draw = torch.Generator().manual_seed(0)
    weight, bias = (torch.randn(8, dtype=F64, generator=draw) for _ in range(2))
    x = torch.randn(4, 8, dtype=F64, generator=draw)
    leaf = x.clone().requires_grad_()
    y = lxt.layer_norm(leaf, weight, bias, 1e-5)
    (expected,) = torch.autograd.grad(y, leaf, y.detach())
    model = lambda x: nn.functional.layer_norm(x, (8,), weight, bias).sum(1)  # noqa: E731  as short as a formula
    found = AttnLRP(rule=Epsilon(epsilon=1e-9))(model, x).values
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
