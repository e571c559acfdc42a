"""Erase what made a digit an 8 and not a 3: the experiment of Shrikumar et al. (2017), section 4.1.

    python reproductions/deeplift_mnist/run.py ../shared/data [--images N]

The folder holds `mnist` (four gzipped idx files) and `deeplift_mnist` (the authors' network). For each
test digit of class 8 a pixel's importance is its attribution to the logit of 8 minus that to the logit
of 3, from the baseline 0. Of the pixels with positive importance the largest, 157 at most (20 %), are
set to 0, and the fall of logit 8 - logit 3 is measured. The rules are those of the authors' notebook
(kundajelab/deeplift, examples/mnist): a pixel is erased if its importance is above both 0 and the
158th largest; gradient and guided backprop count only where there is ink; theirs is the gradient's
absolute value, class by class.
"""

import argparse
import inspect
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.zoo.digits import digits, mnist  # noqa: E402  the path is set just above
from whyglass import (  # noqa: E402
    Contrast,
    DeepLIFT,
    GradientXInput,
    GuidedBackprop,
    IntegratedGradients,
    Saliency,
    Several,
    __version__,
)

WAS, BECOMES, ERASED = 8, 3, 157
# Medians read from the plot of the authors' notebook.
PUBLISHED = {
    "gradient, absolute": 4.8,
    "guided backprop": 6.5,
    "gradient x input": 7.9,
    "integrated gradients, 5": 7.9,
    "integrated gradients, 10": 8.0,
    "DeepLIFT RevealCancel": 10.0,
}
Importance = Callable[[nn.Module, Tensor], Tensor]


def contrast(method: object) -> Importance:
    """Attribution to the difference of the logits, which these methods are linear in."""
    return lambda model, x: method(model, x, target=Contrast(WAS, BECOMES)).values  # type: ignore[operator]


def by_class(method: object) -> Importance:
    """Attribution to either logit by itself, at the ink."""

    def importance(model: nn.Module, x: Tensor) -> Tensor:
        values = method(model, x, target=Several(WAS, BECOMES)).values  # type: ignore[operator]
        return (values[..., 0] - values[..., 1]) * (x > 0)

    return importance


def signed_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """The gradient of the difference itself, at the ink."""
    x = x.clone().requires_grad_()
    logits = model(x)
    (found,) = torch.autograd.grad((logits[:, WAS] - logits[:, BECOMES]).sum(), x)
    return found * (x > 0)


def methods() -> dict[str, Importance]:
    """Every method by the name it has in the table."""
    found: dict[str, Importance] = {
        "gradient, absolute": by_class(Saliency()),
        "gradient, signed": signed_gradient,
        "guided backprop": by_class(GuidedBackprop()),
        "gradient x input": contrast(GradientXInput()),
        "integrated gradients, 5": contrast(IntegratedGradients(rule="midpoint", steps=5)),
        "integrated gradients, 10": contrast(IntegratedGradients(rule="midpoint", steps=10)),
        "integrated gradients, adaptive": contrast(IntegratedGradients()),
        "DeepLIFT Rescale": contrast(DeepLIFT()),
    }
    if "rule" in inspect.signature(DeepLIFT).parameters:
        found["DeepLIFT RevealCancel"] = contrast(DeepLIFT(rule="reveal-cancel"))
    return found


def erase(x: Tensor, importance: Tensor) -> Tensor:
    """The image without its most important pixels."""
    flat = importance.flatten(1)
    limit = flat.sort(1, descending=True).values[:, ERASED : ERASED + 1].clamp_min(0)
    return torch.where(flat > limit, 0.0, x.flatten(1)).view_as(x)


@torch.no_grad()
def log_odds(model: nn.Module, x: Tensor) -> Tensor:
    logits = model(x)
    return logits[:, WAS] - logits[:, BECOMES]


def main(folder: Path, count: int | None) -> None:
    model = digits(folder / "deeplift_mnist" / "keras2_mnist_cnn_allconv.h5")
    images, labels = mnist(folder / "mnist")
    x = images[labels == WAS][:count]
    before = log_odds(model, x)
    print(
        f"{datetime.now(tz=timezone.utc):%Y-%m-%d}, whyglass {__version__}, torch {torch.__version__}; "
        f"{len(x)} digits {WAS}, up to {ERASED} pixels erased\n"
    )
    print("| method | median | 10 % | 90 % | now a 3 | published median | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name, importance in methods().items():
        start = time.perf_counter()
        values = importance(model, x)
        seconds = time.perf_counter() - start
        after = log_odds(model, erase(x, values.detach()))
        low, median, high = np.percentile((before - after).numpy(), (10, 50, 90)) / 1000
        flipped = (after < 0).double().mean().item()
        told = f"{PUBLISHED[name]:.1f}k" if name in PUBLISHED else ""
        print(
            f"| {name} | {median:.2f}k | {low:.2f}k | {high:.2f}k | {flipped:.3f} | {told} "
            f"| {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, help="how many digits; default all")
    given = parser.parse_args()
    main(given.folder, given.images)
