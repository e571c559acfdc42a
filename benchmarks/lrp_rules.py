"""What LRP's rules do on photographs: how often the checks warn, and what they measure.

    python -m benchmarks.lrp_rules FOLDER_OF_PHOTOS [--squeezenet FILE] [--photos 20] [--rules a,b]

EfficientNet-Lite0 and, with its weights, SqueezeNet 1.0; the predicted class of each photo. For each
rule, with biases that are ignored and with biases that share:

- passes: photos whose checks both pass, or the error;
- gap: |sum of the values - score| / |score| (or a hundredth of the sum of |values|, if that is more),
  median and largest;
- cancellation: sum of |values| / |score|, median and largest;
- likeness: the cosine of the map and that of the class that comes second, median. Near 1 the map does
  not depend on the class.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.models import SIDE, lite0, photos
from benchmarks.timing import machine
from tests.zoo.squeezenet import squeezenet1_0
from whyglass import LRP, BadInput, Epsilon, Gamma, Rule, Several
from whyglass.propagation.lrp.composites import PRESETS
from whyglass.propagation.lrp.relevance import Bias
from whyglass.propagation.lrp.relevance_method import cancellation, conservation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RULES: dict[str, str | Rule] = {
    **{name: name for name in PRESETS},
    "gamma = 1": Gamma(gamma=1.0, epsilon=1e-6),
    "epsilon = 0.1": Epsilon(epsilon=0.1),
}


@dataclass(frozen=True)
class Measured:
    """One photo under one rule."""

    passes: bool
    gap: float
    cancellation: float
    likeness: float


def measure(method: LRP, model: nn.Module, x: Tensor) -> Measured:
    """The checks for the predicted class, and how much its map is like that of the second class."""
    with torch.no_grad():
        first, second = model(x)[0].topk(2).indices.tolist()
    both = method(model, x, target=Several(first, second))
    assert isinstance(both.values, Tensor)
    values, score = both.values[..., 0], both.score[:, 0]
    checks = [conservation((values,), score), cancellation((values,), score)]
    one, other = both.values[0].double().flatten(0, -2).unbind(1)
    return Measured(
        all(check.verdict == "pass" for check in checks),
        checks[0].measured,
        checks[1].measured,
        float(torch.cosine_similarity(one, other, 0)),
    )


def row(name: str, bias: Bias, model: nn.Module, images: list[Tensor]) -> str:
    """One line of the table."""
    try:
        each = [measure(LRP(rule=RULES[name], bias=bias), model, x) for x in images]
    except BadInput as error:
        return f"| {name} | {bias} | error: {str(error).split(':')[0]} | | | |"
    gaps, sizes = [m.gap for m in each], [m.cancellation for m in each]
    return (
        f"| {name} | {bias} | {sum(m.passes for m in each)} of {len(each)} | "
        f"{median(gaps):.2g}, {max(gaps):.2g} | {median(sizes):.3g}, {max(sizes):.3g} | "
        f"{median(m.likeness for m in each):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--squeezenet", type=Path, help="its weights, a safetensors file")
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--rules", default=",".join(RULES), help="names, separated by commas")
    chosen = parser.parse_args()
    images = [image for _, image in photos(chosen.folder, chosen.photos)]
    networks: list[tuple[str, nn.Module, list[Tensor]]] = [("EfficientNet-Lite0", lite0(), images)]
    if chosen.squeezenet is not None:
        model = squeezenet1_0()
        model.load_state_dict(load_file(chosen.squeezenet))
        mean, std = (torch.tensor(part).reshape(3, 1, 1) for part in (MEAN, STD))
        scaled = [((image * 128 + 127) / 255 - mean) / std for image in images]
        networks.append(("SqueezeNet 1.0", model.eval(), scaled))
    print(f"{machine()}\n{len(images)} photos, {SIDE} px, predicted class\n", flush=True)
    for name, model, batch in networks:
        print(f"**{name}**\n\n| rule | bias | pass | gap | cancellation | likeness |")
        print("|---|---|---|---|---|---|", flush=True)
        for rule in chosen.rules.split(","):
            for bias in ("ignore", "share"):
                print(row(rule, bias, model, batch), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
