"""Train the small vision transformer of `tests/zoo/vit.py` on MNIST and write its weights.

    python reproductions/vit_mnist/train.py ../shared/data/mnist

The folder holds the four gzipped idx files. The weights are stored in half precision.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.zoo.vit import WEIGHTS, VisionTransformer  # noqa: E402  the path is set just above

EPOCHS, BATCH, RATE, SEED = 8, 128, 2e-3, 0


def read(folder: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, 28, 28) in [0, 1] and labels (N,)."""
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    return torch.from_numpy(pixels / np.float32(255)), torch.tensor(list(labels[8:]))


def accuracy(model: VisionTransformer, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in images.split(1000)])
    return (predicted == labels).double().mean().item()


def main(folder: Path) -> None:
    torch.manual_seed(SEED)
    images, labels = read(folder, "train")
    test = read(folder, "t10k")
    model = VisionTransformer()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.05)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        model.train()
        order = torch.randperm(len(images))
        for rows in order[: steps // EPOCHS * BATCH].view(-1, BATCH):
            shift = torch.randint(-2, 3, (2,)).tolist()
            batch = images[rows].roll(shift, (2, 3))
            loss = F.cross_entropy(model(batch), labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: test accuracy {accuracy(model.eval(), *test):.4f}", flush=True)
    model.half().float()
    print(f"half-precision weights: test accuracy {accuracy(model, *test):.4f}")
    save_file({name: value.half() for name, value in model.state_dict().items()}, WEIGHTS)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
