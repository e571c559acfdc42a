"""Targets of dense outputs: regions of a segmentation, boxes of a detector, names in any place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from whyglass import (
    BadInput,
    Box,
    Contrast,
    DeepLIFT,
    Explanation,
    GradientXInput,
    IntegratedGradients,
    Legend,
    LogOdds,
    Occlusion,
    PermutationShapley,
    Probability,
    Region,
    Saliency,
    Several,
)

CLASSES = ["sky", "road", "car"]
NAMED = Legend(class_names=CLASSES)


class Segmenter(nn.Module):
    """(B, 2, 8, 8) -> (B, 3, 4, 4): a network whose output is coarser than its input."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.encode = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.decode = nn.Conv2d(6, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(torch.relu(self.encode(images)))


def segmenter(seed: int = 0) -> nn.Module:
    return Segmenter(seed).double().eval()


def images(rows: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(
        rows, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def naive(model: nn.Module, x: Tensor, masks: Tensor, c: int, mean: bool) -> tuple[Tensor, Tensor]:
    """Score and gradient x input of sum_{p in M} z_{c,p}, row by row, written out with loops."""
    x = x.clone().requires_grad_()
    logits = model(x)
    scores: list[Tensor] = []
    for row, mask in enumerate(masks):
        places = [logits[row, c, i, j] for i, j in mask.nonzero().tolist()]
        total = torch.stack(places).sum()
        scores.append(total / len(places) if mean else total)
    (gradient,) = torch.autograd.grad(torch.stack(scores).sum(), x)
    return torch.stack(scores).detach(), x.detach() * gradient


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), c=st.integers(0, 2), mean=st.booleans(), each=st.booleans())
def test_a_region_is_the_sum_or_mean_of_a_class_over_a_mask(
    seed: int, c: int, mean: bool, each: bool
) -> None:
    model, x = segmenter(seed), images(3, seed)
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(3 if each else 1, 4, 4, generator=generator) > 0.6
    masks[:, 1, 2] = True
    region = Region(c, masks if each else masks[0], reduce="mean" if mean else "sum")
    scores, values = naive(model, x, masks.expand(3, 4, 4), c, mean)
    why = GradientXInput()(model, x, target=region)
    torch.testing.assert_close(why.score, scores)
    torch.testing.assert_close(why.values, values)
    assert why.classes is None


def winning(model: nn.Module, x: Tensor) -> tuple[int, Tensor]:
    """A class that wins somewhere in every row, and where."""
    wins = [model(x).argmax(1) == c for c in range(3)]
    return next((c, won) for c, won in enumerate(wins) if bool(won.flatten(1).any(1).all()))


@pytest.mark.parametrize("seed", range(3))
def test_a_region_without_a_mask_is_where_the_class_wins_and_stays_there(seed: int) -> None:
    model, x = segmenter(seed), images(2, seed)
    c, masks = winning(model, x)
    assert not torch.equal(model(torch.zeros_like(x)).argmax(1) == c, masks)
    for method in (IntegratedGradients(), DeepLIFT(), PermutationShapley(players=2), Occlusion()):
        wins = method(model, x, target=Region(c))
        assert wins.targets == [[f"{c} where it wins"]] * 2
        torch.testing.assert_close(wins.score, naive(model, x, masks, c, False)[0])
        torch.testing.assert_close(wins.values, method(model, x, target=Region(c, masks)).values)


def test_a_batch_in_pieces_has_the_regions_of_its_rows() -> None:
    """Points of the path belong to rows that were bound in an earlier piece."""
    model, x = segmenter(), images(5)
    c, _ = winning(model, x)
    method = IntegratedGradients(steps=4, rule="midpoint")
    whole, pieces = (method(model, x, target=Region(c), batch_size=n) for n in (20, 2))
    torch.testing.assert_close(pieces.values, whole.values)


def test_why_one_class_and_not_another_in_a_region() -> None:
    model, x = segmenter(), images()
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:3, 1:] = True
    why = GradientXInput()(
        model, x, target=Contrast(Region("car", mask), Region("sky", mask)), legend=NAMED
    )
    logits = model(x)
    torch.testing.assert_close(why.score, (logits[:, 2] - logits[:, 0])[:, mask].sum(1).detach())
    assert why.targets[0] == ["car over a region rather than sky over a region"]
    both = GradientXInput()(model, x, target=Several(Region(2, mask), Region(0, mask)))
    torch.testing.assert_close(both.values[..., 0] - both.values[..., 1], why.values)


@pytest.mark.parametrize("shape", [(3, 7), (3, 2, 3, 4)])
def test_regions_of_signals_and_volumes(shape: tuple[int, ...]) -> None:
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = x[0, 0] > 0
    why = Saliency()(lambda given: given**2, x, target=Region(1, mask))
    torch.testing.assert_close(why.score, (x**2)[:, 1][:, mask].sum(1))


class Detector(nn.Module):
    """(B, 6) -> logits (B, 5, 4) of five boxes, the last class "no object", and boxes (B, 5, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.logits, self.boxes = nn.Linear(6, 9), nn.Linear(9, 20), nn.Linear(9, 20)
        generator = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.first(x))
        boxes = torch.sigmoid(self.boxes(hidden)).unflatten(1, (5, 4))
        return {"logits": self.logits(hidden).unflatten(1, (5, 4)), "pred_boxes": boxes}


def detect(target: Any, output: str = "logits", **more: Any) -> tuple[Explanation, Tensor]:
    model = Detector().double().eval()
    x = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    why = GradientXInput()(model, x, target=target, output=output, **more)
    return why, model(x)[output].detach()


def test_a_box_is_the_logit_of_its_class() -> None:
    names = Legend(class_names=["cat", "dog", "car", "no object"])
    why, logits = detect(Box(3, 1))
    torch.testing.assert_close(why.score, logits[:, 3, 1])
    assert why.targets[0] == ["1 in box 3"]
    torch.testing.assert_close(why.values, detect((3, 1))[0].values)
    assert detect(Box(3, "dog"), legend=names)[0].targets[0] == ["dog in box 3"]
    won, _ = detect(Box(2), legend=names)
    winners = logits[:, 2].argmax(1)
    torch.testing.assert_close(won.score, logits[:, 2].amax(1))
    assert [row[0] for row in won.targets] == [
        f"{names.class_names[c]} in box 2"
        for c in winners.tolist()  # pyright: ignore[reportOptionalSubscript]
    ]
    detected = {"class_names": ["cat", "dog", "car"]}
    for c, name in enumerate(["cat", "dog", "car", "no object"]):
        assert detect(Box(3, c), legend=detected)[0].targets[0] == [f"{name} in box 3"]
    assert detect(Box(3, 1), legend={"class_names": ["cat"]})[0].targets[0] == ["1 in box 3"]
    each, _ = detect(Box([4, 0, 2]))
    torch.testing.assert_close(each.score, logits[range(3), [4, 0, 2]].amax(1))


def test_functions_of_a_boxs_classes() -> None:
    why, logits = detect(
        Several(Probability(Box(1, 0)), LogOdds(Box(1, 0)), Contrast(Box(1, 0), Box(1, 2)))
    )
    chance = logits[:, 1].softmax(1)[:, 0]
    contrast = logits[:, 1, 0] - logits[:, 1, 2]
    torch.testing.assert_close(why.score, torch.stack([chance, chance.logit(), contrast], 1))
    assert why.targets[0][0] == "probability of 0 in box 1"


def test_a_coordinate_of_a_box() -> None:
    why, boxes = detect(Box(4, 2), "pred_boxes")
    torch.testing.assert_close(why.score, boxes[:, 4, 2])


X = torch.ones(2, 12)
BAD: dict[str, tuple[tuple[int, ...], Any, list[str]]] = {
    "segmentation without a target": ((3, 2, 2), None, ["missing", "Region(class)", "(0, 0, 0)"]),
    "segmentation and a class": ((3, 2, 2), 1, ["names 1 axes", "Region(class, mask)"]),
    "detection without a target": ((4, 3), None, ["missing", "Box(number)", "target=(0, 0)"]),
    "detection and a class": ((4, 3), 2, ["names 1 axes", "Box(number)"]),
    "a region of classes": ((12,), Region(1), ["Region needs", "(2, 12)", "target=1"]),
    "a box of classes": ((12,), Box(1), ["Box needs", "(2, 12)", "target=0"]),
    "a box of pixels": ((3, 2, 2), Box(1), ["Box needs", "(2, 3, 2, 2)", "Region(class)"]),
    "a class too many": ((3, 2, 2), Region(3), ["3 is out of range", "3 classes"]),
    "a box too many": ((4, 3), Box(4), ["4 is out of range", "0 to 3"]),
    "a box of no class": ((4, 3), Box(1, 7), ["7 is out of range", "0 to 2"]),
    "a mask of another size": (
        (3, 2, 2),
        Region(1, torch.ones(4, 4, dtype=torch.bool)),
        ["mask has shape (4, 4)", "(2, 2)", "interpolate(mask[None, None].float(), (2, 2))"],
    ),
    "a mask of numbers": ((3, 2, 2), Region(1, torch.ones(2, 2)), ["boolean", "mask > 0"]),
    "an empty mask": (
        (3, 2, 2),
        Region(1, torch.zeros(2, 2, dtype=torch.bool)),
        ["empty mask in row 0"],
    ),
    "a class that wins nowhere": ((3, 2, 2), Region(2), ["wins nowhere in row 0", "give a mask"]),
    "another reduction": ((3, 2, 2), Region(1, reduce="max"), ['"sum" or "mean"']),  # pyright: ignore[reportArgumentType]
    "probability of a region": ((3, 2, 2), Probability(Region(0)), ["not a Region"]),  # pyright: ignore[reportArgumentType]
    "softmax along pixels": ((3, 2, 2), LogOdds((0, 0, 0)), ["last axis", "softmax(1)"]),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_the_output_is_answered_with_what_does(name: str) -> None:
    shape, target, words = BAD[name]
    with pytest.raises(BadInput) as refusal:
        Saliency()(lambda x: (x * 1).reshape(-1, *shape), X, target=target)
    for word in words:
        assert word in str(refusal.value)


def test_the_ways_out_of_the_messages_work() -> None:
    model, x = segmenter(), images()
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 2:6] = True
    with pytest.raises(BadInput, match="interpolate"):
        Saliency()(model, x, target=Region(1, mask))
    small = nn.functional.interpolate(mask[None, None].float(), (4, 4))[0, 0] > 0.5
    assert Saliency()(model, x, target=Region(1, small)).verdict == "pass"
    soft = Saliency()(model, x, output=lambda y: y.softmax(1), target=Region(1, small, "mean"))
    assert bool((soft.score < 1).all())


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)])
def test_an_output_of_one_entry_needs_no_target(shape: tuple[int, ...]) -> None:
    why = Saliency()(lambda x: (x**2).sum(1).reshape(-1, *shape), X)
    torch.testing.assert_close(why.score, (X**2).sum(1))
    assert why.targets == [["output"]] * 2


def test_two_names_of_one_logit_are_those_of_its_signs() -> None:
    def model(x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True)

    for target in (None, 0):
        why = Saliency()(model, X, target=target, legend={"class_names": ["benign", "malignant"]})
        assert why.targets[0] == ["malignant"]
    assert Saliency()(model, X, legend={"class_names": ["price"]}).targets[0] == ["price"]


NAMES = {"class_names": ["benign", "malignant", "unsure"]}


@pytest.mark.parametrize(
    ("by_name", "by_number"),
    [
        (["malignant", "benign"], [1, 0]),
        (np.array(["malignant", "benign"]), np.array([1, 0])),
        (("unsure",), (2,)),
        (Several("unsure", "benign"), Several(2, 0)),
        (Probability(["malignant", "benign"]), Probability([1, 0])),
        (LogOdds("unsure"), LogOdds(2)),
        (Contrast(["malignant", "benign"], "unsure"), Contrast([1, 0], 2)),
        ([("malignant",), ("benign",)], torch.tensor([[1], [0]])),
    ],
)
def test_a_name_works_wherever_a_number_does(by_name: Any, by_number: Any) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([x[:, 0], 2 * x[:, 1], x[:, 2] ** 2], 1)

    named = Saliency()(model, X, target=by_name, legend=NAMES)
    torch.testing.assert_close(named.values, Saliency()(model, X, target=by_number).values)


def test_a_name_of_a_token_class_at_a_position() -> None:
    why = Saliency()(lambda x: (x * 1).reshape(-1, 4, 3), X, target=(2, "malignant"), legend=NAMES)
    assert why.targets[0] == ["2, malignant"]
    torch.testing.assert_close(why.values.nonzero()[:, 1], torch.tensor([7, 7]))


def test_names_in_a_list_are_one_a_row() -> None:
    with pytest.raises(BadInput, match="1 entries and the batch 2 rows"):
        Saliency()(lambda x: x[:, :3] * 1, X, target=["benign"], legend=NAMES)
    with pytest.raises(BadInput, match="did you mean 'benign'"):
        Saliency()(lambda x: x[:, :3] * 1, X, target=["benin", "benign"], legend=NAMES)


def total(output: Tensor) -> Tensor:
    return output.sum(1)


class Total:
    """A target that is an object."""

    def __call__(self, output: Tensor) -> Tensor:
        return output.sum(1)


def test_a_callable_is_shown_by_what_it_is() -> None:
    def local(output: Tensor) -> Tensor:
        return output.sum(1)

    for target, label in (
        (total, "total"),
        (local, "local"),
        (Total(), "Total"),
        (lambda output: output.sum(1), "callable target"),
    ):
        assert Saliency()(lambda x: x * 1, X, target=target).targets[0] == [label]


def test_segformer_and_detr_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    segformer = transformers.SegformerForSemanticSegmentation(
        transformers.SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[3, 3],
            strides=[2, 2],
            num_attention_heads=[1, 2],
            mlp_ratios=[2, 2],
            decoder_hidden_size=16,
            num_labels=3,
        )
    ).eval()
    pixels = torch.randn(2, 3, 16, 16)
    logits = segformer(pixels).logits
    c = int(logits.argmax(1).flatten().mode().values)
    mask = torch.zeros(logits.shape[2:], dtype=torch.bool)
    mask[1:4, 2:5] = True
    why = IntegratedGradients()(segformer, pixels, output="logits", target=Region(c, mask, "mean"))
    torch.testing.assert_close(why.score, logits[:, c][:, mask].mean(1).detach())
    assert why.verdict == "pass"

    detr = transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=transformers.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"]
            ),
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            num_queries=5,
            num_labels=3,
        )
    ).eval()
    pixels = torch.randn(2, 3, 32, 32)
    made = detr(pixels)
    why = IntegratedGradients()(detr, pixels, output="logits", target=Box(2, 1))
    torch.testing.assert_close(why.score, made.logits[:, 2, 1].detach())
    assert why.verdict == "pass"
    width = Saliency()(detr, pixels, output="pred_boxes", target=Box(2, 2))
    torch.testing.assert_close(width.score, made.pred_boxes[:, 2, 2].detach())
