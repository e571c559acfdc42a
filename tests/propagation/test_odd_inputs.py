"""Inputs of odd but legal shapes, formats and values: an answer, or one sentence that refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from whyglass import (
    DASP,
    LRP,
    AttnLRP,
    Background,
    Deconvolution,
    DeepLIFT,
    DeepSHAP,
    Explanation,
    GuidedBackprop,
    Unsupported,
    WeightOfEvidence,
)
from whyglass.core.method import Method

METHODS: list[Method] = [
    LRP(),
    LRP(rule="alpha2-beta1", bias="share"),
    LRP(rule="epsilon", bias="share"),
    AttnLRP(),
    DeepLIFT(),
    DeepLIFT(rule="reveal-cancel"),
    DeepSHAP(),
    WeightOfEvidence(),
    GuidedBackprop(),
    Deconvolution(),
    DASP(sizes=2),
]


class OneNumber(nn.Module):
    """Rows (B,) -> (B, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x[:, None])))


def volume() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(2, 4, 2), nn.BatchNorm3d(4), nn.ReLU(), nn.MaxPool3d(2), nn.GroupNorm(2, 4),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def tokens() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return nn.Sequential(layer, nn.LayerNorm(4), nn.Flatten(), nn.LazyLinear(3))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "no feature axis": (OneNumber, ()),
    "one feature": (lambda: nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 3)), (1,)),
    "one pixel": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(4, 3)),
        (3, 1, 1),
    ),
    "five axes": (volume, (2, 4, 4, 4)),
    "six axes": (
        lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)),
        (2, 2, 1, 2, 2),
    ),
    "one token": (tokens, (1, 4)),
    "logits alone": (nn.Identity, (3,)),
}  # fmt: skip


def explained(method: Method, net: nn.Module, x: Tensor) -> Explanation | None:
    """The explanation, or None where the method refuses an operation."""
    baseline = (
        Background(torch.stack([x[0] * 0, x[0] * 0 + 0.5])) if method.name == "deep-shap" else None
    )
    try:
        return method(net, x, target=1, baseline=baseline)
    except Unsupported:
        assert method.name == "dasp"
        return None


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_answer_for_odd_inputs(method: Method, name: str, dtype: torch.dtype) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    x = torch.randn(3, *shape)
    net(x)
    net, x = net.to(dtype).eval(), x.to(dtype)
    # A batch, one row, and rows that equal the baseline of zeros.
    for rows in (x, x[:1], torch.zeros_like(x)):
        found = explained(method, net, rows)
        if found is None:
            continue
        assert isinstance(found.values, Tensor)
        assert found.values.shape == rows.shape
        assert found.values.isfinite().all()
        if method.name in {"deeplift", "weight-of-evidence"}:
            assert found.verdict in ({"pass"} if dtype == torch.float64 else {"pass", "warn"})
            if not rows.any():
                assert not found.values.any()
