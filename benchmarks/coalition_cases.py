"""What the Shapley estimators are compared on: each case a table with one column a player.

A photograph's windows and a question's tokens are tables, too: a one in a column says that the player
is there, and the model puts photograph or question together. So every contender has the same work. The
truth is every coalition, or with more than twelve columns many permutations, kept in a folder.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import whyglass

ADULT = (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)  # the columns that SHAP's example keeps
QUESTION = 20


@dataclass(frozen=True)
class Case:
    """A model of a table, rows to explain, the rows that stand for absence, and the truth.

    `doubt` is the truth's own relative error; contenders are tried from `least` to `most` evaluations.
    """

    model: nn.Module
    x: Tensor
    background: Tensor
    exact: Tensor
    doubt: float = 0.0
    least: int = 0
    most: int = 150_000


class Membership(nn.Module):
    """A table of ones and zeros, made into inputs of `inner` by `make` in batches."""

    def __init__(
        self, make: Callable[[Tensor], Tensor], inner: Callable[[Tensor], Tensor], batch: int
    ) -> None:
        super().__init__()
        self.make, self.inner, self.batch = make, inner, batch

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self.inner(self.make(part > 0.5)) for part in x.split(self.batch)]
        return torch.cat(parts)[:, None]


def perceptron(x: Tensor, y: Tensor | None, epochs: int, classes: bool) -> nn.Module:
    """n-64-64-1, trained by Adam unless there is nothing to learn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
        )
        optimiser = torch.optim.Adam(made.parameters(), 3e-3)
        loss = nn.BCEWithLogitsLoss() if classes else nn.MSELoss()
        for _ in range(epochs if y is not None else 0):
            for batch in torch.randperm(len(x)).split(200):
                assert y is not None
                optimiser.zero_grad()
                loss(made(x[batch])[:, 0], y[batch]).backward()
                optimiser.step()
    return made.eval().requires_grad_(False)


def synthetic(trained: bool, count: int, rows: int) -> Case:
    """Twelve columns; trained it follows products of two and three of them, a step and a sine."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x = torch.randn(4000, 12)
    y = x[:, 0] * x[:, 1] + (2 * x[:, 2]).sin() + (x[:, 3] > 0) * x[:, 4]
    y = y + x[:, 5] ** 2 / 2 - x[:, 6] * x[:, 7] * x[:, 8] + 0.3 * x[:, 9]
    model = perceptron(x, y if trained else None, 60, False)
    generator = torch.Generator().manual_seed(1)
    explained, data = (torch.randn(size, 12, generator=generator) for size in (rows, count))
    return enumerated(model, explained, data)


def adult(folder: Path, rows: int) -> Case:
    """UCI Adult, whether somebody earns more than 50,000: log-odds, categories by number."""
    with (folder / "tabular" / "adult.data").open() as file:
        lines = [line for line in csv.reader(file, skipinitialspace=True) if len(line) == 15]
    columns: list[list[float]] = []
    for place in ADULT:
        entries = [line[place] for line in lines]
        if entries[0].isdigit():
            columns.append([float(entry) for entry in entries])
        else:
            names = {name: float(at) for at, name in enumerate(sorted(set(entries)))}
            columns.append([names[entry] for entry in entries])
    x = torch.tensor(columns).T
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor([float(line[14].startswith(">50K")) for line in lines])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    model = perceptron(x[:24000], y[:24000], 10, True)
    right = ((model(x[24000:])[:, 0] > 0) == (y[24000:] > 0.5)).double().mean()
    print(f"adult: accuracy {float(right):.3f} on {len(x) - 24000} held out")
    return enumerated(model, x[-rows:], x[:100])


def thirty(cache: Path, rows: int) -> Case:
    """Wisconsin breast cancer, thirty columns: the logit of benign."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    x, y = torch.tensor(found.data).float(), torch.tensor(found.target).float()
    x = (x - x.mean(0)) / x.std(0)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    model = perceptron(x[:400], y[:400], 40, True)
    right = ((model(x[400:])[:, 0] > 0) == (y[400:] > 0.5)).double().mean()
    print(f"thirty: accuracy {float(right):.3f} on {len(x) - 400} held out")
    return permuted(cache / f"thirty-{rows}.pt", model, x[-rows:], x[:100], 50_000, 10)


def superpixels(cache: Path) -> Case:
    """Eight by eight windows of a photograph of a cat, over its mean colour, EfficientNet-Lite0."""
    from benchmarks.models import photo_case

    one = photo_case()
    grey = one.inputs.mean((2, 3), keepdim=True)

    def make(present: Tensor) -> Tensor:
        windows = present.reshape(-1, 1, 8, 8).repeat_interleave(28, 2).repeat_interleave(28, 3)
        return torch.where(windows, one.inputs, grey)

    model = Membership(make, lambda given: one.model(given)[:, int(one.target[0])], 4)
    everybody = torch.ones(1, 64)
    return permuted(cache / "superpixels.pt", model, everybody, 0 * everybody, 160, 8, (1000, 2100))


def questions(folder: Path, cache: Path, count: int) -> Iterator[Case]:
    """Questions of twenty tokens, which the head was not trained on, absent tokens being [MASK].

    The logit of the predicted class.
    """
    from tests.zoo.minilm import MiniLM, tokens

    network = MiniLM("sdpa").eval().requires_grad_(False)
    known = {split: trec(folder, split) for split in ("train", "test")}
    every = tokens([question for question, _ in known["train"]])
    right = every["attention_mask"].sum(1) == QUESTION + 2
    long = every["input_ids"][right, None, : QUESTION + 2]
    known["train"] = [
        one for one, fits in zip(known["train"], right.tolist(), strict=True) if not fits
    ]
    kept = cache / "trec-head.pt"
    if not kept.exists():
        head, share = trained_head(network, known)
        print(f"questions: accuracy {share:.3f} on the test set")
        torch.save(head, kept)
    network.head.load_state_dict(torch.load(kept))
    for place, question in enumerate(long[:count]):
        here = torch.ones_like(question)
        best = int(network(input_ids=question, attention_mask=here).argmax())

        def make(present: Tensor, ids: Tensor = question) -> Tensor:
            ends = torch.ones(len(present), 1, dtype=torch.bool)
            return torch.where(torch.cat([ends, present, ends], 1), ids, 103)

        def score(given: Tensor, best: int = best) -> Tensor:
            return network(input_ids=given, attention_mask=torch.ones_like(given))[:, best]

        everybody = torch.ones(1, QUESTION)
        yield permuted(
            cache / f"question-{place}.pt",
            Membership(make, score, 64),
            everybody,
            0 * everybody,
            2000,
            10,
            (1000, 10_000),
        )


def trec(folder: Path, split: str) -> list[tuple[str, int]]:
    """Questions and their coarse class."""
    lines = (folder / "text" / "trec" / f"TREC.{split}").read_text(encoding="latin-1")
    names = ["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]
    found = [line.split(" ", 1) for line in lines.splitlines()]
    return [(text, names.index(label.split(":")[0])) for label, text in found]


def trained_head(
    network: nn.Module, known: dict[str, list[tuple[str, int]]]
) -> tuple[dict[str, Tensor], float]:
    """A linear layer on the mean of the tokens, and how often it is right."""
    from tests.zoo.minilm import tokens

    def features(split: str) -> Tensor:
        parts = []
        for start in range(0, len(known[split]), 64):
            given = tokens([text for text, _ in known[split][start : start + 64]])
            mask = given["attention_mask"]
            body = network.body(input_ids=given["input_ids"], attention_mask=mask)
            kept = mask[..., None].float()
            parts.append((body.last_hidden_state * kept).sum(1) / kept.sum(1))
        return torch.cat(parts)

    x, y = features("train"), torch.tensor([label for _, label in known["train"]])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = nn.Linear(384, 6)
    optimiser = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(300):
        loss = nn.functional.cross_entropy(head(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    right = head(features("test")).argmax(1) == torch.tensor([label for _, label in known["test"]])
    return {name: part.detach() for name, part in head.named_parameters()}, float(
        right.double().mean()
    )


def enumerated(model: nn.Module, x: Tensor, background: Tensor) -> Case:
    """The truth by every coalition."""
    exact = whyglass.ExactShapley()(model, x, baseline=whyglass.Background(background)).values
    assert isinstance(exact, Tensor)
    return Case(model, x, background, exact)


def permuted(
    file: Path,
    model: nn.Module,
    x: Tensor,
    background: Tensor,
    pairs: int,
    parts: int,
    ladder: tuple[int, int] = (0, 150_000),
) -> Case:
    """The truth by `pairs` permutations walked both ways, in parts whose spread says its error."""
    if not file.exists():
        ends = 1 + len(background)
        budget = ends + pairs // parts * 2 * (x.shape[1] - 1)
        found = [
            whyglass.PermutationShapley(budget=budget, seed=1000 + part)(
                model, x, baseline=whyglass.Background(background)
            ).values
            for part in range(parts)
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack([part.double() for part in found if isinstance(part, Tensor)]), file)
    found = torch.load(file)
    exact = found.mean(0)
    error = (found.var(0) / len(found)).sum(1).sqrt() / exact.norm(dim=1)
    return Case(model, x, background, exact, float(error.median()), *ladder)
