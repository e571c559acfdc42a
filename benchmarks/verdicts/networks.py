"""Networks whose gradients, path integrals and relevance a longer computation gives exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import whyglass
from benchmarks.verdicts.games import Game
from benchmarks.verdicts.judge import Case
from tests.zoo.networks import ZOO

Model = Callable[[Tensor], Tensor]
POINTS = 2**16
NOISES = 2**15
# Backgrounds beside which one is too small or not, and the rows of each for a network.
OTHERS, ROWS = 4, 30


@dataclass(frozen=True)
class Smooth:
    """A differentiable score of one row (1, n) with a baseline and a background."""

    name: str
    hard: bool
    model: nn.Module
    x: Tensor
    start: Tensor
    rows: Tensor

    def integral(
        self, start: Tensor | None = None, curve: Any = None, points: int = POINTS
    ) -> Tensor:
        """(n,) the gradient integrated by midpoints that lie close together near both ends."""
        model, x = copy.deepcopy(self.model).double(), self.x.double()
        start = (self.start if start is None else start).double()
        t = (torch.arange(points, dtype=torch.float64) + 0.5) / points
        # alpha' = 140 t^3 (1 - t)^3 vanishes at both ends.
        alpha = t**4 * (35 - 84 * t + 70 * t**2 - 20 * t**3)
        slope = 140 * (t * (1 - t)) ** 3
        total = torch.zeros(x.shape[1], dtype=torch.float64)
        for piece in torch.arange(points).split(2**14):
            at = alpha[piece, None].requires_grad_()
            power = 1.0 if curve is None else curve
            along = at**power
            (speed,) = torch.autograd.grad(along.sum(0).sum(), at, create_graph=False)
            moved = (start + along.detach() * (x - start)).requires_grad_()
            (gradient,) = torch.autograd.grad(model(moved).sum(), moved)
            total += (gradient * (x - start) * speed * slope[piece, None]).sum(0) / points
        return total

    def expected(self, rows: Tensor | None = None) -> Tensor:
        """(n,) the mean of the integrals from every background row."""
        rows = self.rows if rows is None else rows
        return torch.stack([self.integral(row[None], points=2**12) for row in rows]).mean(0)

    def drawn(self, count: int, seed: int) -> Tensor:
        """As many other rows, around the same place and as far apart."""
        generator = torch.Generator().manual_seed(4001 + seed)
        scale = self.rows.double().std()
        middle = 0 * self.x.double() if scale > 1e-3 else self.x.double()
        return middle + scale * torch.randn(count, self.x.shape[1], generator=generator).double()

    def gradient(self) -> Tensor:
        """(n,) at the row."""
        x = self.x.double().requires_grad_()
        (gradient,) = torch.autograd.grad(copy.deepcopy(self.model).double()(x).sum(), x)
        return gradient[0]

    def noisy(self, noise: float, power: int) -> tuple[Tensor, Tensor]:
        """(n,) mean and variance of gradients, to that power, under noise."""
        generator = torch.Generator().manual_seed(987)
        model, x = copy.deepcopy(self.model).double(), self.x.double()
        scale = noise * (x.max() - x.min())
        drawn = torch.randn(NOISES, x.shape[1], generator=generator, dtype=torch.float64)
        points = (x + scale * drawn).requires_grad_()
        (gradient,) = torch.autograd.grad(model(points).sum(), points)
        return (gradient**power).mean(0), gradient.var(0)


class Score(nn.Module):
    """A column of a network's output, bent."""

    def __init__(self, body: nn.Module, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.bend = body, bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.body(x)[:, 0])


class Direction(nn.Module):
    """A row of length one, times weights: without a limit at zero."""

    def __init__(self, n: int, floor: float) -> None:
        super().__init__()
        self.head, self.floor = nn.Linear(n, 1), floor

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x / (x.norm(dim=1, keepdim=True) + self.floor))


def perceptron(n: int, activation: type[nn.Module]) -> nn.Sequential:
    """n-16-12-1, weights twice as large as by default."""
    made = nn.Sequential(
        nn.Linear(n, 16), activation(), nn.Linear(16, 12), activation(), nn.Linear(12, 1)
    )
    with torch.no_grad():
        for layer in (made[0], made[2], made[4]):
            layer.weight.mul_(2)
    return made


def networks(seed: int, n: int = 6) -> Iterator[Smooth]:
    """Easy and hard ones, in float64 unless the name says otherwise."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tanh, relu = perceptron(n, nn.Tanh).double(), perceptron(n, nn.ReLU).double()
        norm = nn.Sequential(nn.Linear(n, 8), nn.LayerNorm(8), nn.Linear(8, 1)).double()
        direction, sharp = Direction(n, 0.1).double(), Direction(n, 1e-6).double()
        x, rows = torch.randn(1, n).double(), torch.randn(12, n).double()
    with torch.no_grad():
        norm[0].bias.zero_()
        norm[1].eps = 1e-8
    zero = torch.zeros_like(x)

    def plain(y: Tensor) -> Tensor:
        return y

    middle = float((tanh(zero) + tanh(x)).detach()) / 2
    yield Smooth("tanh", False, Score(tanh, plain), x, zero, rows)
    yield Smooth("relu", False, Score(relu, plain), x, zero, rows)
    yield Smooth("direction", False, Score(direction, plain), x, zero, rows)
    yield Smooth("saturated", True, Score(tanh, lambda y: torch.sigmoid(40 * y)), x, zero, rows)
    step = Score(tanh, lambda y: torch.sigmoid(1000 * (y - middle)))
    yield Smooth("step", True, step, x, zero, rows)
    yield Smooth("sharp at the baseline", True, Score(sharp, plain), x, zero, rows)
    yield Smooth("layer norm at the baseline", True, Score(norm, plain), x, zero, rows)
    yield Smooth("baseline far out", True, Score(tanh, plain), x, zero + 1e3, 1e3 * rows)
    yield Smooth("baseline close by", True, Score(relu, plain), x, x + 1e-6, x + 1e-6 * rows)
    yield Smooth("two background rows", True, Score(relu, plain), x, zero, rows[:2])
    flat = Score(relu, lambda y: 3 + 0 * y)
    yield Smooth("constant", True, flat, x, zero, rows)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        made = copy.deepcopy(Score(relu, plain)).to(dtype)
        name = str(dtype).removeprefix("torch.")
        parts = (part.to(dtype) for part in (x, zero, rows))
        yield Smooth(name, dtype != torch.float32, made, *parts)


def gradient_cases(seeds: int) -> Iterator[Case]:
    """Gradients, path integrals and smoothed gradients."""
    for seed in range(seeds):
        for net in networks(seed):
            yield from _of_one(net, seed)


def _of_one(net: Smooth, seed: int) -> Iterator[Case]:
    def case(method: whyglass.Method, truth: Callable[[], Tensor], **arguments: Any) -> Case:
        return Case(method, net.name, net.hard, net.model, net.x, truth, arguments)

    yield case(whyglass.Saliency(), lambda: net.gradient().abs())
    yield case(whyglass.GradientXInput(), lambda: net.gradient() * net.x[0].double())
    yield case(whyglass.IntegratedGradients(), net.integral, baseline=net.start)
    if net.name != "sharp at the baseline":
        rule = whyglass.IntegratedGradients(rule="gauss-legendre", steps=32)
        yield case(rule, net.integral, baseline=net.start)
    bent = whyglass.PathGradients(path=lambda s, e, a: s + a**2 * (e - s))
    yield case(bent, net.integral, baseline=net.start)
    background = whyglass.Background(net.rows)
    for samples in (50, 400):
        yield replace(
            case(
                whyglass.ExpectedGradients(samples=samples, seed=seed),
                net.expected,
                baseline=background,
            ),
            population=lambda: net.expected(net.drawn(60, 0)),
            other_backgrounds=[
                lambda other=other: net.expected(net.drawn(len(net.rows), other))
                for other in range(1, 1 + OTHERS)
            ],
        )
        settings: dict[str, Any] = {"samples": samples, "seed": seed}
        yield case(whyglass.SmoothGrad(**settings), lambda: net.noisy(0.15, 1)[0])
        yield case(whyglass.SmoothGradSquared(**settings), lambda: net.noisy(0.15, 2)[0])
        yield case(whyglass.VarGrad(**settings), lambda: net.noisy(0.15, 1)[1])
    if net.x.dtype != torch.float64:
        return
    body = net.model
    if net.name in {"tanh", "relu", "saturated", "constant", "baseline far out"}:
        game = Game(net.name, net.hard, body, net.x, net.start)
        yield case(whyglass.DASP(sizes=None), game.shapley, baseline=net.start)


def propagation_cases(seeds: int) -> Iterator[Case]:
    """Rules, maps and attention in every precision against the same in float64.

    What they give in float64 the tests hold to naive versions.
    """
    relevance = {"lrp", "attn-lrp", "cp-lrp"}
    for seed in range(seeds):
        for name, network, classes in _zoo(seed):
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for kind in whyglass.METHODS.values():
                    if kind.family in {"gradient", "coalition"} or kind.name == "dasp":
                        continue
                    if "images" in kind.needs and name not in IMAGES:
                        continue
                    if "attention" in kind.needs and name != "vit":
                        continue
                    if kind is whyglass.CAM and name == "vit":
                        continue
                    yield _against_float64(
                        kind(), name, network, classes, dtype, kind.name in relevance
                    )


IMAGES = {"gap-cnn", "residual", "single pixel", "constant image"}


def _zoo(seed: int) -> Iterator[tuple[str, Callable[[torch.dtype], tuple[nn.Module, Tensor]], int]]:
    def from_zoo(key: str, shape: Callable[[Tensor], Tensor]) -> Any:
        def make(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
            network = ZOO[key]
            inputs = network.inputs(1, seed, torch.float64)
            assert isinstance(inputs, Tensor)
            return network.make(seed).to(dtype), shape(inputs).to(dtype)

        return make

    yield "mlp", from_zoo("mlp", lambda x: x), 4
    yield "gap-cnn", from_zoo("gap-cnn", lambda x: x), 4
    yield "residual", from_zoo("residual", lambda x: x), 4
    yield "vit", from_zoo("vit", lambda x: x), 10
    yield "single pixel", from_zoo("gap-cnn", lambda x: x[:, :, :1, :1]), 4
    yield "constant image", from_zoo("gap-cnn", lambda x: 0 * x + 0.5), 4
    yield "huge logits", _huge_logits, 10


def _huge_logits(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """Three layers of ones before a softmax: all logits equal, however large."""
    layers = [nn.Linear(12, 12, bias=False), nn.Linear(12, 12, bias=False), nn.Linear(12, 10)]
    model = nn.Sequential(*layers, nn.Softmax(1))
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(1.0)
        layers[2].bias.copy_(torch.linspace(0, 0.5, 10))
    return model.eval().to(dtype), torch.arange(12.0)[None].to(dtype) / 4


def _against_float64(
    method: whyglass.Method,
    name: str,
    make: Callable[[torch.dtype], tuple[nn.Module, Tensor]],
    classes: int,
    dtype: torch.dtype,
    conserves: bool,
) -> Case:
    model, x = make(dtype)
    arguments: dict[str, Any] = {"target": classes - 1}
    if isinstance(method, whyglass.CounterfactualGradCAM):
        arguments = {"target": 0}
    if method.baseline_is == "row":
        arguments["baseline"] = 0.0

    def rows(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(6007 + seed)
        noise = torch.randn(count, *x.shape[1:], generator=generator)
        return (x.double() * (0.5 + 0.2 * noise)).to(x)

    def exact(count: int = ROWS, seed: int = 0) -> Tensor:
        more = dict(arguments)
        if method.baseline_is == "background":
            more["baseline"] = whyglass.Background(rows(count, seed).double())
        values = method(copy.deepcopy(model).double(), x.double(), **more).values
        assert isinstance(values, Tensor)
        return values

    averaged = method.baseline_is == "background"
    more = {"baseline": whyglass.Background(rows(ROWS, 0))} if averaged else {}
    label = f"{name}, {str(dtype).removeprefix('torch.')}"
    return Case(
        method,
        label,
        dtype != torch.float32 or name not in {"mlp", "gap-cnn", "residual", "vit"},
        model,
        x,
        exact,
        arguments | more,
        "conservation" if conserves else "values",
        population=(lambda: exact(200, 1)) if averaged else None,
        other_backgrounds=[
            lambda other=other: exact(ROWS, other) for other in range(2, 2 + OTHERS)
        ],
    )


def rise_cases(seeds: int) -> Iterator[Case]:
    """RISE against very many masks."""
    for seed in range(seeds):
        for name, dtype in (("cnn", torch.float64), ("saturated", torch.float64)):
            model = ZOO["gap-cnn"].make(seed)
            x = ZOO["gap-cnn"].inputs(1, seed)
            assert isinstance(x, Tensor)
            power = 1.0 if name == "cnn" else 30.0

            def score(z: Tensor, model: nn.Module = model, power: float = power) -> Tensor:
                return torch.softmax(power * model(z), 1)[:, :1]

            def truth(score: Model = score, x: Tensor = x) -> Tensor:
                values = whyglass.RISE(samples=30_000, cells=4, seed=999)(score, x, target=0).values
                assert isinstance(values, Tensor)
                return values

            for samples in (60, 300, 1000):
                method = whyglass.RISE(samples=samples, cells=4, seed=seed)
                yield Case(method, name, name != "cnn", score, x.to(dtype), truth, {"target": 0})
