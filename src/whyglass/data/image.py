"""Photographs: read, resized, cropped and normalised as a network wants them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from whyglass.core.baseline import Baseline, Blur, Inpaint, PerChannel
from whyglass.core.errors import BadInput, MissingExtra

INTERPOLATION = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True)
class Preprocess:
    """Short side to `size`, centre crop of `crop` pixels, then (pixel - mean) / std.

    `mean` and `std` are in units of a pixel in [0, 1], one a channel (3: RGB, 1: grey).
    """

    size: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.size < self.crop or self.crop < 1:
            raise BadInput(
                f"crop {self.crop} does not fit into size {self.size}: it may be from 1 to that"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise BadInput("mean and std need one number for grey or three for RGB")
        if not all(value > 0 for value in self.std):
            raise BadInput(f"std must be positive, not {self.std}")
        if self.interpolation not in INTERPOLATION:
            raise BadInput(
                f"interpolation {self.interpolation!r} is not one of {', '.join(INTERPOLATION)}"
            )

    def __call__(self, image: Image.Image) -> Tensor:
        """(C, crop, crop) in the network's units."""
        image = image.convert("RGB" if len(self.mean) == 3 else "L")
        width, height = image.size
        scale = self.size / min(width, height)
        width, height = max(self.crop, round(width * scale)), max(self.crop, round(height * scale))
        image = image.resize((width, height), INTERPOLATION[self.interpolation])
        left, top = (width - self.crop) // 2, (height - self.crop) // 2
        image = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = torch.from_numpy(np.array(image, np.float32) / 255).reshape(
            self.crop, self.crop, len(self.mean)
        )
        return ((pixels - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)

    def baseline(self, name: str) -> Baseline:
        """A baseline by name: black, white, grey, blur, inpaint, or a pixel value in [0, 1]."""
        levels = {"black": 0.0, "grey": 0.5, "white": 1.0}
        if name == "blur":
            return Blur(self.crop / 20)
        if name == "inpaint":
            return Inpaint()
        try:
            level = levels[name] if name in levels else float(name)
        except ValueError:
            level = -1.0
        if not 0 <= level <= 1:
            raise BadInput(
                f"baseline {name!r} is not black, grey, white, blur, inpaint or a pixel value "
                "in [0, 1]"
            )
        return PerChannel(tuple((level - m) / s for m, s in zip(self.mean, self.std, strict=True)))


@dataclass(frozen=True)
class Superpixels:
    """About `count` patches of even colour, computed by SLIC, as the players of a method of coalitions.

    `compactness` weighs nearness in the image against likeness of colour. Needs scikit-image.
    """

    count: int = 50
    compactness: float = 10.0

    def __call__(self, images: Tensor) -> Tensor:
        """(H, W) patch numbers of one image (1, C, H, W)."""
        if images.dim() != 4 or len(images) != 1:
            raise BadInput(
                f"superpixels are those of one image (1, C, H, W), not of {tuple(images.shape)}: "
                "explain images one at a time, or give a mask of players for all of them"
            )
        try:
            from skimage.segmentation import slic
        except ImportError as error:
            raise MissingExtra("scikit-image") from error
        pixels = images[0].detach().cpu().float()
        low, high = pixels.amin(), pixels.amax()
        pixels = ((pixels - low) / (high - low).clamp_min(1e-12)).permute(1, 2, 0).numpy()
        labels = slic(
            pixels,
            n_segments=self.count,
            compactness=self.compactness,
            start_label=0,
            convert2lab=pixels.shape[2] == 3,
        )
        numbers = torch.from_numpy(labels).long()
        return numbers.unique(return_inverse=True)[1].reshape(numbers.shape)


def read(path: str | Path) -> Image.Image:
    """A photograph from a file, the way up its camera says."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image.convert("RGB"))
    except FileNotFoundError as error:
        raise BadInput(f"there is no file {path}") from error
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise BadInput(f"{path} cannot be read as an image: {error}") from error


def class_names(path: str | Path) -> list[str]:
    """Class names from a file: one a line, the name last where a line has tab-separated columns."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"class names cannot be read from {path}: {error}") from error
    names = [line.split("\t")[-1].strip().replace("_", " ") for line in lines if line.strip()]
    if not names:
        raise BadInput(f"{path} holds no class names")
    return names


def stack(images: Sequence[Tensor]) -> Tensor:
    """(B, C, H, W)."""
    return torch.stack(list(images))
