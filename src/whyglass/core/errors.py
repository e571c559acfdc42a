"""The errors that whyglass raises on purpose, all under one root."""

from __future__ import annotations


class WhyglassError(Exception):
    """The root of every error that whyglass raises on purpose."""


class BadInput(WhyglassError, ValueError):
    """An argument, a tensor or a file is not what the call needs. The message names the way out."""


class Unsupported(WhyglassError, NotImplementedError):
    """The method cannot explain this kind of model."""


class MissingExtra(WhyglassError, ImportError):
    """An optional package is absent. `extra` is the extra of whyglass that brings it, if one does."""

    def __init__(self, package: str, extra: str | None = None) -> None:
        command = package if extra is None else f"'whyglass[{extra}]'"
        super().__init__(f"{package} is not installed; run: pip install {command}")
