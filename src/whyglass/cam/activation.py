"""Finds the activation that a class activation map is made of, while the network runs.

A CNN's is the last spatial tensor that is not itself the output of pooling or reshaping. In a vision
transformer the candidates are the outputs of normalisation and of residual additions, (B, N, D), and
the last of them whose gradient reaches more than one token is chosen: behind the last attention only
the class token matters there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from whyglass.core.calling_module import calling_module, names_by_id
from whyglass.core.errors import BadInput, Unsupported
from whyglass.core.inputs import Leaves
from whyglass.core.submodule import Begin

RESHAPING = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes movedim squeeze unsqueeze contiguous "
    "clone to type float double half bfloat16 expand expand_as getitem chunk split unbind roll pad "
    "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout identity".split()
)
POOLING = re.compile(r"pool|^mean$|^amax$|boolean_dispatch")
TOKEN_OPERATIONS = frozenset("layer_norm rms_norm add iadd batch_norm group_norm".split())
LINEAR = frozenset("linear addmm matmul mm conv1d conv2d conv3d mean mul add sub sum".split())
MAX_TOKEN_CANDIDATES = 16


@dataclass
class _Candidate:
    tensor: Tensor
    name: str
    tokens: bool
    after: list[str]


class LastActivation:
    """A `Capture` of the last activation, as the module's docstring says; its user sets `name`."""

    within_graph = True

    def __init__(self, model: Callable[..., Any]) -> None:
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            kind = "compiled" if hasattr(model, "_orig_mod") else "TorchScript"
            raise Unsupported(
                f"the operations of a {kind} model cannot be seen: pass the module it was made from"
            )
        self.name = ""
        self._names = names_by_id(model)
        self._recorder = _Recorder({}, 0)

    @contextmanager
    def capture(
        self, points: Leaves | None, rows: int, gradient: bool, begin: Begin | None
    ) -> Generator[_Recorder]:
        """Within, the activations of one forward pass are recorded."""
        self._recorder = _Recorder(self._names, rows)
        with self._recorder:
            yield self._recorder

    @property
    def candidates(self) -> list[str]:
        """The module and operation that made each tensor of `leaves`."""
        return [candidate.name for candidate in self._recorder.chosen]

    @property
    def tokens(self) -> bool:
        """Whether those tensors are tokens (B, N, D), not grids."""
        return self._recorder.chosen[-1].tokens

    @property
    def grid(self) -> tuple[int, ...] | None:
        """Height and width of the last convolution's output, which tokens may stand for."""
        return self._recorder.grid

    @property
    def linear_head(self) -> bool:
        """Whether every operation between the last of those tensors and the output is linear."""
        after = self._recorder.chosen[-1].after
        return all(op in LINEAR or op in RESHAPING or re.search("avg_pool", op) for op in after)


class _Recorder(TorchFunctionMode):
    """Records the spatial and token tensors of one forward pass."""

    def __init__(self, names: dict[int, str], rows: int) -> None:
        super().__init__()
        self._names, self._rows = names, rows
        self._candidates: list[_Candidate] = []
        self.chosen: list[_Candidate] = []
        self.grid: tuple[int, ...] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        op = str(getattr(func, "__name__", func)).strip("_")
        if not isinstance(result, Tensor) or not result.requires_grad:
            return result
        if self._candidates:
            made_of = [a for a in args if isinstance(a, Tensor) and a.grad_fn is not None]
            product = len(made_of) > 1 and op not in {"add", "sub"}
            self._candidates[-1].after.append(f"product by {op}" if product else op)
        if result.dim() < 3 or len(result) != self._rows:
            # Windows or patches in place of the batch: no map of an image.
            return result
        tokens = result.dim() == 3 and op in TOKEN_OPERATIONS and result.shape[1] > 1
        spatial = result.dim() in {4, 5} and result[0, 0].numel() > 1
        if spatial and op.startswith("conv"):
            self.grid = tuple(result.shape[2:])
        if op not in RESHAPING and (tokens or (spatial and not POOLING.search(op))):
            self._candidates.append(_Candidate(result, self._caller(op), tokens, []))
        return result

    def leaves(self, score: Tensor | None) -> Leaves:
        """The spatial tensor to differentiate by, or the last of those made of tokens."""
        nodes = _nodes_behind(score)
        used = [c for c in self._candidates if c.tensor.grad_fn in nodes]
        if not used:
            raise BadInput(
                "no spatial activation was found in the forward pass: a class activation map needs "
                "a network on images (B, C, H, W); name its layer with at="
            )
        if used[-1].tokens:
            self.chosen = [c for c in used if c.tokens][-MAX_TOKEN_CANDIDATES:]
        else:
            self.chosen = used[-1:]
        return tuple(candidate.tensor for candidate in self.chosen)

    def _caller(self, op: str) -> str:
        module = calling_module(self._names)
        return f"{module} ({op})" if module else op


def _nodes_behind(score: Tensor | None) -> set[Any]:
    """Every node of the graph that the score was computed by."""
    seen: set[Any] = set()
    ahead = [None if score is None else score.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return seen


def last_with_several_tokens(gradients: Leaves) -> int:
    """The index of the last candidate whose gradient is not zero at more than one token."""
    for index in reversed(range(len(gradients))):
        if int((gradients[index].flatten(2) != 0).any(2).any(0).sum()) > 1:
            return index
    return len(gradients) - 1
