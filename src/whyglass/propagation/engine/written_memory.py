"""What in-place calls did to memory, as values: no memory is written.

A call that writes computes its result elsewhere, and from then on the tensor it wrote to stands for
that result. Views of one memory share it: writing through one of them makes a new value of the whole,
and every other view is read anew from that.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from whyglass.core.errors import Unsupported

# Runs a function where its call is seen, as a call of the model would be.
Run = Callable[..., Tensor]


class WrittenMemory:
    """The current value of every tensor that was written to, directly or through a view."""

    def __init__(self, run: Run) -> None:
        self._run = run
        # By the id of the tensor written to: itself, which keeps the id from being used again, and its
        # value. A value is new, so that no chain of them comes back to its start.
        self._values: dict[int, tuple[Tensor, Tensor]] = {}
        # The output of a rule may be a view of a tensor that the rule alone knows.
        self._outputs: dict[int, weakref.ref[Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def forget(self) -> None:
        """Let all values go."""
        self._values.clear()
        self._outputs.clear()

    def made_by_rule(self, output: Any) -> None:
        """Remember a rule's output as the whole of its memory."""
        if isinstance(output, Tensor) and output._base is not None:  # pyright: ignore[reportPrivateUsage]  no other way
            self._outputs[id(output._base)] = weakref.ref(output)  # pyright: ignore[reportPrivateUsage]  no other way

    def current(self, value: Any) -> Any:
        """What a leaf of a call stands for."""
        if not isinstance(value, Tensor):
            return value
        for _ in range(len(self._values)):
            if id(value) not in self._values:
                break
            value = self._values[id(value)][1]
        base = value._base  # pyright: ignore[reportPrivateUsage]  no other way
        if base is None or id(base) not in self._values:
            return value
        whole = self.current(base)
        return self._run(torch.as_strided, whole, *_layout(value, base, whole))

    def write(self, target: Tensor, value: Tensor, sources: list[Any], tracked: Any) -> Tensor:
        """The target after a call that wrote this value into it.

        Args:
            target: a current value.
            value: of the same shape.
            sources: leaves of the call, which keep their own memory.
            tracked: ids of the tensors that descend from the input.
        """
        if value is target:
            return target
        base = target._base  # pyright: ignore[reportPrivateUsage]  no other way
        whole = None if base is None else self._whole(target, base, tracked)
        if whole is None:
            base, whole = None, target
        layout = _layout(target, target if base is None else base, whole)
        if value.size() != target.size():
            # `squeeze_` and its kin change what a tensor says of its memory.
            if whole is not target:
                raise Unsupported(
                    "an in-place call changes the shape of a view, which has no rule: give the result "
                    "a name of its own, as in `part = part.squeeze()`"
                )
            value = self._run(torch.clone, value)
        elif whole is not target:
            value = self._run(with_part, whole, self._typed(value, whole), *layout)
        elif not _stands_alone(value, target, sources):
            value = self._run(laid_out, value, target)
        self._values[id(whole)] = (whole, value)
        if base is not None and base is not whole and id(base) not in self._values:
            # Views of a rule's output are views of what the rule alone knows.
            self._values[id(base)] = (base, value)
        if whole is target:
            return value
        return self._run(torch.as_strided, value, *_layout(target, whole, value))

    def _typed(self, value: Tensor, like: Tensor) -> Tensor:
        return value if value.dtype == like.dtype else self._run(Tensor.to, value, like.dtype)

    def _whole(self, target: Tensor, base: Tensor, tracked: Any) -> Tensor | None:
        """The current value of the memory that the target is a view of, None if it alone is left."""
        if id(base) in tracked or id(target) not in tracked:
            return self.current(base)
        output = self._outputs.get(id(base), lambda: None)()
        if output is not None:
            return self.current(output)
        # Nobody has the whole: the view is all that changes, unless another one reaches into it.
        others = (reference() for reference, _ in tracked.values())
        if any(other is not None and _overlap(target, other) for other in others):
            raise Unsupported(
                "an in-place call writes into a view of memory whose whole is gone, and another view "
                "of it may change: give the result a name of its own, as in `part = part * 2`"
            )
        return None


def laid_out(value: Tensor, like: Tensor) -> Tensor:
    """A copy in memory of its own, laid out as another tensor."""
    if has_torch_function((value,)):
        return handle_torch_function(laid_out, (value,), value, like.detach())
    return torch.empty_strided(
        like.size(), like.stride(), dtype=like.dtype, device=like.device
    ).copy_(value)


def with_part(
    whole: Tensor, part: Tensor, size: torch.Size, stride: tuple[int, ...], offset: int
) -> Tensor:
    """A copy of a tensor in whose memory this part has another value.

    The gradient of `torch.as_strided_scatter` passes what was written over, too.
    """
    if has_torch_function((whole, part)):
        return handle_torch_function(with_part, (whole, part), whole, part, size, stride, offset)
    copy = laid_out(whole, whole)
    copy.as_strided(size, stride, offset - whole.storage_offset()).copy_(part)
    return copy


def _layout(view: Tensor, base: Tensor, whole: Tensor) -> tuple[torch.Size, tuple[int, ...], int]:
    """Where a view of `base` lies in `whole`, which has the same layout."""
    offset = whole.storage_offset() + view.storage_offset() - base.storage_offset()
    return view.size(), view.stride(), int(offset)


def _stands_alone(value: Tensor, target: Tensor, sources: list[Any]) -> bool:
    """Whether a value has the target's layout, and memory that nothing else has."""
    return (
        value.dtype == target.dtype
        and value.stride() == target.stride()
        and not any(isinstance(leaf, Tensor) and _share_memory(value, leaf) for leaf in sources)
    )


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have an entry in common."""
    if other is one or not _share_memory(one, other):
        return False
    if one.dtype != other.dtype:
        return True
    positions = torch.zeros(one.untyped_storage().nbytes() // one.element_size(), dtype=torch.bool)
    positions.as_strided(one.size(), one.stride(), one.storage_offset()).fill_(True)
    return bool(positions.as_strided(other.size(), other.stride(), other.storage_offset()).any())


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
