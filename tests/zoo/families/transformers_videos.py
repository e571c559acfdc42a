"""Models of the transformers library that see videos, or images and text together."""

import torch

from tests.zoo.families.family import floats, ids, named
from tests.zoo.families.transformers_images import VIT
from tests.zoo.families.transformers_text import other

TEXT = {"vocab_size": 40, "max_position_embeddings": 16, "pad_token_id": 0}
FAMILIES = (
    other(
        "CLIP",
        "images with text",
        "AutoModelForZeroShotImageClassification",
        "clip",
        named(pixel_values=floats(3, 16, 16), input_ids=ids()),
        {
            "vision_config": VIT | {"num_channels": 3},
            "text_config": TEXT
            | {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
                "eos_token_id": 39,
            },
            "projection_dim": 8,
        },
        output="logits_per_image",
        target=1,
    ),
    other(
        "SigLIP",
        "images with text",
        "AutoModelForZeroShotImageClassification",
        "siglip",
        named(pixel_values=floats(3, 16, 16), input_ids=ids()),
        {
            "vision_config": VIT,
            "text_config": TEXT
            | {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 24,
            },
        },
        output="logits_per_image",
        target=1,
    ),
    other(
        "VisualBERT",
        "images with text",
        "VisualBertForQuestionAnswering",
        "visual_bert",
        named(
            input_ids=ids(),
            attention_mask=lambda g: torch.ones(2, 6, dtype=torch.long),
            visual_embeds=floats(3, 12),
            visual_attention_mask=lambda g: torch.ones(2, 3, dtype=torch.long),
        ),
        TEXT
        | {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "visual_embedding_dim": 12,
            "num_labels": 3,
        },
        output="logits",
    ),
    other(
        "TimeSformer",
        "videos",
        "AutoModelForVideoClassification",
        "timesformer",
        named(pixel_values=floats(2, 3, 16, 16)),
        VIT | {"num_frames": 2, "num_labels": 3},
        output="logits",
    ),
    other(
        "VideoMAE",
        "videos",
        "AutoModelForVideoClassification",
        "videomae",
        named(pixel_values=floats(4, 3, 16, 16)),
        VIT | {"num_frames": 4, "tubelet_size": 2, "num_labels": 3},
        output="logits",
    ),
    other(
        "ViViT",
        "videos",
        "AutoModelForVideoClassification",
        "vivit",
        named(pixel_values=floats(4, 3, 16, 16)),
        VIT | {"num_frames": 4, "tubelet_size": [2, 4, 4], "num_labels": 3},
        output="logits",
    ),
)
