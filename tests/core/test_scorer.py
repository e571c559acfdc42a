"""The scorer: the same answer in batches of any size, memory that runs out, and the counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract.cases import assert_same
from tests.zoo.networks import ZOO
from whyglass import (
    METHODS,
    Background,
    BadInput,
    ExpectedGradients,
    IntegratedGradients,
    Method,
    Occlusion,
    Saliency,
    ScoreCAM,
    Several,
    SmoothGrad,
    VarGrad,
)
from whyglass.core.scorer import Scorer


def _mlp() -> tuple[nn.Module, Tensor]:
    inputs = ZOO["mlp"].inputs(7)
    assert isinstance(inputs, Tensor)
    return ZOO["mlp"].make(), inputs


class Watched(nn.Module):
    """Notes the rows of every call, and runs out of memory above `most` of them."""

    def __init__(
        self, body: Callable[[Tensor], Tensor], most: int = 10**9, error: Exception | None = None
    ) -> None:
        super().__init__()
        self.body, self.most = body, most
        self.error = error or torch.OutOfMemoryError("no memory left")
        self.sizes: list[int] = []
        self.refused = 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            self.refused += 1
            raise self.error
        self.sizes.append(len(x))
        return self.body(x)


SOME: list[Method] = [
    Saliency(),
    SmoothGrad(samples=5),
    VarGrad(samples=5, tol=0.3),
    IntegratedGradients(steps=24),
    IntegratedGradients(steps=5, rule="trapezoid"),
    Occlusion(),
]


@pytest.mark.parametrize("method", SOME, ids=lambda m: f"{m.name}-{getattr(m, 'rule', '')}")
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("target", [None, Several(0, 2)], ids=["one", "several"])
def test_batch_size_does_not_change_the_answer(
    method: Method, batch_size: int, target: Any
) -> None:
    model, x = _mlp()
    watched = Watched(model)
    found = method(watched, x, target=target, batch_size=batch_size)
    assert_same(found, method(model, x, target=target))
    assert max(watched.sizes) <= batch_size
    assert sum(watched.sizes) == found.evaluations


def test_batches_are_as_even_as_can_be() -> None:
    model, x = _mlp()
    for batch_size, sizes in ((4, [4, 3]), (3, [3, 2, 2]), (6, [4, 3]), (1, [1] * 7), (7, [7])):
        watched = Watched(model)
        Saliency()(watched, x, batch_size=batch_size)
        assert watched.sizes == sizes


def test_auto_keeps_the_largest_tensor_small() -> None:
    """A megabyte a row: the batches after the first stay below the size where pages fault."""
    watched = Watched(lambda x: x.repeat(1, 2**18).sum(1, keepdim=True))
    x = torch.arange(100.0)[:, None]
    found = Saliency()(watched, x)
    assert torch.equal(found.values, torch.full((100, 1), 2.0**18))
    assert watched.sizes[0] <= 32
    assert max(watched.sizes[1:]) <= 20
    assert sum(watched.sizes) == 100


def test_auto_remembers_the_memory_of_a_row() -> None:
    watched = Watched(lambda x: x.repeat(1, 2**18).sum(1, keepdim=True))
    x = torch.arange(50.0)[:, None]
    Saliency()(watched, x)
    watched.sizes.clear()
    Saliency()(watched, x)
    assert max(watched.sizes) <= 20


class Slotted:
    """A callable that cannot be referred to weakly."""

    __slots__ = ()

    def __call__(self, x: Tensor) -> Tensor:
        return (x**2).sum(1)


class Unhashable:
    """A callable that cannot be the key of a dictionary."""

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None

    def __call__(self, x: Tensor) -> Tensor:
        return (x**2).sum(1)


@pytest.mark.parametrize("model", [Slotted(), Unhashable(), Unhashable().__call__, torch.norm])
def test_any_callable_is_a_model(model: Any) -> None:
    x = torch.randn(100, 2**16, generator=torch.Generator().manual_seed(0))
    if model is torch.norm:
        found = Saliency()(lambda given: model(given, dim=1), x)
        torch.testing.assert_close(found.values, (x / x.norm(dim=1, keepdim=True)).abs())
    else:
        torch.testing.assert_close(Saliency()(model, x).values, 2 * x.abs())


@pytest.mark.parametrize("method", SOME, ids=lambda m: f"{m.name}-{getattr(m, 'rule', '')}")
@pytest.mark.parametrize("most", [1, 3, 5])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_halves_the_batch(method: Method, most: int, error: Exception) -> None:
    model, x = _mlp()
    watched = Watched(model, most, error)
    found = method(watched, x)
    assert_same(found, method(model, x))
    assert watched.refused >= 1
    # After the first refusals every batch fits.
    assert watched.refused <= 6
    assert sum(watched.sizes) == found.evaluations


def test_a_batch_that_is_too_large_is_halved_and_not_nibbled_at() -> None:
    watched = Watched(lambda x: (x**2).sum(1), 3)
    Saliency()(watched, torch.ones(32, 2), batch_size=32)
    # 32, 16, 8 and 4 are refused; 32 rows fit into 16 batches of 2.
    assert watched.refused == 4
    assert watched.sizes == [2] * 16


class FailsBackwards(torch.autograd.Function):
    """The identity, whose gradient fits for few rows only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        if len(grads[0]) > 2:
            raise torch.OutOfMemoryError("no memory left for the gradient")
        return grads[0]


def test_out_of_memory_in_the_backward_pass_halves_too() -> None:
    model, x = _mlp()
    watched = Watched(lambda given: model(FailsBackwards.apply(given)))
    found = SmoothGrad(samples=5)(watched, x)
    assert_same(found, SmoothGrad(samples=5)(model, x))
    assert found.gradients == 35


def test_out_of_memory_in_the_background_scores_halves_too() -> None:
    """Two rows fit, and the nine of the background do not."""
    model, x = _mlp()
    data = torch.randn(9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    watched = Watched(model, 4)
    found = ExpectedGradients(samples=6)(watched, x[:2], baseline=Background(data))
    assert_same(found, ExpectedGradients(samples=6)(model, x[:2], baseline=Background(data)))
    assert sum(watched.sizes) == found.evaluations


def test_out_of_memory_in_the_layer_of_a_background_halves_too() -> None:
    network = ZOO["tokens"]
    model, refused = network.make(), 0
    ids, others = network.inputs(2), Background(network.inputs(9, seed=1))

    def limited(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal refused
        if len(args[0]) > 4:
            refused += 1
            raise torch.OutOfMemoryError("no memory left")

    method = ExpectedGradients(samples=6)
    expected = method(model, ids, at="embedding", baseline=others)
    model.register_forward_pre_hook(limited)
    assert_same(method(model, ids, at="embedding", baseline=others), expected)
    assert refused


def test_out_of_memory_of_score_cam_halves_too() -> None:
    network = ZOO["gap-cnn"]
    watched = Watched(network.make(), 5)
    found = ScoreCAM()(watched, network.inputs(2))
    assert_same(found, ScoreCAM()(network.make(), network.inputs(2)))
    assert sum(watched.sizes) == found.evaluations


@pytest.mark.parametrize("method", SOME, ids=lambda m: f"{m.name}-{getattr(m, 'rule', '')}")
def test_one_row_that_does_not_fit_is_told(method: Method) -> None:
    model, x = _mlp()
    watched = Watched(model, 0)
    with pytest.raises(BadInput, match="one row alone does not fit") as refusal:
        method(watched, x)
    assert "smaller inputs" in str(refusal.value)
    assert isinstance(refusal.value.__cause__, torch.OutOfMemoryError)


def test_other_errors_of_the_model_pass_through() -> None:
    model, x = _mlp()
    watched = Watched(model, 0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Saliency()(watched, x)
    # Two passes more tell whether the inputs lack their batch axis.
    assert watched.refused == 3


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "big", None])
def test_bad_batch_size(batch_size: Any) -> None:
    model, x = _mlp()
    watched = Watched(model)
    with pytest.raises(BadInput, match="batch_size must be a positive integer") as refusal:
        Saliency()(watched, x, batch_size=batch_size)
    assert repr(batch_size) in str(refusal.value)
    assert not watched.sizes


def test_recurrent_networks_in_eval_mode() -> None:
    network = ZOO["lstm"]
    model, x = network.make(), network.inputs()
    assert isinstance(x, Tensor)
    before = torch.backends.cudnn.enabled
    found = Saliency()(model, x, target=1)
    given = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(given)[:, 1].sum(), given)
    torch.testing.assert_close(found.values, gradient.abs())
    assert torch.backends.cudnn.enabled == before


def test_an_input_that_the_score_does_not_use_gets_zeros() -> None:
    found = Saliency()(lambda a, b: a.sum(1), (torch.ones(2, 3), torch.ones(2, 4)))
    assert torch.equal(found.values[0], torch.ones(2, 3))
    assert torch.equal(found.values[1], torch.zeros(2, 4))


def test_scorer_itself() -> None:
    """What the author of a method sees."""
    model, x = _mlp()
    scorer = Scorer(model, x, target=[0, 1, 2, 3, 0, 1, 2], batch_size=3)
    here = scorer.at_inputs(gradient=True)
    chosen = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    given = x.clone().requires_grad_()
    scores = model(given)[range(7), chosen]
    torch.testing.assert_close(here.scores, scores.detach())
    torch.testing.assert_close(here.gradients[0], torch.autograd.grad(scores.sum(), given)[0])
    assert (scorer.cost.evaluations, scorer.cost.gradients) == (7, 7)
    # Each evaluation names its row, which settles the target.
    rows = torch.tensor([6, 0, 6, 3])
    points = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = scorer.scores(lambda piece: (points[piece],), rows)
    torch.testing.assert_close(found, model(points)[range(4), chosen[rows]].detach())
    assert (scorer.cost.evaluations, scorer.cost.gradients) == (11, 7)
    pieces = [part.piece for part in scorer.gradients_at(lambda piece: (points[piece],), rows)]
    assert [(piece.start, piece.stop) for piece in pieces] == [(0, 2), (2, 4)]
    assert scorer.cost.gradients == 11


def test_every_method_of_the_catalogue_takes_a_batch_size() -> None:
    for kind in METHODS.values():
        with pytest.raises(BadInput, match="batch_size"):
            kind()(lambda x: x, torch.ones(1, 1), batch_size=0)
