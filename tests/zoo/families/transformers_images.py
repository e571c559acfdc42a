"""Image models of the transformers library."""

from __future__ import annotations

from typing import Any

from tests.zoo.families.family import Family, floats, named
from tests.zoo.families.transformers_text import other, pretrained

VIT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 16,
    "patch_size": 4,
}


def classifier(
    name: str,
    model_type: str,
    *,
    side: int = 16,
    base: bool = False,
    kind: str = "image transformers",
    auto: str = "AutoModelForImageClassification",
    **settings: Any,
) -> Family:
    """A classifier of images."""
    whole = (VIT if base else {}) | {"num_labels": 3} | settings
    return Family(
        name=name,
        kind=kind,
        module=lambda: pretrained(auto, model_type, whole),
        inputs=named(pixel_values=floats(3, side, side)),
        output="logits",
    )


def convolutional(name: str, model_type: str, *, side: int = 32, **settings: Any) -> Family:
    """A convolutional classifier of images."""
    return classifier(name, model_type, side=side, kind="convolutional networks", **settings)


def _resnet_backbone() -> Any:
    import transformers

    return transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )


def _detector(name: str, model_type: str) -> Family:
    def build() -> Any:
        settings = {
            "use_timm_backbone": False,
            "backbone": None,
            "backbone_config": _resnet_backbone(),
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_queries": 4,
            "num_labels": 3,
        }
        return pretrained("AutoModelForObjectDetection", model_type, settings)

    return Family(
        name=name,
        kind="image transformers",
        module=build,
        inputs=named(pixel_values=floats(3, 32, 32)),
        output="logits",
        target=(1, 2),
    )


FAMILIES = (
    classifier("ViT", "vit", base=True),
    classifier("DeiT", "deit", auto="DeiTForImageClassification", base=True),
    classifier("BEiT", "beit", base=True, use_relative_position_bias=True),
    classifier("DINOv2", "dinov2", base=True),
    classifier("I-JEPA", "ijepa", base=True),
    classifier(
        "Swin",
        "swin",
        image_size=32,
        side=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
    classifier(
        "Swin v2",
        "swinv2",
        image_size=32,
        side=32,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 2],
        window_size=4,
    ),
    classifier(
        "SegFormer",
        "segformer",
        side=32,
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
    ),
    classifier(
        "PVT",
        "pvt",
        side=32,
        image_size=32,
        num_encoder_blocks=2,
        depths=[1, 1],
        sequence_reduction_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[4, 2],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
    ),
    classifier(
        "CvT",
        "cvt",
        side=32,
        patch_sizes=[7, 3, 3],
        patch_stride=[4, 2, 2],
        patch_padding=[2, 1, 1],
        embed_dim=[8, 8, 16],
        num_heads=[1, 1, 2],
        depth=[1, 2, 3],  # the library looks for as many as there are stages
        mlp_ratio=[2.0, 2.0, 2.0],
        cls_token=[False, False, True],
    ),
    classifier(
        "LeViT",
        "levit",
        auto="LevitForImageClassification",
        side=64,
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 2, 2],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        mlp_ratio=[2, 2, 2],
        attention_ratio=[2, 2, 2],
        drop_path_rate=0,
    ),
    classifier(
        "Hiera",
        "hiera",
        side=32,
        image_size=[32, 32],
        embed_dim=8,
        patch_size=[7, 7],
        depths=[1, 1],
        num_heads=[1, 2],
        masked_unit_size=[4, 4],
        query_stride=[2, 2],
        num_query_pool=1,
    ),
    classifier(
        "MobileViT",
        "mobilevit",
        side=32,
        image_size=32,
        hidden_sizes=[8, 12, 16],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16],
        num_attention_heads=2,
        output_stride=32,
    ),
    classifier(
        "PoolFormer",
        "poolformer",
        side=32,
        depths=[1, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        padding=[2, 1],
        num_encoder_blocks=2,
    ),
    classifier(
        "SwiftFormer",
        "swiftformer",
        side=64,
        image_size=64,
        depths=[1, 1, 1, 1],
        embed_dims=[8, 8, 16, 16],
    ),
    classifier(
        "FocalNet",
        "focalnet",
        side=32,
        image_size=32,
        embed_dim=8,
        depths=[1, 1],
        hidden_sizes=[8, 16],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    _detector("DETR", "detr"),
    _detector("Conditional DETR", "conditional_detr"),
    other(
        "YOLOS",
        "image transformers",
        "AutoModelForObjectDetection",
        "yolos",
        named(pixel_values=floats(3, 16, 16)),
        VIT | {"image_size": [16, 16], "num_detection_tokens": 4, "num_labels": 3},
        output="logits",
        target=(1, 2),
    ),
    other(
        "DPT",
        "image transformers",
        "AutoModelForDepthEstimation",
        "dpt",
        named(pixel_values=floats(3, 16, 16)),
        VIT
        | {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 8, 8],
            "fusion_hidden_size": 8,
            "is_hybrid": False,
        },
        output="predicted_depth",
        target=(4, 4),
    ),
    other(
        "Perceiver",
        "image transformers",
        "PerceiverForImageClassificationLearned",
        "perceiver",
        named(inputs=floats(3, 8, 8)),
        {
            "num_latents": 4,
            "d_latents": 16,
            "num_blocks": 1,
            "num_self_attends_per_block": 1,
            "num_self_attention_heads": 2,
            "num_cross_attention_heads": 2,
            "image_size": 8,
            "num_labels": 3,
        },
        output="logits",
    ),
    convolutional("ConvNeXt", "convnext", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    convolutional("ConvNeXt v2", "convnextv2", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2),
    convolutional(
        "ResNet",
        "resnet",
        embedding_size=8,
        hidden_sizes=[16, 16],
        depths=[1, 1],
        layer_type="bottleneck",
    ),
    convolutional(
        "RegNet", "regnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=4
    ),
    convolutional(
        "BiT", "bit", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4
    ),
    convolutional(
        "MobileNet v1", "mobilenet_v1", image_size=32, depth_multiplier=0.25, min_depth=4
    ),
    convolutional(
        "MobileNet v2", "mobilenet_v2", image_size=32, depth_multiplier=0.25, min_depth=4
    ),
    convolutional(
        "EfficientNet",
        "efficientnet",
        image_size=32,
        width_coefficient=0.25,
        depth_coefficient=0.3,
        hidden_dim=320,
    ),
    convolutional(
        "TextNet",
        "textnet",
        stem_out_channels=8,
        hidden_sizes=[8, 8, 8, 8, 16],
        conv_layer_kernel_sizes=[[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
        conv_layer_strides=[[2], [2], [1], [1]],
    ),
    other(
        "SegFormer, segmentation",
        "image transformers",
        "AutoModelForSemanticSegmentation",
        "segformer",
        named(pixel_values=floats(3, 32, 32)),
        {
            "num_encoder_blocks": 2,
            "depths": [1, 1],
            "sr_ratios": [2, 1],
            "hidden_sizes": [8, 16],
            "patch_sizes": [7, 3],
            "strides": [4, 2],
            "num_attention_heads": [1, 2],
            "mlp_ratios": [2, 2],
            "decoder_hidden_size": 8,
            "num_labels": 3,
        },
        output="logits",
        target=(1, 4, 4),
    ),
)
