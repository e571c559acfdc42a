"""Model inputs as the points of an attention method: numbers, and token ids by their embedding."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from whyglass.core.errors import BadInput
from whyglass.core.inputs import Leaves, Structure
from whyglass.core.submodule import Begin
from whyglass.core.token_descriptions import BESIDE_TOKENS, describing_tokens
from whyglass.propagation.engine.operations import STRUCTURAL, name_of


class TokenInputs:
    """A capture of the inputs. `sources` are the numbers of the inputs that the leaves belong to.

    An embedding of token ids is a leaf (B, T, D) in the order of the ids, wherever the network puts
    its batch axis.
    """

    name = ""
    within_graph = False

    def __init__(self, inputs: Leaves, structure: Structure) -> None:
        names = structure.names or ()
        describing = describing_tokens(inputs, names)
        describing |= {index for index, name in enumerate(names) if name in BESIDE_TOKENS}
        self.held = [i in describing or leaf.dtype == torch.bool for i, leaf in enumerate(inputs)]
        self.sources: list[int] = []

    @contextmanager
    def capture(
        self, points: Leaves | None, rows: int, gradient: bool, begin: Begin | None
    ) -> Generator[_Recorder]:
        """Within, inputs and embeddings of token ids are cut from the graph as leaves."""
        recorder = _Recorder(self, gradient, begin)
        with recorder:
            yield recorder
        self.sources = recorder.sources
        if not self.sources:
            raise BadInput(
                "no embedding of token ids was met in the forward pass: name the layer that makes "
                "vectors of them with at="
            )


class _Recorder(TorchFunctionMode):
    """Follows the inputs through copies and moves up to their embedding, in one pass."""

    def __init__(self, inputs: TokenInputs, gradient: bool, begin: Begin | None) -> None:
        super().__init__()
        self._inputs, self._gradient, self._begin = inputs, gradient, begin
        self._copied = 0
        # Each tensor of ids has an entry: the tensor, its input, and the position there of each id.
        self._ids: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._shapes: dict[int, torch.Size] = {}
        self._leaves: list[Tensor] = []
        self.sources: list[int] = []

    def leaves(self, score: Tensor | None) -> Leaves:
        """Inputs of numbers and embeddings, in the order in which they were met."""
        return tuple(self._leaves)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        op = name_of(func)
        if op == "clone" and self._copied < len(self._inputs.held):
            # The scorer copies the inputs, one after the other, before it calls the model.
            self._copied += 1
            return self._input(self._copied - 1, func(*args, **named))
        if op == "embedding":
            ids = args[0] if args else named["input"]
            return self._embedded(func(*args, **named), ids)
        if op == "getitem" and isinstance(args[1], Tensor) and id(args[1]) in self._ids:
            return self._embedded(func(*args, **named), args[1])
        result = func(*args, **named)
        ids = self._ids.get(id(args[0])) if args and op in STRUCTURAL | {"long", "int"} else None
        if ids is not None and isinstance(result, Tensor) and result is not args[0]:
            positions = (
                ids[2] if op in {"to", "type", "long", "int"} else func(ids[2], *args[1:], **named)
            )
            self._ids[id(result)] = (result, ids[1], positions)
        return result

    def _input(self, index: int, leaf: Tensor) -> Tensor:
        if self._inputs.held[index]:
            return leaf
        if leaf.is_floating_point():
            return self._leaf(index, leaf)
        self._shapes[index] = leaf.shape
        positions = torch.arange(leaf.numel(), device=leaf.device).reshape(leaf.shape)
        self._ids[id(leaf)] = (leaf, index, positions)
        return leaf

    def _embedded(self, vectors: Tensor, ids: Tensor) -> Tensor:
        if id(ids) not in self._ids:
            return vectors
        _, index, positions = self._ids[id(ids)]
        shape = self._shapes[index]
        flat, width = positions.flatten(), vectors.shape[-1]
        ordered = vectors.new_zeros(shape.numel(), width)
        ordered[flat] = vectors.detach().reshape(-1, width)
        leaf = self._leaf(index, ordered.reshape(*shape, width))
        return leaf.reshape(-1, width)[flat].reshape(vectors.shape)

    def _leaf(self, index: int, value: Tensor) -> Tensor:
        leaf = value.detach()
        if self._gradient:
            leaf.requires_grad_()
        self._leaves.append(leaf)
        self.sources.append(index)
        if self._begin is not None:
            self._begin((leaf,), len(self._leaves) - 1)
        return leaf.clone()
