"""A tiny classifier of 32 x 32 photographs, for the command line's tests."""

import torch
from torch import nn


def model() -> nn.Module:
    """(B, 3, 32, 32) -> (B, 4) logits; always the same weights."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def not_a_model() -> int:
    """A factory that makes something else."""
    return 3
