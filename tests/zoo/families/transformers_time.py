"""Sound, time series and decisions: models of the transformers library."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.families.family import Draw, Family, floats, ids, named
from tests.zoo.families.transformers_text import other

WAVE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_stride": [5, 4],
    "conv_kernel": [10, 8],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
    "num_labels": 3,
    "feat_extract_norm": "group",
}


def sound(name: str, model_type: str, draw: Draw | None = None, **settings: Any) -> Family:
    """A classifier of waveforms."""
    return other(
        name,
        "sound",
        "AutoModelForAudioClassification",
        model_type,
        draw or named(input_values=floats(400)),
        settings,
        output="logits",
    )


def forecaster(name: str, model_type: str, kind: str) -> Family:
    """Draws from a predicted distribution; explained is the mean of the first one."""
    past = 12 + 3
    settings = {
        "prediction_length": 4,
        "context_length": 12,
        "lags_sequence": [1, 2, 3],
        "num_time_features": 1,
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "use_cache": False,
    }
    return other(
        name,
        "time series",
        f"{kind}ForPrediction",
        model_type,
        named(
            past_values=floats(past),
            past_time_features=floats(past, 1),
            past_observed_mask=lambda g: torch.ones(2, past, dtype=torch.bool),
            future_time_features=floats(4, 1),
            future_values=floats(4),
        ),
        settings,
        output=lambda result: result.params[1],
        target=2,
    )


def _in_steps(generator: torch.Generator) -> torch.Tensor:
    return torch.arange(4).expand(2, 4).clone()


FAMILIES = (
    sound("wav2vec 2.0", "wav2vec2", **WAVE),
    sound("HuBERT", "hubert", **WAVE),
    sound("WavLM", "wavlm", **WAVE, num_buckets=8, max_bucket_distance=16),
    sound("SEW", "sew", **WAVE | {"squeeze_factor": 2}),
    sound("UniSpeech", "unispeech", **WAVE),
    sound("Data2Vec audio", "data2vec-audio", **WAVE),
    sound(
        "wav2vec 2.0 Conformer",
        "wav2vec2-conformer",
        **WAVE,
        position_embeddings_type="rotary",
        conv_depthwise_kernel_size=3,
    ),
    sound(
        "Audio Spectrogram Transformer",
        "audio-spectrogram-transformer",
        named(input_values=floats(24, 16)),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        patch_size=8,
        frequency_stride=8,
        time_stride=8,
        max_length=24,
        num_mel_bins=16,
        num_labels=3,
    ),
    sound(
        "Whisper, encoder",
        "whisper",
        named(input_features=floats(8, 32)),
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=8,
        max_source_positions=16,
        classifier_proj_size=8,
        num_labels=3,
    ),
    other(
        "Whisper",
        "sound",
        "AutoModelForSpeechSeq2Seq",
        "whisper",
        named(input_features=floats(8, 32), decoder_input_ids=ids(4)),
        {
            "vocab_size": 40,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "num_mel_bins": 8,
            "max_source_positions": 16,
            "max_target_positions": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
            "use_cache": False,
        },
        output="logits",
        target=(3, 7),
    ),
    other(
        "Speech2Text",
        "sound",
        "AutoModelForSpeechSeq2Seq",
        "speech_to_text",
        named(input_features=floats(32, 8), decoder_input_ids=ids(4)),
        {
            "vocab_size": 40,
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "input_feat_per_channel": 8,
            "input_channels": 1,
            "conv_channels": 16,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "use_cache": False,
        },
        output="logits",
        target=(3, 7),
    ),
    other(
        "PatchTST",
        "time series",
        "PatchTSTForClassification",
        "patchtst",
        named(past_values=floats(24, 2)),
        {
            "num_input_channels": 2,
            "num_targets": 3,
            "context_length": 24,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "ffn_dim": 24,
            "use_cls_token": True,
        },
        output="prediction_logits",
    ),
    other(
        "PatchTSMixer",
        "time series",
        "PatchTSMixerForTimeSeriesClassification",
        "patchtsmixer",
        named(past_values=floats(24, 2)),
        {
            "num_input_channels": 2,
            "num_targets": 3,
            "context_length": 24,
            "patch_length": 4,
            "patch_stride": 4,
            "d_model": 8,
            "num_layers": 2,
        },
        output="prediction_outputs",
    ),
    forecaster("Time Series Transformer", "time_series_transformer", "TimeSeriesTransformer"),
    forecaster("Informer", "informer", "Informer"),
    other(
        "Decision Transformer",
        "time series",
        "DecisionTransformerModel",
        "decision_transformer",
        named(
            states=floats(4, 5),
            actions=floats(4, 2),
            rewards=floats(4, 1),
            returns_to_go=floats(4, 1),
            timesteps=_in_steps,
            attention_mask=lambda g: torch.ones(2, 4, dtype=torch.long),
        ),
        {"state_dim": 5, "act_dim": 2, "hidden_size": 16, "n_layer": 2, "n_head": 2},
        output="action_preds",
        target=(3, 1),
    ),
)
