"""Relevance is neither made nor lost where the rules promise it, and what is lost is told."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.propagation.lrp import naive_lrp as naive
from tests.propagation.lrp.test_rules import dense
from tests.zoo.networks import ZOO
from whyglass import (
    CPLRP,
    LRP,
    AlphaBeta,
    AttnLRP,
    Composite,
    Epsilon,
    Explanation,
    Gamma,
    Rule,
    Several,
    When,
    Zero,
    ZPlus,
)
from whyglass.propagation.lrp.relevance_method import RelevanceMethod

F64 = torch.float64
# The class token of the vision transformer is a constant that takes its share: so from behind it.
BEHIND_CONSTANTS = {"vit": "blocks.0"}


def gap(found: Explanation) -> float:
    """|sum R - score| / sum |R|, the worst row and target."""
    packed = found.values
    values = [packed] if isinstance(packed, Tensor) else list(
        packed.values() if isinstance(packed, dict) else packed
    )  # fmt: skip
    total = sum(value.flatten(1, -2).sum(1) for value in values)
    size = sum(value.abs().flatten(1, -2).sum(1) for value in values)
    return float(((total - found.score).abs() / size).max())  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("name", [name for name, net in ZOO.items() if not net.respelled])
@pytest.mark.parametrize(
    "rule", [Zero(), Gamma(), Gamma(gamma=2.0, signed=False), AlphaBeta(), ZPlus()], ids=repr
)
def test_nothing_is_lost_on_the_zoo(name: str, rule: Rule) -> None:
    net = ZOO[name]
    rules = Composite((When(rule=rule),), sums=Zero())
    at = BEHIND_CONSTANTS.get(name, net.at)
    for kind in (LRP, CPLRP):
        found = kind(rule=rules, bias="ignore")(
            net.make(), net.inputs(), target=Several(0, 2), at=at, output=net.output
        )
        assert gap(found) <= 1e-8
        check = found.checks[0]
        assert (check.name, check.verdict) == ("conservation", "pass")


def test_a_constant_takes_its_share_and_the_check_says_so() -> None:
    net = ZOO["vit"]
    found = LRP(rule="zero")(net.make(), net.inputs(), target=0)
    check = found.checks[0]
    assert (check.name, check.verdict) == ("conservation", "warn")
    assert check.measured > check.tolerance
    assert "a class token" in check.text


def test_softmax_of_attn_lrp_absorbs_and_is_told() -> None:
    net = ZOO["transformer"]
    found = AttnLRP(bias="ignore", rule="zero")(net.make(), net.inputs(), target=0)
    (note,) = found.notes
    assert note.startswith("did not pass all of the relevance: softmax of layer 'encoder.layers.")


def absorbed(layers: list[naive.Layer], x: np.ndarray, eps: float) -> tuple[float, list[float]]:
    """What enters and does not leave each layer, by the naive version; the score first."""
    inputs = [x]
    for layer in layers:
        y = layer.w @ inputs[-1] + layer.b
        inputs.append(np.maximum(y, 0) if layer.relu else y)
    r = np.zeros_like(inputs[-1])
    score = r[1] = inputs[-1][1]
    lost = []
    for layer, given in zip(layers[::-1], inputs[-2::-1], strict=True):
        passed = naive.epsilon(given, layer.w, layer.b * 0, r, layer.reach, eps=eps)
        lost.append(r.sum() - passed.sum())
        r = passed
    return float(score), lost[::-1]


@pytest.mark.parametrize("epsilon", [0.01, 0.3])
def test_what_epsilon_absorbs_is_told_layer_by_layer(epsilon: float) -> None:
    net = dense(1, [6, 5])
    x = torch.randn(3, 5, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = LRP(rule=Epsilon(epsilon=epsilon))(net, x, target=1)
    (note,) = found.notes
    told = {
        int(place): float(share)
        for place, share in re.findall(r"linear of layer '(\d)' (-?[\d.]+)%", note)
    }
    layers = naive.matrices(net, (5,))
    by_row = [absorbed(layers, row.numpy(), epsilon) for row in x]
    seeded = sum(abs(score) for score, _ in by_row)
    expected = {
        2 * place: 100 * sum(lost[place] for _, lost in by_row) / seeded for place in range(3)
    }
    # Shares below a twentieth of a percent are left out, the others rounded to a tenth.
    assert {place for place, share in expected.items() if abs(share) >= 0.05} == set(told)
    assert told
    for place, share in told.items():
        assert abs(share - expected[place]) <= 0.0501
    sizes = [abs(share) for share in told.values()]
    assert sizes == sorted(sizes, reverse=True)


AXIS = torch.tensor([[1.0, -2.0, 3.0]], dtype=F64)
# Fixed linear maps whose weights have both signs, and averages; none loses relevance.
MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "discrete Fourier transform": lambda x: torch.fft.fft(x).imag.square().sum(1),
    "spectrum": lambda x: torch.fft.irfft(torch.fft.rfft(x) * 0.5).square().sum(1),
    "differences": lambda x: x.diff(dim=1).square().sum(1),
    "cross product": lambda x: torch.linalg.cross(x[:, :3], AXIS).square().sum(1),
    "running sums": lambda x: x.cumsum(1).square().sum(1),
    "bicubic": lambda x: nn.functional.interpolate(
        x.reshape(-1, 1, 2, 3), (5, 5), mode="bicubic"
    ).square().flatten(1).sum(1),
    "three factors": lambda x: torch.einsum("bi,bi,bi->b", x, x.exp(), 2 + x.sin()),
    "largest": lambda x: x.topk(2, 1).values.square().sum(1),
}  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("rule", ["gamma", "z-plus", "epsilon"])
@pytest.mark.parametrize("kind", [LRP, AttnLRP])
def test_nothing_is_lost_in_fixed_maps(kind: type[RelevanceMethod], name: str, rule: str) -> None:
    x = torch.randn(3, 6, dtype=F64, generator=torch.Generator().manual_seed(0))
    found = kind(rule=rule, bias="ignore")(MAPS[name], x)
    assert found.checks[0].measured <= 1e-3
    assert not found.notes


@pytest.mark.parametrize("kind", [LRP, AttnLRP, CPLRP])
def test_values_that_cancel_are_warned_of(kind: type[RelevanceMethod]) -> None:
    """Terms 1000 and -999.9 of a score of .1 stand for 20 000 times the score."""
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1000.0, -999.9]], dtype=F64))
    found = kind(rule="zero")(model, torch.ones(1, 2, dtype=F64), target=0)
    check = {check.name: check for check in found.checks}["cancellation"]
    np.testing.assert_allclose(check.measured, 1999.9 / 0.1, rtol=1e-6)
    assert check.verdict == "warn"
    tame = kind(rule="zero")(model, torch.tensor([[1.0, 0.0]], dtype=F64), target=0)
    assert {check.name: check.verdict for check in tame.checks}["cancellation"] == "pass"


def _written(x: Tensor, c: Tensor) -> Tensor:
    y = torch.zeros(len(x), 8, dtype=x.dtype)
    y[:, :5] = x
    y[:, 5:] = c[:3]
    return y


EVEN = torch.tensor([True, False, True, False, True])
JOINED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cat": lambda x, c: torch.cat([x, c.expand(len(x), -1)], 1),
    "stack": lambda x, c: torch.stack([c.expand_as(x), x], 1).flatten(1),
    "where": lambda x, c: torch.where(EVEN, x, c),
    "masked_fill": lambda x, c: x.masked_fill(EVEN, 0.7),
    "pad": lambda x, c: F.pad(x, (1, 2), value=0.9),
    "index_put": lambda x, c: x.index_put((torch.tensor([0, 1]), torch.tensor([2, 4])), c[:2]),
    "slice_scatter": lambda x, c: x.slice_scatter(c[:2].expand(len(x), -1), 1, 1, 3),
    "written": _written,
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", ["gamma", "epsilon", "z-plus"])
@pytest.mark.parametrize("name", JOINED)
def test_relevance_of_constants_joined_to_the_input_is_told(
    name: str, rule: str, seed: int
) -> None:
    """What arrives and what the notes name make the score."""
    g = torch.Generator().manual_seed(seed)
    x, constant = torch.randn(3, 5, generator=g, dtype=F64), torch.randn(5, generator=g, dtype=F64)
    constant.requires_grad_()
    width = JOINED[name](x, constant).shape[1]
    first = torch.randn(width, 6, generator=g, dtype=F64)
    last = torch.randn(6, generator=g, dtype=F64)

    def model(z: Tensor) -> Tensor:
        return torch.relu(JOINED[name](z, constant) @ first + 1) @ last

    found = LRP(rule=rule)(model, x)
    assert isinstance(found.values, Tensor)
    size = found.score.abs().sum()
    missing = float((found.score.sum() - found.values.sum()) / size)
    (note,) = (note for note in found.notes if note.startswith("did not pass"))
    told = sum(float(share) / 100 for share in re.findall(r"(-?[\d.]+)%", note))
    assert re.search("constants of the network|index_put", note)
    assert missing == pytest.approx(told, abs=3e-3)


@pytest.mark.parametrize("like", ["expand_as", "view_as", "reshape_as"])
def test_a_constant_in_the_shape_of_the_input_is_a_constant(like: str) -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(1, 5, generator=g, dtype=F64)
    shift = torch.randn(1, 5, generator=g, dtype=F64).requires_grad_()
    weight = torch.randn(5, 3, generator=g, dtype=F64)
    found = LRP()(lambda z: (z + getattr(shift, like)(z)) @ weight, x, target=1)
    plain = LRP()(lambda z: (z + shift) @ weight, x, target=1)
    assert torch.equal(found.values, plain.values)  # type: ignore[arg-type]
