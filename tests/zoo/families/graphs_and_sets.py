"""Networks on graphs and sets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.families.family import Family, floats

KIND = "graphs and sets"


class GraphConvolution(nn.Module):
    """Nodes (B, 6, 4) -> (B, 3): means over neighbours by `index_add`, on one fixed graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        edges = [[0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0], [1, 0, 2, 1, 3, 2, 4, 3, 5, 4, 0, 5]]
        self.register_buffer("edges", torch.tensor(edges))

    def spread(self, x: Tensor) -> Tensor:
        source, to = self.edges
        return torch.zeros_like(x).index_add(1, to, x.index_select(1, source)) / 2 + x

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.spread(self.first(x)))
        return self.head(F.relu(self.spread(self.second(x))).mean(1))


class GraphAttention(nn.Module):
    """Nodes (B, 6, 4) -> (B, 3): a softmax over each node's edges by `scatter_add`."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.weigh, self.head = nn.Linear(4, 8), nn.Linear(16, 1), nn.Linear(8, 3)
        edges = [[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]]
        self.register_buffer("edges", torch.tensor(edges))

    def forward(self, x: Tensor) -> Tensor:
        source, to = self.edges
        x = self.value(x)
        pairs = torch.cat([x[:, source], x[:, to]], -1)
        weights = torch.exp(F.leaky_relu(self.weigh(pairs), 0.2).clamp(max=5))
        place = to[None, :, None].expand(len(x), -1, 1)
        total = x.new_zeros(len(x), 6, 1).scatter_add(1, place, weights)
        weights = weights / total.gather(1, place)
        sent = x.new_zeros(x.shape).scatter_add(1, place.expand(-1, -1, 8), weights * x[:, source])
        return self.head(F.elu(sent).mean(1))


class PointNet(nn.Module):
    """Points (B, 10, 3) -> (B, 3): one network for each point, the maximum over them."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.each(x).max(1).values)


class MultipleInstances(nn.Module):
    """Bags (B, 5, 6) -> (B,): gated attention over the instances of a bag."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.u, self.w = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 1)
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.w(torch.tanh(self.v(x)) * torch.sigmoid(self.u(x))), 1)
        return self.head((weights * x).sum(1))[:, 0]


FAMILIES = (
    Family(name="graph convolution", kind=KIND, module=GraphConvolution, inputs=floats(6, 4)),
    Family(name="graph attention", kind=KIND, module=GraphAttention, inputs=floats(6, 4)),
    Family(name="PointNet", kind=KIND, module=PointNet, inputs=floats(10, 3)),
    Family(name="multiple instances", kind=KIND, module=MultipleInstances, inputs=floats(5, 6)),
)
