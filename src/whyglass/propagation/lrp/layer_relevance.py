"""Relevance inside the network: at every operation that redistributes it, and as matrices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Inputs
from whyglass.core.layer import At
from whyglass.core.output import Selector
from whyglass.core.scorer import Scorer
from whyglass.core.target import Several, Target
from whyglass.propagation.lrp.composites import Composite
from whyglass.propagation.lrp.lrp import LRP
from whyglass.propagation.lrp.redistribution import Redistribution
from whyglass.propagation.lrp.relevance import Bias, Relevance
from whyglass.propagation.lrp.relevance_method import RelevanceMethod
from whyglass.propagation.lrp.rules import Rule, Zero

LARGEST_MATRICES = 100_000_000


@dataclass(frozen=True, eq=False)
class LayerRelevance:
    """The relevance that passed one operation.

    Attributes:
        op, layer: the operation, and the submodule whose parameters it uses, or "".
        output: relevance of its output.
        operands: relevance of each operand, shaped as it.
        absorbed: the output's relevance less that of the operands, over the sizes of all scores. It is
            taken by epsilon, by biases that share, by softmax, or lost for want of contributions.
    """

    op: str
    layer: str
    output: Tensor
    operands: tuple[Tensor, ...]
    absorbed: float


def relevance_by_layer(
    model: Callable[..., Any],
    inputs: Inputs,
    *,
    method: RelevanceMethod | None = None,
    target: Target = None,
    at: At = None,
    output: Selector = None,
) -> list[LayerRelevance]:
    r"""Relevance at every operation that redistributes it, from the score to the input.

    .. math:: \text{absorbed} = \Big( \sum_k R_k - \sum_j R_j \Big) / \sum_b |S_b|

    Units: score. Source: Bach et al. (2015).

    Args:
        model, inputs, target, at, output: as in `whyglass.Method.__call__`; one target.
        method: `LRP()` by default, or another method of its family.

    >>> import torch, whyglass
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> parts = whyglass.relevance_by_layer(net, torch.tensor([[1.0, 2.0]]))
    >>> [(part.op, part.layer, tuple(part.output.shape)) for part in parts]
    [('linear', '2', (1, 1)), ('linear', '0', (1, 3))]
    """
    chosen = LRP() if method is None else method
    done = _kept_pass(chosen, model, inputs, target, at, output)
    return [
        LayerRelevance(
            operation.call.op,
            operation.call.layer,
            passage.output,
            passage.operands,
            passage.absorbed / done.initial,
        )
        for operation in reversed(done.operations)
        for passage in operation.passages
    ]


@dataclass(frozen=True, eq=False)
class Contributions:
    """The matrices of partial contributions of a sequential network, from the input up.

    Attributes:
        matrices: C(a^m | a^{m+1}) for m = 0 ... M - 1, (B, S^m, S^{m+1}); a column sums to 1 where all
            relevance is passed on, and is zero where its output has no contributions.
        relevance: c(a^m) for m = 0 ... M, (B, S^m).
        layers: names of the operations, or of the submodules they belong to.
    """

    matrices: tuple[Tensor, ...]
    relevance: tuple[Tensor, ...]
    layers: tuple[str, ...]


def contributions(
    model: Callable[..., Any],
    inputs: Tensor,
    *,
    target: Target = None,
    rule: str | Rule | Composite | None = None,
    bias: Bias = "ignore",
    output: Selector = None,
) -> Contributions:
    r"""The matrices by which LRP passes contributions from layer to layer of a sequential network.

    .. math:: c(a^m) = C(a^m | a^{m+1}) \, c(a^{m+1}), \quad c(a^M) = n_c^M \epsilon_c

    Sums, such as average pooling, are layers of their own. Units: none; `relevance` is in those of the
    score. Source: Hagan et al., "Neural Network Design 2", chapter 9, equations 9.18 to 9.23.

    Args:
        model, inputs, target, output: as in `whyglass.Method.__call__`; one tensor, one target.
        rule, bias: as for `LRP`; LRP-0 by default.

    Raises:
        BadInput: the network is not sequential, or its matrices would not fit memory.

    >>> import torch, whyglass
    >>> weights = torch.tensor([[1.0, 1.0], [2.0, 0.0]])
    >>> net = lambda x: torch.nn.functional.linear(x, weights).sum(1)
    >>> whyglass.contributions(net, torch.tensor([[1.0, 3.0]])).matrices[0]
    tensor([[[0.2500, 1.0000],
             [0.7500, 0.0000]]])
    """
    chosen = LRP(rule=Zero() if rule is None else rule, bias=bias)
    done = _kept_pass(chosen, model, inputs, target, None, output)
    rows = len(inputs)
    relevance: list[Tensor] = []
    matrices: list[Tensor] = []
    for operation in done.operations:
        if len(operation.passages) != 1 or len(operation.operands) != 1:
            raise _not_sequential(operation)
        above, (below,), _ = operation.passages[0]
        if relevance and not _close(relevance[-1], below.reshape(rows, -1)):
            raise _not_sequential(operation)
        matrices.append(_matrix(done, operation, rows))
        relevance += [below.reshape(rows, -1)] * (not relevance) + [above.reshape(rows, -1)]
    for matrix, (below, above) in zip(matrices, pairwise(relevance), strict=True):
        if not _close((matrix @ above.unsqueeze(2)).squeeze(2), below):
            raise _not_sequential(done.operations[0])
    names = tuple(operation.call.layer or operation.call.op for operation in done.operations)
    return Contributions(tuple(matrices), tuple(relevance), names)


def _kept_pass(
    method: RelevanceMethod,
    model: Callable[..., Any],
    inputs: Inputs,
    target: Target,
    at: At,
    output: Selector,
) -> Relevance:
    """One pass over the whole batch that keeps the relevance of every operation."""
    if isinstance(target, Several):
        raise BadInput("target Several(...) has many relevances: ask for one target a time")
    rows = 2**31 - 1
    scorer = Scorer(model, inputs, target=target, output=output, at=at, batch_size=rows)
    _, passes = method.by_relevance(scorer, keep=True)
    return passes[-1]


def _matrix(done: Relevance, operation: Redistribution, rows: int) -> Tensor:
    """The relevance of the operand, in column j for a relevance of one at output j."""
    outputs, width = operation.y[0].numel(), operation.values[0][0].numel()
    if rows * outputs * width > LARGEST_MATRICES:
        raise BadInput(
            f"the matrix of {operation.name} has {rows} x {width} x {outputs} entries: ask for fewer "
            "rows, or for relevance_by_layer, which needs no matrices"
        )
    flows = [replace(flow, strict=False) for flow in done.rule(operation).flows()]
    columns: list[Tensor] = []
    for output in range(outputs):
        one = torch.zeros_like(operation.y).reshape(rows, -1)
        one[:, output] = 1
        (column,) = operation.by_flows(flows, one.reshape(operation.y.shape))
        columns.append(column.reshape(rows, -1))
    return torch.stack(columns, 2)


def _close(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    size = float(torch.maximum(one.abs().max(), other.abs().max()))
    return bool((one - other).abs().max() <= 1e-3 * size)


def _not_sequential(operation: Redistribution) -> BadInput:
    return BadInput(
        f"the network is not sequential at {operation.name}: contributions() needs one layer after the "
        "other; relevance_by_layer shows relevance in any network"
    )
