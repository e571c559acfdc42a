"""Guided backpropagation: only positive gradients through active units."""

from dataclasses import dataclass
from typing import ClassVar

from whyglass.core.paper import Paper
from whyglass.propagation.engine.calls import Rule
from whyglass.propagation.gating.gating_method import GatedMethod, guided


@dataclass(frozen=True, kw_only=True)
class GuidedBackprop(GatedMethod):
    r"""The gradient, with its negative part cut at every gating nonlinearity f.

    .. math:: m_x = f'(x) \, \max(m_y, 0)

    For ReLU that lets a signal through where the unit was active and the signal is positive. The map
    is sharp, and known to change little when the network's upper layers are randomised: read it as
    "what the features look like", not as evidence for a class. Units: none.
    Source: Springenberg et al. (2015), section 3.4.

    >>> import torch, whyglass
    >>> model = lambda x: torch.relu(x[:, 0]) - torch.relu(x[:, 1])
    >>> whyglass.GuidedBackprop()(model, torch.tensor([[2.0, 3.0]])).values
    tensor([[1., 0.]])
    """

    name: ClassVar[str] = "guided-backprop"
    shows: ClassVar[str] = (
        "Fine structures that active units respond to, with what inhibits cut off."
    )
    gate: ClassVar[Rule] = staticmethod(guided)
    paper: ClassVar[Paper] = Paper(
        "Jost Tobias Springenberg, Alexey Dosovitskiy, Thomas Brox and Martin Riedmiller",
        "Striving for Simplicity: The All Convolutional Net",
        "ICLR Workshop",
        2015,
        "https://arxiv.org/abs/1412.6806",
    )
