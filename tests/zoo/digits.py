"""The digits network of the DeepLIFT paper (Shrikumar et al. 2017, section 4.1), from Keras."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn


def digits(file: Path) -> nn.Sequential:
    """(B, 1, 28, 28), pixels 0 to 255 -> (B, 10) logits, in eval mode."""
    model = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1600, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    with h5py.File(file) as stored, torch.no_grad():
        for place, name in ((0, "conv2d_1"), (2, "conv2d_2"), (5, "dense_1"), (7, "dense_2")):
            group = stored[f"model_weights/{name}/{name}"]
            kernel, bias = (torch.from_numpy(group[f"{part}:0"][:]) for part in ("kernel", "bias"))
            if kernel.dim() == 4:
                # Height, width, in, out.
                kernel = kernel.permute(3, 2, 0, 1)
            elif name == "dense_1":
                # Keras flattens height, width, channel.
                kernel = kernel.reshape(5, 5, 64, 128).permute(3, 2, 0, 1).flatten(1)
            else:
                kernel = kernel.T
            model[place].weight.copy_(kernel)
            model[place].bias.copy_(bias)
    return model.eval()


def mnist(folder: Path, split: str = "t10k") -> tuple[Tensor, Tensor]:
    """Images (N, 1, 28, 28), pixels 0 to 255, and labels (N,)."""
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.from_numpy(pixels.astype(np.float32)), torch.tensor(list(labels[8:]))
