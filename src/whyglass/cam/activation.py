"""Find the activation that a class activation map is made of, while the network runs.

A CNN's is the last spatial tensor that is not itself the output of pooling or reshaping. In a vision
transformer the candidates are the outputs of normalisation and of residual additions, (B, N, D), and
the last of them whose gradient reaches more than one token is chosen: behind the last attention only
the class token matters there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whyglass.errors import BadInput, Unsupported
from whyglass.inputs import Leaves

RESHAPING = frozenset(
    "view reshape flatten unflatten permute transpose swapaxes movedim squeeze unsqueeze contiguous "
    "clone to type float double half bfloat16 expand expand_as getitem chunk split unbind roll pad "
    "dropout dropout1d dropout2d dropout3d feature_dropout alpha_dropout identity detach "
    "get size dim numel len is_floating_point".split()
)
POOLING = re.compile(r"pool|^mean$|^amax$|boolean_dispatch")
TOKENS_BY = frozenset("layer_norm rms_norm add iadd batch_norm group_norm".split())
LINEAR = frozenset("linear addmm matmul mm conv1d conv2d conv3d mean mul add sum".split())
KEPT_TOKENS = 16


@dataclass
class _Candidate:
    tensor: Tensor
    name: str


class LastActivation:
    """A probe: see the module's docstring. After a pass `name` says what was found."""

    within_graph = True

    def __init__(self, model: Callable[..., Any]) -> None:
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            kind = "compiled" if hasattr(model, "_orig_mod") else "TorchScript"
            raise Unsupported(
                f"the operations of a {kind} model cannot be seen: pass the module it was made from"
            )
        modules = model.named_modules() if isinstance(model, nn.Module) else ()
        self._names = {id(module): name for name, module in modules}
        self.name = ""
        self.grid: tuple[int, ...] | None = None
        self.tokens = False
        self.linear_head = False
        self.candidates: list[str] = []

    @contextmanager
    def leaf(self, point: Tensor | None, gradient: bool) -> Iterator[_Watch]:
        """Watch one forward pass."""
        watch = _Watch(self._names)
        with watch:
            yield watch
        found, self.tokens = watch.found()
        self.candidates = [candidate.name for candidate in found]
        self.name, self.grid = self.candidates[-1], watch.grid
        self.linear_head = all(
            op in LINEAR or op in RESHAPING or re.search("avg_pool", op) for op in watch.after
        )


class _Watch(TorchFunctionMode):
    """Remembers the spatial and token tensors of one pass."""

    def __init__(self, names: dict[int, str]) -> None:
        super().__init__()
        self._names = names
        self._spatial: _Candidate | None = None
        self._tokens: list[_Candidate] = []
        self.grid: tuple[int, ...] | None = None
        self.after: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        op = str(getattr(func, "__name__", func)).strip("_")
        self.after.append(op)
        made = result
        if not isinstance(made, Tensor) or op in RESHAPING or not made.requires_grad:
            return result
        if made.dim() == 3 and op in TOKENS_BY and made.shape[1] > 1:
            self._tokens = [*self._tokens[1 - KEPT_TOKENS :], _Candidate(made, self._where(op))]
            self._spatial, self.after = None, []
        elif made.dim() in (4, 5) and made[0, 0].numel() > 1:
            if not POOLING.search(op):
                self._spatial, self.after = _Candidate(made, self._where(op)), []
            if op.startswith("conv"):
                self.grid = tuple(made.shape[2:])
        return result

    def found(self) -> tuple[list[_Candidate], bool]:
        """The spatial candidate, or else the token ones; whether they are tokens."""
        if self._spatial is not None:
            return [self._spatial], False
        if self._tokens:
            return self._tokens, True
        raise BadInput(
            "no spatial activation was found in the forward pass: a class activation map needs a "
            "network on images (B, C, H, W); name its layer with at="
        )

    def leaves(self) -> Leaves:
        """The tensors to differentiate by."""
        return tuple(candidate.tensor for candidate in self.found()[0])

    def _where(self, op: str) -> str:
        """The module that called: the first frame whose self is one."""
        frame = sys._getframe(2)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in self._names:
                return f"{self._names[id(owner)] or type(owner).__name__} ({op})"
            frame = frame.f_back
        return op


def reached(gradients: Leaves) -> int:
    """The last candidate whose gradient reaches more than one token (or position)."""
    for index in reversed(range(len(gradients))):
        if int((gradients[index].flatten(2) != 0).any(2).any(0).sum()) > 1:
            return index
    return len(gradients) - 1


def to_grid(tensor: Tensor, grid: tuple[int, ...] | None, image: torch.Size) -> Tensor:
    """Tokens (B, P + h * w, D) as (B, D, h, w), the P special tokens first; others unchanged."""
    if tensor.dim() != 3:
        return tensor
    count = tensor.shape[1]
    shape = grid if grid and 0 <= count - _product(grid) <= 8 else _guess(count, image)
    if shape is None:
        raise BadInput(
            f"{count} tokens do not form a grid over an image of {tuple(image)}: "
            "choose a layer with one token a patch with at="
        )
    patches = tensor[:, count - _product(shape) :]
    return patches.transpose(1, 2).reshape(len(tensor), tensor.shape[2], *shape)


def _guess(count: int, image: torch.Size) -> tuple[int, ...] | None:
    """The grid of the image's proportions with the fewest special tokens left over."""
    for special in range(9):
        for height in range(1, count):
            width, rest = divmod(count - special, height)
            if not rest and height * image[1] == width * image[0] and width > 1:
                return height, width
    return None


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
