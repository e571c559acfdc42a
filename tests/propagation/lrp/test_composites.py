"""Composites: presets, and clauses by operation, layer, depth and first layer."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from tests.propagation.lrp import naive_lrp as naive
from tests.propagation.lrp.test_rules import agree, dense
from whyglass import (
    LRP,
    AlphaBeta,
    AttnLRP,
    BadInput,
    Composite,
    Epsilon,
    Flat,
    Gamma,
    Rule,
    When,
    ZBox,
    Zero,
    ZPlus,
)
from whyglass.propagation.lrp.composites import PRESETS, composite
from whyglass.propagation.lrp.relevance import Bias

F64 = torch.float64
EPS = partial(naive.epsilon, eps=1e-6)
PLUS = partial(naive.alpha_beta, alpha=1.0, beta=0.0)
GAMMA = partial(naive.gamma_signed, eps=1e-6)
OF_PRESETS: dict[str, list[naive.Rule]] = {
    "zero": [naive.epsilon] * 4,
    "epsilon": [EPS] * 4,
    "gamma": [GAMMA] * 4,
    "z-plus": [PLUS] * 4,
    "alpha2-beta1": [naive.alpha_beta] * 4,
    "w-square": [naive.w_square, PLUS, EPS, EPS],
    "epsilon-plus": [PLUS, PLUS, EPS, EPS],
    "epsilon-plus-flat": [naive.flat, PLUS, EPS, EPS],
    "epsilon-alpha2-beta1": [naive.alpha_beta, naive.alpha_beta, EPS, EPS],
    "epsilon-alpha2-beta1-flat": [naive.flat, naive.alpha_beta, EPS, EPS],
    "epsilon-gamma-box": [naive.z_box, GAMMA, EPS, EPS],
    "gamma-epsilon-zero": [GAMMA, EPS, naive.epsilon, naive.epsilon],
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("bias", ["ignore", "share"])
def test_presets(preset: str, bias: Bias) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(),
            nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3),
        ).double().eval()  # fmt: skip
        x = torch.randn(1, 1, 5, 5, dtype=F64)
    agree(net, x, composite(preset), OF_PRESETS[preset], bias)


@pytest.mark.parametrize(
    ("spelled", "preset"),
    [
        ("EpsilonPlus", "epsilon-plus"),
        ("EpsilonPlusFlat", "epsilon-plus-flat"),
        ("EpsilonAlpha2Beta1", "epsilon-alpha2-beta1"),
        ("EpsilonAlpha2Beta1Flat", "epsilon-alpha2-beta1-flat"),
        ("EpsilonGammaBox", "epsilon-gamma-box"),
        ("epsilon_gamma_box", "epsilon-gamma-box"),
        ("Gamma", "gamma"),
    ],
)
def test_names_as_zennit_spells_them(spelled: str, preset: str) -> None:
    # Gamma holds functions made anew each time, so the texts are compared.
    assert repr(composite(spelled)) == repr(composite(preset))


OTHERWISE = When(rule=Epsilon(epsilon=0.1))
TENTH = partial(naive.epsilon, eps=0.1)


@pytest.mark.parametrize(
    ("clause", "where"),
    [
        (When(rule=ZPlus(), layers="0"), (0,)),
        (When(rule=ZPlus(), layers="[04]"), (0, 2)),
        (When(rule=ZPlus(), layers="features.*"), ()),
        (When(rule=ZPlus(), first=True), (0,)),
        (When(rule=ZPlus(), depth=(0, 0.5)), (0, 1)),
        (When(rule=ZPlus(), depth=(0.5, 1)), (2, 3)),
        (When(rule=ZPlus(), depth=(0.3, 0.6), layers="2"), (1,)),
        (When(rule=ZPlus(), ops=("linear",)), (0, 1, 2, 3)),
        (When(rule=ZPlus(), ops=("conv2d", "linear"), depth=(0.8, 1)), (3,)),
        (When(rule=ZPlus(), ops=("conv2d",)), ()),
    ],
    ids=repr,
)
def test_conditions(clause: When, where: tuple[int, ...]) -> None:
    net, x = dense(0, [6, 5, 7]), torch.ones(1, 5, dtype=F64)
    plain = [PLUS if place in where else TENTH for place in range(4)]
    agree(net, x, Composite((clause, OTHERWISE)), plain, "ignore")


def test_the_first_clause_that_holds_gives_the_rule() -> None:
    rules = (When(rule=Flat(), first=True), When(rule=AlphaBeta(), layers="[02]"), OTHERWISE)
    net, x = dense(0, [6, 5]), torch.ones(1, 5, dtype=F64)
    agree(net, x, Composite(rules), [naive.flat, naive.alpha_beta, TENTH], "ignore")


def test_depth_counts_along_the_longest_path() -> None:
    torch.manual_seed(0)
    long, short, head = nn.Linear(3, 3).double(), nn.Linear(3, 3).double(), nn.Linear(3, 1).double()

    def run(x: torch.Tensor) -> torch.Tensor:
        return head(torch.relu(long(torch.relu(long(x)))) + torch.relu(short(x)))[:, 0]

    # Three deep: the head's depth is 1, that of both first layers 1/3.
    low, top = When(rule=Flat(), depth=(0, 0.4)), When(rule=ZPlus(), depth=(0.9, 1))
    x = torch.randn(2, 3, dtype=F64)
    found = LRP(rule=Composite((low, top, OTHERWISE)))(run, x).values
    only = Composite((When(rule=Flat(), first=True), OTHERWISE))
    assert not torch.allclose(found, LRP(rule=only)(run, x).values)  # type: ignore[arg-type]
    # Flat at both first layers: every input gets as much.
    torch.testing.assert_close(found, found[:, :1].expand(-1, 3))  # type: ignore[index,call-overload]


@pytest.mark.parametrize("given", ["gama", "epsilonplus", Gamma, 3])
def test_a_rule_that_is_not_there(given: object) -> None:
    with pytest.raises(BadInput, match=r"there is no rule or preset .*nearest: "):
        LRP(rule=given)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="there is no rule or preset"):
        AttnLRP(rule=given)  # type: ignore[arg-type]


def test_a_composite_without_a_clause() -> None:
    rules = Composite((When(rule=Zero(), ops=("conv2d",)),))
    with pytest.raises(BadInput, match="no clause for operation 'linear' of layer '2'"):
        LRP(rule=rules)(dense(0, [6]), torch.ones(1, 5, dtype=F64), target=0)


def refuse(make: object, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        make()  # type: ignore[operator]


def test_settings_that_make_no_sense() -> None:
    refuse(lambda: When(rule=Zero(), ops="linear"), "ops must be a tuple of names among")  # type: ignore[arg-type]
    refuse(lambda: When(rule=Zero(), ops=("conv",)), r"not \('conv',\)")
    refuse(lambda: When(rule=Zero(), depth=(0.5, 0.2)), "depth must be two rising numbers")
    refuse(lambda: Epsilon(epsilon=0.0), "epsilon must be a positive number")
    refuse(lambda: Gamma(gamma=-1.0), "gamma must be a positive number")
    refuse(lambda: Gamma(epsilon=-1.0), "epsilon must be a positive number")
    refuse(lambda: AlphaBeta(alpha=2.0, beta=2.0), "alpha - beta must be 1")
    refuse(lambda: AlphaBeta(alpha=0.5, beta=-0.5), "beta not negative")
    refuse(lambda: AlphaBeta(alpha=float("nan")), "alpha=nan")
    refuse(lambda: ZBox(low=1.0, high=1.0), "low must be below high")
    refuse(lambda: ZBox(low=0.0, high=(1.0, -1.0)), "low must be below high")
    refuse(lambda: ZBox(low=(0.0, 0.0), high=(1.0,) * 3), "low must be below high")
    refuse(lambda: LRP(bias="half"), "bias must be one of 'ignore', 'share'")  # type: ignore[arg-type]


def test_a_rule_is_comparable_data() -> None:
    rules: list[Rule] = [Zero(), Epsilon(), Gamma(), AlphaBeta(), ZBox(low=0.0, high=1.0)]
    for rule in rules:
        assert rule == type(rule)(**vars(rule))
        assert hash(rule) == hash(type(rule)(**vars(rule)))


def separable(seed: int) -> nn.Sequential:
    """Depthwise convolutions between batch norms and ReLU6; half of their inputs are dead."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6(),
        nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).double().eval()  # fmt: skip
    norm, other = net[3], net[6]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(other, nn.BatchNorm2d)
    with torch.no_grad():
        norm.bias[:4], other.bias[:] = -9.0, 1.0
    return net


@pytest.mark.parametrize("bias", ["ignore", "share"])
@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_preset_gives_values_or_an_error_whose_ways_out_work(
    name: str, bias: Bias, seed: int
) -> None:
    net, x = separable(seed), torch.rand(1, 3, 6, 6, dtype=F64)
    if bias == "ignore" and name in {"zero", "gamma-epsilon-zero"}:
        with pytest.raises(BadInput, match=r'take bias="share".* or rule="gamma"'):
            LRP(rule=name, bias=bias)(net, x, target=1)
        ways = [LRP(rule=name, bias="share"), LRP(rule="gamma", bias=bias)]
    else:
        ways = [LRP(rule=name, bias=bias)]
    for way in ways:
        values = way(net, x, target=1).values
        assert isinstance(values, Tensor)
        assert values.isfinite().all()
        assert values.any()
