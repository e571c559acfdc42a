"""Calls that write in place give what the same network gives out of place, and no call hangs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import whyglass as wg
from whyglass import Explanation, Unsupported

Change = Callable[[Tensor], Tensor]
METHODS: dict[str, Callable[[nn.Module, Tensor], Explanation]] = {
    "lrp": lambda net, x: wg.LRP()(net, x, target=0),
    "lrp-gamma": lambda net, x: wg.LRP(rule="gamma", bias="ignore")(net, x, target=0),
    "attn-lrp": lambda net, x: wg.AttnLRP()(net, x, target=0),
    "cp-lrp": lambda net, x: wg.CPLRP()(net, x, target=0),
    "deeplift": lambda net, x: wg.DeepLIFT()(net, x, target=0, baseline=0.1),
    "reveal-cancel": lambda net, x: wg.DeepLIFT(rule="reveal-cancel")(
        net, x, target=0, baseline=0.1
    ),
    "deep-shap": lambda net, x: wg.DeepSHAP()(
        net, x, target=0, baseline=wg.Background(x.flip(0) * 0.5)
    ),
    "weight-of-evidence": lambda net, x: wg.WeightOfEvidence()(net, x, target=0),
    "guided-backprop": lambda net, x: wg.GuidedBackprop()(net, x, target=0),
    "deconvolution": lambda net, x: wg.Deconvolution()(net, x, target=0),
    "dasp": lambda net, x: wg.DASP(sizes=2, compare=False)(net, x, target=0),
}


class Changed(nn.Module):
    """Linear, ReLU, a change, linear."""

    def __init__(self, change: Change, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 8).double(), nn.Linear(8, 2).double()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.change(torch.relu(self.first(x))))


class Image(Changed):
    """The same over channels."""

    def __init__(self, change: Change, seed: int = 0) -> None:
        super().__init__(change, seed)
        self.first, self.second = nn.Conv2d(1, 8, 2).double(), nn.Linear(8, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x.reshape(-1, 1, 2, 2)))
        return self.second(self.change(h).flatten(1))


def _and_return(write: Callable[[Tensor], object]) -> Change:
    """The tensor after it was written to."""

    def change(h: Tensor) -> Tensor:
        write(h)
        return h

    return change


SAME: list[Change] = [
    nn.Dropout(0.2, inplace=True), nn.AlphaDropout(0.2, inplace=True), nn.Dropout(0.2),
    nn.FeatureAlphaDropout(0.2, inplace=True), nn.Identity(),
    lambda h: F.dropout(h, 0.2, False, True), lambda h: h.clamp_(min=-1), lambda h: h.clamp_(-1),
    lambda h: h.to(h.dtype), lambda h: h.to(torch.float64), lambda h: h.double(), lambda h: h.cpu(),
    lambda h: h.contiguous(), lambda h: h.add_(0), lambda h: h.mul_(1), lambda h: h.view_as(h),
    lambda h: h.view(h.shape), lambda h: h.clone(), lambda h: h.requires_grad_(),
    lambda h: h.type_as(h), lambda h: h.expand_as(h), lambda h: h.reshape(h.shape),
    lambda h: h.squeeze_(0) if h.shape[0] > 1 else h, lambda h: h.copy_(h),
    _and_return(lambda h: h.copy_(h.clone())), _and_return(lambda h: h.add_(0).add_(0).mul_(1)),
    _and_return(lambda h: h[:].add_(0)), _and_return(lambda h: h.__setitem__(slice(None), h)),
    _and_return(lambda h: torch.add(h, 0, out=h)),
    _and_return(lambda h: h.masked_fill_(torch.zeros_like(h).bool(), 3.0)),
    _and_return(lambda h: h.index_copy_(1, torch.tensor([2]), h[:, 2:3])),
    _and_return(lambda h: h.data), _and_return(lambda h: h.view(-1).add_(0)),
]  # fmt: skip
# Of what a ReLU puts out. RevealCancel looks for a sum before it, and DASP takes it for Gaussian.
SAME_OF_RELU: list[Change] = [
    nn.ReLU(inplace=True), lambda h: h.relu_(), _and_return(lambda h: F.relu(h, True)),
    _and_return(lambda h: F.hardtanh(h, 0.0, 1e9, True)), _and_return(lambda h: F.relu_(h)),
    _and_return(lambda h: F.elu(h, 1.0, True)),
]  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_what_changes_nothing_changes_no_explanation(name: str) -> None:
    method, x = METHODS[name], torch.randn(3, 4, dtype=torch.float64)
    changes = SAME if name in {"reveal-cancel", "dasp"} else SAME + SAME_OF_RELU
    for number, change in enumerate(changes):
        if isinstance(change, nn.Module):
            change = change.eval()
        network = Image if number % 2 and name != "dasp" else Changed
        plain = method(network(lambda h: h, number).eval(), x).values
        torch.testing.assert_close(
            method(network(change, number).eval(), x).values,
            plain,
            msg=lambda text, n=number: f"change {n}: {text}",
        )


def rows_added(h: Tensor) -> Tensor:
    h[:, 0] += 2 * h[:, 1]
    return h


def view_scaled(h: Tensor) -> Tensor:
    part = h[:, 2:5]
    part.mul_(3)
    return h


def flat_view_written(h: Tensor) -> Tensor:
    flat = h.view(h.shape[0], -1)
    flat[:, 1] = flat[:, 0] * 2
    return h + 1


def view_read_after(h: Tensor) -> Tensor:
    part = h[:, :4]
    h.mul_(2)
    return torch.cat([part, h[:, 4:]], 1)


def view_of_view(h: Tensor) -> Tensor:
    part = h[:, 2:6]
    inner = part[:, 1:3]
    inner.add_(part[:, :2].clone())
    part.mul_(0.5)
    return h


def into_a_buffer(h: Tensor) -> Tensor:
    state = torch.zeros_like(h)
    for position in range(4):
        state[:, position].copy_(h[:, position] * 2)
    state[:, 4:] = h[:, 4:]
    return state


def filled(h: Tensor) -> Tensor:
    h[:, 1].fill_(2.0)
    h[:, 2].zero_()
    return h


def filled_and_added(h: Tensor) -> Tensor:
    state = h * 5
    state.fill_(1.0)
    state.add_(h)
    return state


def copied_then_written(h: Tensor) -> Tensor:
    other = h * 3
    state = torch.empty_like(h)
    state.copy_(other)
    state.mul_(2)
    return state + other


def into_out(h: Tensor) -> Tensor:
    state = torch.empty_like(h)
    torch.mul(h, 2, out=state)
    state.add_(1)
    return state


def transposed_in_place(h: Tensor) -> Tensor:
    turned = h * 1
    turned.t_()
    turned.mul_(2)
    return turned.t()


def chunks_written(h: Tensor) -> Tensor:
    h = h * 2
    first, second = h.chunk(2, 1)
    first.add_(second)
    return h


DIFFERENT: list[tuple[Change, Change]] = [
    (rows_added, lambda h: torch.cat([h[:, :1] + 2 * h[:, 1:2], h[:, 1:]], 1)),
    (view_scaled, lambda h: torch.cat([h[:, :2], h[:, 2:5] * 3, h[:, 5:]], 1)),
    (flat_view_written, lambda h: torch.cat([h[:, :1], 2 * h[:, :1], h[:, 2:]], 1) + 1),
    (view_read_after, lambda h: h * 2),
    (view_of_view, lambda h: torch.cat([
        h[:, :2], h[:, 2:3] / 2, (h[:, 3:5] + h[:, 2:4]) / 2, h[:, 5:6] / 2, h[:, 6:]], 1)),
    (into_a_buffer, lambda h: torch.cat([2 * h[:, :4], h[:, 4:]], 1)),
    (filled, lambda h: torch.cat([
        h[:, :1], torch.full_like(h[:, :1], 2), torch.zeros_like(h[:, :1]), h[:, 3:]], 1)),
    (filled_and_added, lambda h: h + 1),
    (copied_then_written, lambda h: 9 * h),
    (into_out, lambda h: 2 * h + 1),
    (transposed_in_place, lambda h: 2 * h),
    (chunks_written, lambda h: torch.cat([2 * h[:, :4] + 2 * h[:, 4:], 2 * h[:, 4:]], 1)),
]  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"dasp"}))
@pytest.mark.parametrize("number", range(len(DIFFERENT)))
def test_writing_gives_what_new_tensors_give(name: str, number: int) -> None:
    """DeepLIFT has the same multipliers; LRP splits sums of the same terms."""
    in_place, out_of_place = DIFFERENT[number]
    x = torch.randn(3, 4, dtype=torch.float64)
    net, plain = Changed(in_place, number).eval(), Changed(out_of_place, number).eval()
    with torch.no_grad():
        torch.testing.assert_close(net(x), plain(x))
    values = METHODS[name](net, x).values
    if name in {"lrp", "lrp-gamma", "attn-lrp", "cp-lrp"}:
        # A sum that is written as 9 h or as 6 h + 3 h shares out to the same entries.
        torch.testing.assert_close(values, METHODS[name](plain, x).values, rtol=1e-4, atol=1e-5)
    else:
        torch.testing.assert_close(values, METHODS[name](plain, x).values)


@given(seed=st.integers(0, 10_000), writes=st.lists(st.integers(0, 6), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_sequence_of_writes_keeps_the_sum(seed: int, writes: list[int]) -> None:
    """Completeness, and the score that torch itself computes by writing into memory."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    plan = [(write, draw(5), draw(5), draw(3)) for write in writes]

    def network(x: Tensor) -> Tensor:
        h = x * 1.5
        views = [h, h[:, 1:4], h.view(-1, 2, 3)[:, 1], h.t(), h[:, ::2]]
        for write, left, right, column in plan:
            target, source = views[left], views[right]
            if write == 0:
                target.mul_(2)
            elif write == 1:
                target[column % len(target)] = source.sum()
            elif write == 2:
                target.relu_()
            elif write == 3:
                target += source.mean()
            elif write == 4:
                target.copy_(target * target)
            elif write == 5:
                target.select(-1, column % target.shape[-1]).fill_(0.5)
            else:
                target.tanh_()
        return (sum(view.sum() for view in views) * x[:, 0]) / 10

    x = torch.randn(1, 6, dtype=torch.float64, generator=generator)
    explanation = wg.DeepLIFT()(network, x, baseline=0.1)
    with torch.no_grad():
        torch.testing.assert_close(explanation.score, network(x))
        torch.testing.assert_close(explanation.baseline_score, network(torch.full_like(x, 0.1)))
    assert explanation.checks[0].measured < 1e-9


def test_a_part_whose_whole_is_gone_is_written_unless_another_reaches_into_it() -> None:
    def apart(h: Tensor) -> Tensor:
        first, second = torch.relu(h).chunk(2, 1)
        first.mul_(2)
        return torch.cat([first, second], 1)

    def new(h: Tensor) -> Tensor:
        first, second = torch.relu(h).chunk(2, 1)
        return torch.cat([first * 2, second], 1)

    def overlapping(h: Tensor) -> Tensor:
        whole = torch.relu(h)
        first, second = whole[:, :4], whole[:, 3:]
        del whole
        first.mul_(2)
        return torch.cat([first, second[:, 1:]], 1)

    x = torch.randn(3, 4, dtype=torch.float64)
    for method in (wg.LRP(), wg.DeepLIFT()):
        torch.testing.assert_close(
            method(Changed(apart).eval(), x, target=0).values,
            method(Changed(new).eval(), x, target=0).values,
            rtol=1e-5,
            atol=1e-6,
        )
        with pytest.raises(Unsupported, match="name of its own"):
            method(Changed(overlapping).eval(), x, target=0)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"dasp"}))
def test_a_detached_branch_is_a_constant(name: str) -> None:
    x = torch.randn(3, 4, dtype=torch.float64)

    def blocked(h: Tensor) -> Tensor:
        with torch.no_grad():
            shift = h * 2
        return h + h.detach() + shift - 2 * h.data

    explanation = METHODS[name](Changed(blocked).eval(), x)
    note = next(note for note in explanation.notes if "constants of the network" in note)
    assert "detach" in note
    if name == "guided-backprop":
        plain = METHODS[name](Changed(lambda h: h).eval(), x)
        torch.testing.assert_close(explanation.values, plain.values)
