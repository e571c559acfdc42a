"""DASP against its formulas written out, exact Shapley values, and drawn random numbers."""

import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from whyglass import DASP, BadInput, Contrast, IntegratedGradients, Probability, Unsupported
from whyglass.propagation.moments.moments import Covariance, Moments
from whyglass.propagation.moments.rules import RULES


def naive(net: nn.Sequential, x: Tensor, start: Tensor) -> Tensor:
    """Ancona et al. (2019) on dense, ReLU, dense, ReLU, dense: one feature and one size at a time.

    The first layer's moments are those of k draws without replacement; a ReLU's are those of a
    rectified Gaussian, as in lightweight probabilistic networks (Gast & Roth, 2018).
    """

    def relu(mean: float, var: float) -> tuple[float, float]:
        if var <= 0:
            return max(mean, 0.0), 0.0
        deviation = math.sqrt(var)
        z = mean / deviation
        below, density = 0.5 * math.erfc(-z / 2**0.5), math.exp(-z * z / 2) / (2 * math.pi) ** 0.5
        first = mean * below + deviation * density
        return first, (mean**2 + var) * below + mean * deviation * density - first**2

    def expected(i: int, k: int, inside: bool) -> float:
        change = (x - start).tolist()
        others = [j for j in range(len(change)) if j != i]
        m = len(others)
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        state = []
        at_start = layers[0](start).tolist()
        for unit, weights in enumerate(layers[0].weight.tolist()):
            terms = [weights[j] * change[j] for j in others]
            average = sum(terms) / m
            spread = sum(t * t for t in terms) / m - average**2
            mean = at_start[unit] + k * average + inside * weights[i] * change[i]
            state.append(relu(mean, k * spread * (1 - (k - 1) / (m - 1))))
        for layer in layers[1:]:
            passed = []
            for bias, weights in zip(layer.bias.tolist(), layer.weight.tolist(), strict=True):
                mean = bias + sum(w * s[0] for w, s in zip(weights, state, strict=True))
                var = sum(w * w * s[1] for w, s in zip(weights, state, strict=True))
                passed.append((mean, var) if layer is layers[-1] else relu(mean, var))
            state = passed
        return state[0][0]

    n = len(x)
    return torch.tensor(
        [sum(expected(i, k, True) - expected(i, k, False) for k in range(n)) / n for i in range(n)]
    ).double()


def exact(score: Callable[[Tensor], Tensor], x: Tensor, start: Tensor) -> Tensor:
    """Shapley values of one row by all coalitions."""
    n = x.numel()
    present = torch.tensor(list(itertools.product((0.0, 1.0), repeat=n))).double()
    mixed = start.flatten() + present * (x - start).flatten()
    with torch.no_grad():
        scores = score(mixed.reshape(-1, *x.shape))
    weight = torch.tensor([1 / (n * math.comb(n - 1, k)) for k in range(n)]).double()
    values = torch.zeros(n).double()
    for i in range(n):
        without = (present[:, i] == 0).nonzero()[:, 0]
        gain = scores[without + 2 ** (n - 1 - i)] - scores[without]
        values[i] = (gain * weight[present[without].sum(1).long()]).sum()
    return values.reshape(x.shape)


def dense(seed: int = 0, columns: int = 6) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Linear(columns, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1)
    return nn.Sequential(*layers).double().eval()


def row(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("base", [0.0, 0.4])
def test_is_the_published_formula(base: float) -> None:
    net, x = dense(), row(2, 6)
    found = DASP(sizes=None)(net, x, baseline=base).values
    for one, values in zip(x, found, strict=True):
        torch.testing.assert_close(values, naive(net, one, torch.full_like(one, base)))


@pytest.mark.parametrize("covariance", ["none", "full"])
@pytest.mark.parametrize("sizes", [1, 3, None])
def test_is_exact_where_the_score_is_linear(covariance: Any, sizes: int | None) -> None:
    torch.manual_seed(0)
    pool = nn.AvgPool2d(2)
    layers = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), pool, nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(12, 2)).double().eval()
    x, start = row(2, 2, 4, 4), row(2, 2, 4, 4, seed=1)
    given = x.clone().requires_grad_()
    (weights,) = torch.autograd.grad(net(given)[:, 1].sum(), given)
    found = DASP(sizes=sizes, covariance=covariance)(net, x, target=1, baseline=start)
    torch.testing.assert_close(found.values, weights * (x - start))
    assert found.verdict == "pass"


def test_is_near_the_shapley_values_and_nearer_with_covariance() -> None:
    """Over 12 networks; integrated gradients for comparison."""
    errors: dict[str, list[float]] = {"none": [], "full": [], "ig": []}
    for seed in range(12):
        net, x = dense(seed, 8), row(8, seed=seed)
        truth = exact(lambda given, net=net: net(given)[:, 0], x, torch.zeros_like(x))
        for name, method in (
            ("none", DASP(sizes=None, compare=False)),
            ("full", DASP(sizes=None, covariance="full", compare=False)),
            ("ig", IntegratedGradients()),
        ):
            values = method(net, x[None]).values[0]
            errors[name].append(float((values - truth).norm() / truth.norm()))
    none, full, ig = (float(torch.tensor(errors[name]).median()) for name in ("none", "full", "ig"))
    assert none < 0.15
    assert full < 0.7 * none
    assert none < ig / 2


class Convolutional(nn.Module):
    """Strides, dilation, groups, batch norm, a residual sum and both poolings on (B, 2, 6, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, (3, 1), padding=(1, 0), groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, (3, 1), padding=(2, 0), dilation=(2, 1), bias=False)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.first(x)))
        x = F.leaky_relu(x + self.second(x), 0.1)
        x = F.max_pool2d(x, (2, 1)) + F.avg_pool2d(x, (3, 1), (2, 1), (1, 0))
        return self.head(F.adaptive_avg_pool2d(x, (3, 1)).flatten(1))


@pytest.mark.parametrize("target", [1, Contrast(0, 2), Probability(1)])
@pytest.mark.parametrize("covariance", ["none", "full"])
def test_convolutions_pools_and_a_residual_sum(covariance: Any, target: Any) -> None:
    torch.manual_seed(3)
    net = Convolutional().double().eval()
    x = row(1, 2, 3, 2)
    found = DASP(sizes=None, covariance=covariance)(net, x, target=target)

    def score(given: Tensor) -> Tensor:
        logits = net(given)
        if target == 1:
            return logits[:, 1]
        return logits[:, 0] - logits[:, 2] if target == Contrast(0, 2) else logits.softmax(1)[:, 1]

    truth = exact(score, x[0], torch.zeros_like(x[0]))
    assert (found.values[0] - truth).norm() < (
        0.25 if covariance == "none" else 0.12
    ) * truth.norm()


def test_a_softmax_in_the_network_and_one_in_the_target_are_the_same() -> None:
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 3)).double().eval()
    inside = nn.Sequential(logits, nn.Softmax(1)).eval()
    x = row(2, 5)
    found = DASP()(inside, x, target=1).values
    torch.testing.assert_close(found, DASP()(logits, x, target=Probability(1)).values)


def passed(
    run: Callable[[Tensor], Tensor], mean: Tensor, start: Covariance
) -> tuple[Tensor, Covariance]:
    """What the rules make of a Gaussian."""
    engine = Moments(RULES)
    with engine, torch.no_grad():
        engine.start(mean, start)
        result = run(mean)
    return result, engine._covariances[id(result)]


MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3]).double()),
    "hardtanh": lambda x: F.hardtanh(x, min_val=-0.5, max_val=2.0),
    "clamp": lambda x: x.clamp(max=0.5),
    "abs": torch.abs,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "elu": F.elu,
    "softplus": F.softplus,
}


@pytest.mark.parametrize("name", MAPS)
def test_moments_of_elementwise_functions(name: str) -> None:
    """Against 400,000 draws; the shared part is the covariance with what entered."""
    mean = torch.tensor([[-3.0, -0.7, 0.0, 0.2, 1.9, 5.8]]).double()
    own, shared = torch.full_like(mean, 0.3), torch.full((1, 1, 6), 0.8).double()
    made, of_result = passed(MAPS[name], mean, Covariance(own, shared))
    common = row(400_000, 1)
    drawn = MAPS[name](mean + 0.8 * common + 0.3**0.5 * row(400_000, 6, seed=1))
    torch.testing.assert_close(made[0], drawn.mean(0), rtol=0.01, atol=0.006)
    torch.testing.assert_close(of_result.variance()[0], drawn.var(0), rtol=0.02, atol=0.002)
    assert of_result.factors is not None
    covariance = (drawn * common).mean(0)
    torch.testing.assert_close(of_result.factors[0, 0], covariance, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("correlated", [False, True])
def test_moments_of_the_larger_of_two(correlated: bool) -> None:
    """Clark's formulas are exact for two Gaussians."""
    mean = torch.tensor([[[0.0, 0.4, 3.0, -1.0, 1.0, 1.0]]]).double()
    own = torch.tensor([[[1.0, 0.5, 0.1, 2.0, 0.0, 0.0]]]).double()
    shared = torch.tensor([1.0, -0.5, 0.3, 0.3, 0.0, 0.0]).double().reshape(1, 1, 1, 6)
    made, of_result = passed(
        lambda x: F.max_pool1d(x, 2), mean, Covariance(own, shared if correlated else None)
    )
    drawn = mean + own.sqrt() * row(400_000, 1, 6)
    if correlated:
        drawn = drawn + shared[0] * row(400_000, 1, 1, seed=1)
    drawn = F.max_pool1d(drawn, 2)
    torch.testing.assert_close(made[0], drawn.mean(0), rtol=0, atol=0.01)
    torch.testing.assert_close(of_result.variance()[0], drawn.var(0), rtol=0.02, atol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (2, 3), "stride": 1, "dilation": (1, 2)},
        {"kernel_size": 2, "ceil_mode": True},
    ],
)
def test_max_pooling_picks_its_windows(settings: dict[str, Any]) -> None:
    """Without any variance the rule is the pooling itself."""
    mean = row(2, 3, 7, 9)
    made, of_result = passed(
        lambda x: F.max_pool2d(x, **settings), mean, Covariance(torch.zeros_like(mean))
    )
    torch.testing.assert_close(made, F.max_pool2d(mean, **settings))
    assert of_result.variance().abs().max() < 1e-20


@pytest.mark.parametrize(
    "run",
    [
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        lambda x: F.adaptive_avg_pool2d(x, (3, 4)),
        lambda x: x.mean((2, 3)),
        lambda x: x.sum(1),
        lambda x: 3 * x - x.flip(1) / 2,
        lambda x: torch.cat([x, torch.ones_like(x)], 1),
        lambda x: F.pad(x, (1, 1), value=4.0),
        lambda x: F.conv2d(x, row(4, 1, 3, 3), row(4), padding=1, groups=2)[:, 1:],
        lambda x: F.conv_transpose2d(x, row(2, 3, 2, 2), row(3)),
        lambda x: x.reshape(2, -1) @ row(70, 4),
    ],
)
def test_variances_of_affine_operations(run: Callable[[Tensor], Tensor]) -> None:
    """Against the matrix of the operation, entry by entry."""
    mean, own = row(2, 2, 5, 7), row(2, 2, 5, 7, seed=1).square()
    made, of_result = passed(run, mean, Covariance(own))
    torch.testing.assert_close(made, run(mean))
    matrix: Any = torch.autograd.functional.jacobian(run, mean).flatten(made.dim())
    expected = (matrix**2 @ own.flatten()).reshape(made.shape)
    torch.testing.assert_close(of_result.variance(), expected)


def test_the_checks_say_where_sampling_is_the_better_bargain() -> None:
    """One size is coarse on this network, and a few permutations are not."""
    torch.manual_seed(0)
    layers = nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2)
    net, x = nn.Sequential(*layers).double().eval(), torch.randn(3, 8).double()
    coarse = DASP(sizes=1)(net, x, target=0)
    assert [(c.name, c.verdict) for c in coarse.checks] == [
        ("completeness", "warn"),
        ("bias", "warn"),
    ]
    fine = DASP(sizes=None, covariance="full")(net, x, target=0)
    assert fine.checks[1].verdict == "pass"
    assert "antithetic permutations for as many evaluations" in fine.checks[1].text
    alone = DASP(sizes=1, compare=False)(net, x, target=0)
    assert [check.name for check in alone.checks] == ["completeness"]
    assert torch.equal(alone.values, coarse.values)
    assert alone.evaluations == 3 * (2 + 2 * 8)


def test_the_bias_is_measured_without_the_sampling_error() -> None:
    from whyglass.propagation.moments.random_coalitions import bias_check

    pairs = row(200, 3, 10) + 2
    right = bias_check(torch.full((3, 10), 2.0).double(), pairs)
    off = bias_check(torch.full((3, 10), 2.5).double(), pairs)
    assert right.verdict == "pass"
    assert off.verdict == "warn"
    assert "sampling is the better bargain" in off.text
    # Off by 0.5 in each of 10 values of 2; the sampled ones by 1 / sqrt(200).
    said = re.search(r"off by ([\d.]+)%.*are by ([\d.]+)%", off.text)
    assert said is not None
    assert [float(number) for number in said.groups()] == pytest.approx([25, 3.5], rel=0.1)
    assert 4 < off.measured < 0.5 * 200**0.5


def test_the_compared_permutations_are_shapley_values() -> None:
    from whyglass.core.scorer import Scorer
    from whyglass.propagation.moments.random_coalitions import Players, antithetic_values

    net, x = dense(), row(2, 6)
    scorer = Scorer(net, x, gradient=False)
    high = scorer.at_inputs(gradient=False).scores
    starts = (torch.zeros_like(x),)
    low = scorer.scores(lambda piece: (starts[0][piece],), torch.arange(2))
    generator = torch.Generator().manual_seed(0)
    pairs = antithetic_values(scorer, Players((x,), starts), (low, high), 3000, generator)
    torch.testing.assert_close(pairs.sum(2), (high - low).expand(3000, -1))
    for i in range(2):
        truth = exact(lambda given: net(given)[:, 0], x[i], torch.zeros(6).double())
        error = pairs[:, i].std(0) / 3000**0.5
        assert ((pairs[:, i].mean(0) - truth).abs() < 4.5 * error).all()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda x: x[:, :1] * x[:, 1:2], ["'mul'", "in this form"]),
        (lambda x: torch.where(x > 0, x, 0 * x)[:, :1], ["'gt'", "larger"]),
        (lambda x: torch.cumsum(x, 1)[:, :1], ["'cumsum'", "no rule"]),
        (lambda x: F.layer_norm(x, (4,))[:, :1], ["'layer_norm'", "no rule"]),
        (lambda x: torch.from_numpy(x.numpy())[:, :1], ["'numpy'", "no rule"]),
    ],
)
def test_an_operation_without_a_rule_is_named(
    model: Callable[[Tensor], Tensor], words: list[str]
) -> None:
    with pytest.raises(Unsupported) as refusal:
        DASP()(model, torch.ones(1, 4))
    for word in [*words, "means and variances" if "rule" in words[1] else "", "at=", __file__]:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sizes": 0}, "sizes must be a positive integer"),
        ({"sizes": 2.5}, "sizes must be a positive integer"),
        ({"covariance": "half"}, 'must be "none" or "full", not \'half\''),
        ({"compare": 1}, "compare must be True or False, not 1"),
        ({"seed": "zero"}, "seed must be an integer"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        DASP(**settings)


def test_integers_are_refused() -> None:
    with pytest.raises(BadInput, match=r"must be floats.*at="):
        DASP()(lambda a, b: a, (torch.ones(1, 2), torch.ones(1, 2).long()))


def test_more_passes_than_anyone_waits_for_are_refused() -> None:
    with pytest.raises(
        BadInput, match=r"dasp takes 1.2e\+06 passes a row for 150528 features.*sizes="
    ):
        DASP(sizes=4)(lambda x: x.flatten(1)[:, :2], torch.ones(1, 3, 224, 224))


def test_a_detached_tensor_counts_as_the_tensor() -> None:
    """DASP explains scores, and detaching changes none."""
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double().eval()
    x = torch.randn(2, 4, dtype=torch.float64)
    detached = DASP()(lambda z: net(z.detach()), x, target=0)
    torch.testing.assert_close(detached.values, DASP()(net, x, target=0).values)
