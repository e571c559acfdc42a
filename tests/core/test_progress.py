"""The progress bar: shown where somebody watches a long call, and gone when the call ends."""

from __future__ import annotations

import io
import sys
import threading
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from whyglass import (
    LIME,
    RISE,
    Background,
    BadInput,
    ExactShapley,
    IntegratedGradients,
    Occlusion,
    PermutationShapley,
    Saliency,
    explain,
    interactions,
)
from whyglass.core import progress


class Stderr(io.StringIO):
    """What would be on a terminal."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def model(x: Tensor) -> Tensor:
    return (x**2).flatten(1).sum(1)


X, IMAGE = torch.ones(2, 6), torch.ones(1, 1, 8, 8)
CALLS: list[tuple[Any, Tensor, dict[str, Any]]] = [
    (Saliency(), X, {}),
    (IntegratedGradients(), X, {}),
    (ExactShapley(), X, {"baseline": Background(torch.zeros(3, 6))}),
    (PermutationShapley(budget=200), X, {}),
    (LIME(budget=100), X, {}),
    (Occlusion(), X, {}),
    (RISE(samples=50, cells=2), IMAGE, {}),
]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Any:
    def watched(terminal: bool, *, long: bool) -> Stderr:
        """Stderr as a terminal or a file, in a world where every call, or none, takes long."""
        stderr = Stderr(terminal)
        monkeypatch.setattr(sys, "stderr", stderr)
        monkeypatch.setattr(progress, "FIRST_LOOK", 0.0)
        monkeypatch.setattr(progress, "LONG", 0.0 if long else float("inf"))
        return stderr

    return watched


@pytest.mark.parametrize(("method", "x", "more"), CALLS, ids=[c[0].name for c in CALLS])
def test_a_long_call_on_a_terminal_shows_a_bar_and_clears_it(
    method: Any, x: Tensor, more: dict[str, Any], watch: Any
) -> None:
    stderr = watch(True, long=True)
    threads = threading.active_count()
    why = method(model, x, batch_size=2, **more)
    text = stderr.getvalue()
    assert f"{method.name}:" in text
    assert text.endswith("\r")
    assert text.rsplit("\r", 2)[1].strip() == ""
    assert threading.active_count() == threads
    torch.testing.assert_close(
        why.values, method(model, x, batch_size=2, progress=False, **more).values
    )


@pytest.mark.parametrize(
    ("terminal", "long", "shown"), [(True, False, None), (False, True, None), (True, True, False)]
)
def test_nothing_is_written_for_a_short_call_to_a_file_or_unasked(
    terminal: bool, long: bool, shown: bool | None, watch: Any
) -> None:
    stderr = watch(terminal, long=long)
    Occlusion()(model, X, batch_size=2, progress=shown)
    assert stderr.getvalue() == ""


def test_asked_for_it_is_written_anywhere(watch: Any) -> None:
    stderr = watch(False, long=False)
    explain(model, X, method="occlusion", batch_size=2, progress=True)
    assert "occlusion" in stderr.getvalue()


def test_interactions_show_a_bar(watch: Any) -> None:
    stderr = watch(True, long=True)
    interactions(model, X, batch_size=2)
    assert "interactions:" in stderr.getvalue()


def test_a_notebook_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    kernel = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setattr(sys, "stderr", Stderr(False))
    assert not progress._watched()  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    assert progress._watched()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("error", [KeyboardInterrupt, BadInput])
def test_an_interrupt_clears_the_bar_and_leaves_nothing(
    error: type[BaseException], watch: Any
) -> None:
    stderr = watch(True, long=True)
    threads, calls = threading.active_count(), 0

    def interrupted(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise error
        return model(x)

    # The traceback keeps what the call held, so that nothing goes by itself.
    with pytest.raises(error) as caught:
        PermutationShapley(budget=200)(interrupted, X, batch_size=2)
    assert caught.tb is not None
    assert "permutation-shapley" in stderr.getvalue()
    assert stderr.getvalue().rsplit("\r", 2)[1].strip() == ""
    assert threading.active_count() == threads
    from tqdm import tqdm

    assert len(getattr(tqdm, "_instances", ())) == 0


def test_a_call_is_long_by_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of a thousand rows in half a second: fifty seconds in all; of twelve rows, not a second."""
    clock = iter([0.0, 0.5, 0.0, 0.5, 0.0, 0.1])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    verdicts: list[bool] = []
    for total in (1000, 12, 1000):
        made = progress.Progress("x", True)
        made._shown = False  # pyright: ignore[reportPrivateUsage]
        made.expect(total)
        made.advance(10)
        verdicts.append(made._long())  # pyright: ignore[reportPrivateUsage]
    assert verdicts == [True, False, False]
