"""A layer that runs more than once, or whose output has the batch elsewhere than first.

What stands above the layer is a network of its own, whose inputs are the layer's outputs: explaining
the layer is explaining that network at its inputs.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whyglass import METHODS, Background, BadInput, GradCAM, LayerCall, Method, Saliency

NAMES = [
    name
    for name, kind in METHODS.items()
    if not {"images", "attention", "retraining"} & set(kind.needs)
]
BUDGETS: dict[str, Any] = {"steps": 12, "samples": 6, "sizes": 1, "compare": False, "budget": 100}


def make(name: str) -> Method:
    """The method with a budget that keeps the suite fast."""
    kind = METHODS[name]
    known = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in BUDGETS.items() if key in known})


class Siamese(nn.Module):
    """Two inputs through one tower."""

    calls = 2

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def above(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.tanh(self.head(torch.cat([left, right], 1)))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.above(self.tower(left), self.tower(right))


class Shared(nn.Module):
    """A query and a longer text through one embedding: outputs of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Embedding(11, 2)
        self.head = nn.Linear(4, 3)

    def above(self, query: Tensor, text: Tensor) -> Tensor:
        return torch.tanh(self.head(torch.cat([query.mean(1), text.mean(1)], 1)))

    def forward(self, query: Tensor, text: Tensor) -> Tensor:
        return self.above(self.tower(query), self.tower(text))


class Repeated(nn.Module):
    """A cell that feeds itself; the head reads both states."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Linear(4, 4)
        self.head = nn.Linear(8, 3)

    def above(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.tanh(self.head(torch.cat([torch.tanh(first), torch.tanh(second)], 1)))

    def forward(self, start: Tensor) -> Tensor:
        first = self.tower(start)
        return self.above(first, self.tower(torch.tanh(first)))


def siamese(rows: int, seed: int) -> tuple[nn.Module, Any]:
    draw = torch.Generator().manual_seed(seed)
    return Siamese(), tuple(torch.randn(rows, 3, generator=draw).double() for _ in range(2))


def shared(rows: int, seed: int) -> tuple[nn.Module, Any]:
    draw = torch.Generator().manual_seed(seed)
    return Shared(), tuple(torch.randint(11, (rows, t), generator=draw) for t in (2, 3))


def repeated(rows: int, seed: int) -> tuple[nn.Module, Any]:
    draw = torch.Generator().manual_seed(seed)
    return Repeated(), torch.randn(rows, 4, generator=draw).double()


def built(case: Callable[[int, int], tuple[nn.Module, Any]], rows: int, seed: int) -> Any:
    torch.manual_seed(seed)
    model, inputs = case(rows, seed)
    return model.double().eval(), inputs


def outputs(model: Any, inputs: Any) -> tuple[Tensor, ...]:
    """What the tower puts out, call by call."""
    seen: list[Tensor] = []
    handle = model.tower.register_forward_hook(lambda _m, _i, result: seen.append(result.detach()))
    with torch.no_grad():
        model(*inputs) if isinstance(inputs, tuple) else model(inputs)
    handle.remove()
    return tuple(seen)


@pytest.fixture(autouse=True)
def _own_generator() -> Any:
    state = torch.get_rng_state()
    yield
    torch.set_rng_state(state)


@pytest.mark.parametrize("case", [siamese, shared, repeated])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_all_calls_are_explained_together(name: str, rows: int, case: Any) -> None:
    model, inputs = built(case, rows, 7)
    others = built(case, 4, 8)[1]
    given: dict[str, Any] = {"target": 1}
    expected_given = dict(given)
    if METHODS[name].baseline_is == "background":
        given["baseline"] = Background(others)
        expected_given["baseline"] = Background(outputs(model, others))
    found = make(name)(model, inputs, at="tower", **given)
    expected = make(name)(model.above, outputs(model, inputs), **expected_given)
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.std_error, expected.std_error)
    torch.testing.assert_close(found.baseline_score, expected.baseline_score)
    assert found.verdict == expected.verdict
    assert found.at == "tower"


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("case", [siamese, shared])
@pytest.mark.parametrize("name", NAMES)
def test_one_call_is_explained_alone(name: str, case: Any, call: int) -> None:
    model, inputs = built(case, 1, 3)
    others = built(case, 4, 4)[1]
    points = outputs(model, inputs)
    given: dict[str, Any] = {"target": 1}
    expected_given = dict(given)
    if METHODS[name].baseline_is == "background":
        given["baseline"] = Background(others)
        expected_given["baseline"] = Background(outputs(model, others)[call])

    def above(point: Tensor) -> Tensor:
        held = [leaf.expand(len(point), *leaf.shape[1:]) for leaf in points]
        held[call] = point
        return model.above(*held)

    found = make(name)(model, inputs, at=LayerCall("tower", call), **given)
    expected = make(name)(above, points[call], **expected_given)
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.baseline_score, expected.baseline_score)
    assert found.at == f"tower (call {call})"


@pytest.mark.parametrize("name", NAMES)
def test_later_calls_follow_from_the_one_explained(name: str) -> None:
    """The first state of a cell that feeds itself, alone: the second state is computed from it."""
    model, x = built(repeated, 2, 5)
    given = {}
    expected_given = {}
    if METHODS[name].baseline_is == "background":
        others = built(repeated, 4, 6)[1]
        given["baseline"] = Background(others)
        expected_given["baseline"] = Background(outputs(model, others)[0])
    found = make(name)(model, x, at=LayerCall("tower", 0), target=1, **given)
    expected = make(name)(
        lambda first: model.above(first, model.tower(torch.tanh(first))),
        outputs(model, x)[0],
        target=1,
        **expected_given,
    )
    torch.testing.assert_close(found.values, expected.values)


def test_a_map_is_made_of_one_call() -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1)
    model = nn.Sequential(conv, nn.ReLU(), conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 2, 6, 6)
    with pytest.raises(BadInput, match=r"runs 2 times.*LayerCall\('0', 0\)"):
        GradCAM()(model, images, at="0")
    assert GradCAM()(model, images, at=LayerCall("0", 1)).at == "0 (call 1)"


class TimeFirst(nn.Module):
    """Tokens through an embedding that puts out (T, B, E), and a recurrent layer."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 2)
        self.body = nn.LSTM(2, 5, batch_first=not first)
        self.head = nn.Linear(5, 3)
        self._first = first

    def forward(self, ids: Tensor) -> Tensor:
        hidden, _ = self.body(self.embedding(ids.T if self._first else ids))
        return self.head(hidden[-1] if self._first else hidden[:, -1])


LSTM_NAMES = [name for name in NAMES if name != "dasp"]


@pytest.mark.parametrize(("rows", "tokens"), [(1, 4), (4, 1), (1, 1), (2, 2), (3, 5), (4, 4)])
@pytest.mark.parametrize("name", LSTM_NAMES)
def test_the_batch_axis_is_located(name: str, rows: int, tokens: int) -> None:
    torch.manual_seed(rows)
    time_first, batch_first = TimeFirst(True).double().eval(), TimeFirst(False).double().eval()
    batch_first.load_state_dict(time_first.state_dict())
    ids = torch.randint(13, (rows, tokens))
    given = {}
    if METHODS[name].baseline_is == "background":
        given["baseline"] = Background(torch.randint(13, (5, tokens)))
    found = make(name)(time_first, ids, at="embedding", target=1, **given)
    expected = make(name)(batch_first, ids, at="embedding", target=1, **given)
    assert isinstance(found.values, Tensor)
    assert found.values.shape == (rows, tokens, 2)
    torch.testing.assert_close(found.values, expected.values)


class Odd(nn.Module):
    """A layer whose output has no axis for the batch, or one that holds more than the batch."""

    def __init__(self, change: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]):
        super().__init__()
        self.layer, self.change, self.back = nn.Identity(), change, back

    def forward(self, x: Tensor) -> Tensor:
        return self.back(self.layer(self.change(x))) * x.sum((1, 2))[:, None]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "back", "axes"),
    [
        (lambda x: x[0], lambda y: y[:1] * 2, "no axis"),
        (lambda x: x.flatten(0, 1), lambda y: y.reshape(-1, 3, 2)[:, 0], "no axis"),
        (lambda x: x[:, 0] @ x[:, 0].T, lambda y: y[:, :1], "more than one axis"),
    ],
    ids=["none", "folded", "two"],
)
def test_no_batch_axis_is_refused(name: str, rows: int, change: Any, back: Any, axes: str) -> None:
    x = torch.randn(rows, 3, 2, generator=torch.Generator().manual_seed(1)).double()
    given = {"baseline": Background(x)} if METHODS[name].baseline_is == "background" else {}
    with pytest.raises(BadInput, match=rf"'layer' puts out shape.* for {rows} rows.*{axes}"):
        make(name)(Odd(change, back), x, at="layer", target=0, **given)


def test_the_survey_is_counted() -> None:
    """One row more where the batch has several, two where it has one."""
    model, x = built(repeated, 3, 0)
    counted: list[int] = []
    model.register_forward_pre_hook(lambda _m, args: counted.append(len(args[0])))
    for rows, few in ((3, 1), (2, 1), (1, 2)):
        counted.clear()
        found = Saliency()(model, x[:rows], at="tower", target=0)
        assert counted == [few, rows]
        assert found.evaluations == few + rows


class Twins(nn.Module):
    """The layer that people name holds the weight; copies of it run."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Embedding(9, 3)
        self.encoder, self.unused = nn.Embedding(9, 3), nn.Embedding(9, 3)
        self.decoder, self.other = nn.Embedding(9, 3), nn.Embedding(9, 3)
        for tied in (self.encoder, self.decoder, self.unused):
            tied.weight = self.shared.weight

    def forward(self, ids: Tensor) -> Tensor:
        return (self.encoder(ids) * self.decoder(ids) + self.other(ids)).sum(1)


def test_a_layer_that_never_runs_names_those_with_its_weight() -> None:
    ids = torch.arange(8).reshape(2, 4)
    with pytest.raises(BadInput, match=r"'shared' never runs.*'encoder' and 'decoder', so"):
        Saliency()(Twins(), ids, at="shared", target=0)
    for way in ("encoder", "decoder"):
        assert Saliency()(Twins(), ids, at=way, target=0).at == way


def test_a_layer_by_number() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(2, 3)
    found = Saliency()(model, x, at=1, target=0)
    torch.testing.assert_close(found.values, Saliency()(model, x, at="1", target=0).values)
    assert found.at == "1"


def hooks(model: nn.Module) -> list[int]:
    return [len(module._forward_hooks) for module in model.modules()]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, BadInput])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_no_hook_is_left_after_an_interrupt(error: type[BaseException], call: int) -> None:
    """In the survey, in the first pass, and in a later one."""
    model, inputs = built(siamese, 3, 1)
    before, passes = hooks(model), 0

    def above(*leaves: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        if passes == call:
            raise error("stop")
        return Siamese.above(model, *leaves)

    model.above = above
    for at in ("tower", LayerCall("tower", 1)):
        passes = 0
        with pytest.raises(error):
            make("smoothgrad")(model, inputs, at=at, target=0, batch_size=3)
        assert hooks(model) == before
        # After an error of the model two passes more tell whether inputs lack their batch axis.
        assert passes == call if error is not RuntimeError else call <= passes <= call + 2


def test_two_threads_explain_different_calls_at_once() -> None:
    model, inputs = built(siamese, 3, 2)
    places = ["tower", LayerCall("tower", 0), LayerCall("tower", 1), "head"]
    expected = [make("integrated-gradients")(model, inputs, at=at, target=0) for at in places]
    found: dict[int, Any] = {}
    barrier = threading.Barrier(len(places))

    def work(number: int) -> None:
        barrier.wait()
        for _ in range(5):
            method = make("integrated-gradients")
            found[number] = method(model, inputs, at=places[number], target=0)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(places))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, one in enumerate(expected):
        torch.testing.assert_close(found[number].values, one.values)
    assert not any(hooks(model))
