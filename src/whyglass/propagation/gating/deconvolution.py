"""Deconvolution: only positive signals back, whatever was active."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.paper import Paper
from whyglass.propagation.engine.calls import Rule
from whyglass.propagation.gating.gating_method import GatedMethod, deconvolved


@dataclass(frozen=True, kw_only=True)
class Deconvolution(GatedMethod):
    r"""The signal of a deconvolutional network: each gate rectifies what comes back.

    .. math:: m_x = \max(m_y, 0)

    The input of a gate plays no part, other than through max-pooling. Units: none.
    Source: Zeiler & Fergus (2014), section 2.1.

    >>> import torch, whyglass
    >>> model = lambda x: torch.relu(x[:, 0]) - torch.relu(x[:, 1]) + torch.relu(x[:, 2])
    >>> whyglass.Deconvolution()(model, torch.tensor([[2.0, 3.0, -1.0]])).values
    tensor([[1., 0., 1.]])
    """

    name: ClassVar[str] = "deconvolution"
    shows: ClassVar[str] = "Fine structures that would drive the score up, active or not."
    gate: ClassVar[Rule] = staticmethod(deconvolved)
    paper: ClassVar[Paper] = Paper(
        "Matthew D. Zeiler and Rob Fergus",
        "Visualizing and Understanding Convolutional Networks",
        "ECCV",
        2014,
        "https://arxiv.org/abs/1311.2901",
    )
