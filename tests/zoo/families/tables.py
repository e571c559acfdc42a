"""Networks on the columns of tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.families.family import Family, floats, in_order

KIND = "tables"


def perceptron() -> nn.Module:
    """(B, 5) -> (B, 3), dropout in place."""
    return nn.Sequential(
        nn.Linear(5, 16),
        nn.ReLU(),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(16, 16),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(16, 3),
    )


def self_normalising() -> nn.Module:
    """(B, 5) -> (B, 3): SELU and its dropout."""
    return nn.Sequential(
        nn.Linear(5, 16),
        nn.SELU(inplace=True),
        nn.AlphaDropout(0.1, inplace=True),
        nn.Linear(16, 3),
        nn.LogSoftmax(1),
    )


class NeuralAdditive(nn.Module):
    """(B, 5) -> (B, 3): a small network a column, added up."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = nn.ModuleList(
            nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = [net(x[:, i : i + 1]) for i, net in enumerate(self.columns)]
        return torch.stack(parts, 0).sum(0)


class FactorisationMachine(nn.Module):
    """Columns (B, 5) and a category (B,) -> (B,): a deep network beside products of pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.category, self.factors = nn.Embedding(7, 4), nn.Linear(5, 20)
        self.deep = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        fields = torch.cat([self.factors(x).view(-1, 5, 4), self.category(category)[:, None]], 1)
        pairs = (fields.sum(1).square() - fields.square().sum(1)).sum(1) / 2
        return pairs + self.deep(fields.flatten(1))[:, 0]


class CrossNetwork(nn.Module):
    """(B, 5) -> (B, 3): each layer multiplies by the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = x
        for layer in self.layers:
            x = first * layer(x) + x
        return self.head(x)


class TabularTransformer(nn.Module):
    """(B, 5) -> (B, 3): each column a token, with a class token, in multi-head attention."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(5, 8)), nn.Parameter(torch.randn(5, 8))
        self.first = nn.Parameter(torch.randn(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x[..., None] * self.weight + self.bias
        tokens = torch.cat([self.first.expand(len(x), -1, -1), tokens], 1)
        return self.head(self.body(tokens)[:, 0])


class SoftTree(nn.Module):
    """(B, 5) -> (B, 3): a differentiable decision tree of depth two."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.leaves = nn.Linear(5, 3), nn.Parameter(torch.randn(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        root, left, right = torch.sigmoid(self.gates(x)).unbind(1)
        reach = [root * left, root * (1 - left), (1 - root) * right, (1 - root) * (1 - right)]
        return torch.stack(reach, 1) @ self.leaves


class RadialBasis(nn.Module):
    """(B, 5) -> (B, 3): distances from centres, Gaussian."""

    def __init__(self) -> None:
        super().__init__()
        self.centres, self.head = nn.Parameter(torch.randn(6, 5)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.exp(-torch.cdist(x, self.centres).square() / 4))


class Sines(nn.Module):
    """Coordinates (B, 2) -> (B, 3): sines of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(2, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.sin(self.second(torch.sin(3 * self.first(x)))))


class Maxout(nn.Module):
    """(B, 5) -> (B, 3): the largest of four linear pieces a unit, and a gated linear unit."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces, self.gated, self.head = nn.Linear(5, 32), nn.Linear(8, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pieces(x).unflatten(1, (8, 4)).amax(2)
        return self.head(F.glu(self.gated(x), 1))


class Autoencoder(nn.Module):
    """(B, 8) -> (B,): the squared error of a reconstruction, as for anomalies."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(8, 3), nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.mse_loss(self.up(F.softplus(self.down(x))), x, reduction="none").mean(1)


def _categories(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 7, (2,), generator=generator)


FAMILIES = (
    Family(name="perceptron, dropout in place", kind=KIND, module=perceptron, inputs=floats(5)),
    Family(name="self-normalising network", kind=KIND, module=self_normalising, inputs=floats(5)),
    Family(name="neural additive model", kind=KIND, module=NeuralAdditive, inputs=floats(5)),
    Family(
        name="factorisation machine",
        kind=KIND,
        module=FactorisationMachine,
        inputs=in_order(floats(5), _categories),
    ),
    Family(name="cross network", kind=KIND, module=CrossNetwork, inputs=floats(5)),
    Family(name="FT-Transformer", kind=KIND, module=TabularTransformer, inputs=floats(5)),
    Family(name="soft decision tree", kind=KIND, module=SoftTree, inputs=floats(5)),
    Family(name="radial basis functions", kind=KIND, module=RadialBasis, inputs=floats(5)),
    Family(name="sine network", kind=KIND, module=Sines, inputs=floats(2)),
    Family(name="maxout", kind=KIND, module=Maxout, inputs=floats(5)),
    Family(name="autoencoder", kind=KIND, module=Autoencoder, inputs=floats(8)),
)
