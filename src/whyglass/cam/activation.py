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
ADDITIVE = frozenset("add sub cat concat concatenate stack hstack".split())
LINEAR = ADDITIVE | frozenset("linear addmm matmul mm conv1d conv2d conv3d mean mul sum".split())
CHANNELS_LAST = frozenset("linear layer_norm rms_norm embedding".split())
SWAPPING = frozenset("transpose permute swapaxes swapdims movedim moveaxis T mT".split())
MAX_TOKEN_CANDIDATES = 16


@dataclass(frozen=True)
class Layout:
    """Whether channels are last, None if unknown; whether channels and space changed places."""

    last: bool | None = None
    swapped: bool = False


@dataclass(eq=False)
class _Candidate:
    tensor: Tensor
    name: str
    tokens: bool
    layout: Layout
    after: list[str]


class LastActivation:
    """A `Capture` of the last activation, as the module's docstring says; its user sets `name`."""

    within_graph = True

    def __init__(
        self,
        model: Callable[..., Any],
        inputs: Leaves,
        choose: Callable[[int, bool], set[int]],
    ) -> None:
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            kind = "compiled" if hasattr(model, "_orig_mod") else "TorchScript"
            raise Unsupported(
                f"the operations of a {kind} model cannot be seen: pass the module it was made from"
            )
        self.name = ""
        self._names = names_by_id(model)
        self._inputs, self._choose = inputs, choose
        self._recorder = _Recorder({}, 0, inputs, choose)

    @contextmanager
    def capture(
        self, points: Leaves | None, rows: int, gradient: bool, begin: Begin | None
    ) -> Generator[_Recorder]:
        """Within, the activations of one forward pass are recorded."""
        self._recorder = _Recorder(self._names, rows, self._inputs, self._choose)
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
    def mapped(self) -> set[int]:
        """The numbers of the inputs that they may be maps of."""
        return self._recorder.mapped

    def layout(self, index: int) -> Layout:
        """The layout of one of them."""
        return self._recorder.chosen[index].layout

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

    def __init__(
        self,
        names: dict[int, str],
        rows: int,
        inputs: Leaves,
        choose: Callable[[int, bool], set[int]],
    ) -> None:
        super().__init__()
        self._inputs, self._choose = inputs, choose
        self._layouts: dict[int, Layout] = {}
        # The numbers of the candidates that a tensor is computed from.
        self._before: dict[int, frozenset[int]] = {}
        # A tensor that is kept cannot be mistaken for another by its id.
        self._results: list[Tensor] = []
        self.mapped: set[int] = set()
        self._names, self._rows = names, rows
        self._candidates: list[_Candidate] = []
        self.chosen: list[_Candidate] = []
        self.grid: tuple[int, ...] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        op = _name_of(func)
        if not isinstance(result, Tensor) or not result.requires_grad:
            return result
        operands = _tensors(args)
        before = frozenset[int]().union(*(self._before.get(id(a), ()) for a in operands))
        product = sum(a.grad_fn is not None for a in operands) > 1 and op not in ADDITIVE
        for number in before:
            self._candidates[number].after.append(f"product by {op}" if product else op)
        self._before[id(result)] = before
        self._results.append(result)
        layout = self._layout(op, result, operands)
        if result.dim() < 3 or len(result) != self._rows:
            # Windows or patches in place of the batch: no map of an image.
            return result
        flat = result.dim() == 3
        tokens = (
            flat and op in TOKEN_OPERATIONS and result.shape[1] > 1 and layout.last is not False
        )
        spatial = (not flat or layout.last is False) and result[0, 0].numel() > 1
        if spatial and op.startswith("conv"):
            self.grid = tuple(result.shape[2:])
        if op not in RESHAPING and (tokens or (spatial and not POOLING.search(op))):
            self._before[id(result)] = before | {len(self._candidates)}
            self._candidates.append(_Candidate(result, self._caller(op), tokens, layout, []))
        return result

    def leaves(self, score: Tensor | None) -> Leaves:
        """The spatial tensor to differentiate by, or the last of those made of tokens."""
        nodes = _nodes_behind(score)
        used = [c for c in self._candidates if c.tensor.grad_fn in nodes]
        last = next((c for c in reversed(used) if self._mapped_by(c)), None)
        if last is None:
            shapes = [tuple(leaf.shape) for leaf in self._inputs]
            raise BadInput(
                "no spatial activation was found in the forward pass: a class activation map needs a "
                "network on images (B, C, H, W), volumes (B, C, D, H, W) or signals (B, C, L), and "
                f"inputs are {shapes}; name its layer with at="
            )
        self.mapped = self._mapped_by(last)
        self.chosen = [last]
        if last.tokens:
            tokens = [c for c in used[: used.index(last) + 1] if c.tokens]
            self.chosen = tokens[-MAX_TOKEN_CANDIDATES:]
        return tuple(candidate.tensor for candidate in self.chosen)

    def _mapped_by(self, candidate: _Candidate) -> set[int]:
        """The inputs that an activation is computed from and may be a map of."""
        possible = self._choose(candidate.tensor.dim(), candidate.tokens)
        if not possible:
            return possible
        nodes = _nodes_behind(candidate.tensor)
        variables = [node.variable for node in nodes if hasattr(node, "variable")]
        return {i for i in possible if any(_rows_of(self._inputs[i], v) for v in variables)}

    def _layout(self, op: str, result: Tensor, operands: list[Tensor]) -> Layout:
        """Convolutions put channels first, linear layers last; the rest keep them where they are."""
        layouts = [self._layouts[id(a)] for a in operands if id(a) in self._layouts]
        layout = layouts[0] if layouts else Layout()
        if op.startswith("conv"):
            layout = Layout(False, layout.swapped)
        elif op in CHANNELS_LAST:
            layout = Layout(True, layout.swapped)
        elif op in SWAPPING:
            layout = Layout(None if layout.last is None else not layout.last, not layout.swapped)
        self._layouts[id(result)] = layout
        return layout

    def _caller(self, op: str) -> str:
        module = calling_module(self._names)
        return f"{module} ({op})" if module else op


def _nodes_behind(tensor: Tensor | None) -> set[Any]:
    """Every node of the graph that a tensor was computed by."""
    seen: set[Any] = set()
    ahead = [None if tensor is None else tensor.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return seen


def _name_of(func: Any) -> str:
    """The operation's name, of a property such as `mT` its attribute."""
    name = str(getattr(func, "__name__", func))
    return getattr(func.__self__, "__name__", name) if name == "__get__" else name.strip("_")


def _tensors(args: Any) -> list[Tensor]:
    """Tensors among positional arguments, those in a list of them as well."""
    nested = (a if isinstance(a, tuple | list) else (a,) for a in args)
    return [a for part in nested for a in part if isinstance(a, Tensor)]


def _rows_of(leaf: Tensor, variable: Tensor) -> bool:
    """Whether a leaf of the graph is rows of this input: the same memory in the same steps."""
    step = variable.storage_offset() - leaf.storage_offset()
    return (
        variable.untyped_storage().data_ptr() == leaf.untyped_storage().data_ptr()
        and variable.shape[1:] == leaf.shape[1:]
        and variable.stride() == leaf.stride()
        and step % max(leaf.stride(0), 1) == 0
    )


def last_with_several_tokens(gradients: Leaves) -> int:
    """The index of the last candidate whose gradient is not zero at more than one token."""
    for index in reversed(range(len(gradients))):
        if int((gradients[index].flatten(2) != 0).any(2).any(0).sum()) > 1:
            return index
    return len(gradients) - 1
