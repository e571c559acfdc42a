"""Text models of the transformers library: encoders, decoders, and both together."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.zoo.families.family import EMBEDDING, Draw, Family, ids, named

# The names that most configurations share.
SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}


def pretrained(auto: str, model_type: str, settings: dict[str, Any]) -> nn.Module:
    """A model of the library from its configuration alone, with random weights."""
    import transformers

    config = transformers.AutoConfig.for_model(model_type, **settings)
    kind = getattr(transformers, auto)
    # An automatic class chooses the model; a model's own class makes itself.
    built = kind.from_config(config) if auto.startswith("AutoModel") else kind._from_config(config)
    assert isinstance(built, nn.Module)
    return built


def other(
    name: str,
    kind: str,
    auto: str,
    model_type: str,
    draw: Draw,
    settings: dict[str, Any],
    **call: Any,
) -> Family:
    """Any other head."""
    return Family(
        name=name,
        kind=kind,
        module=lambda: pretrained(auto, model_type, settings),
        inputs=draw,
        **call,
    )


def encoder(
    name: str, model_type: str, *, draw: Draw | None = None, base: bool = True, **settings: Any
) -> Family:
    """A classifier of sequences."""
    whole = (SMALL if base else {}) | {"num_labels": 3} | settings
    return Family(
        name=name,
        kind="text encoders",
        module=lambda: pretrained("AutoModelForSequenceClassification", model_type, whole),
        inputs=draw or named(input_ids=ids()),
        at=EMBEDDING,
        output="logits",
    )


def decoder(name: str, model_type: str, *, base: bool = True, **settings: Any) -> Family:
    """A language model; explained is the next token's logit."""
    whole = (SMALL if base else {}) | {"use_cache": False} | settings
    return Family(
        name=name,
        kind="text decoders",
        module=lambda: pretrained("AutoModelForCausalLM", model_type, whole),
        inputs=named(input_ids=ids()),
        at=EMBEDDING,
        output="logits",
        target=(5, 7),
    )


def translator(name: str, model_type: str, at: str, **settings: Any) -> Family:
    """An encoder and a decoder; explained is the next token's logit by the source's tokens."""
    whole = {"vocab_size": 40, "use_cache": False, "decoder_start_token_id": 2} | settings
    return Family(
        name=name,
        kind="text encoders with a decoder",
        module=lambda: pretrained("AutoModelForSeq2SeqLM", model_type, whole),
        inputs=named(input_ids=ids(), decoder_input_ids=ids(4)),
        at=at,
        output="logits",
        target=(3, 7),
    )


def boxes(generator: torch.Generator) -> torch.Tensor:
    """Where on a page each of six tokens stands: (2, 6, 4) integers, left, top, right, bottom."""
    corner = torch.randint(0, 400, (2, 6, 2), generator=generator)
    return torch.cat([corner, corner + 100], -1)


DIM = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
# The fused kernels of experts take no float64.
EAGER = {"experts_implementation": "eager"}
GROUPED = {"num_key_value_heads": 1}
BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "pad_token_id": 0}

FAMILIES = (
    encoder("BERT", "bert"),
    encoder("RoBERTa", "roberta"),
    encoder("DistilBERT", "distilbert", vocab_size=40, base=False, pad_token_id=0, **DIM),
    encoder("ALBERT", "albert", embedding_size=8),
    encoder("ELECTRA", "electra", embedding_size=8),
    encoder(
        "DeBERTa",
        "deberta",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
    ),
    encoder(
        "DeBERTa v2",
        "deberta-v2",
        relative_attention=True,
        position_buckets=4,
        pos_att_type=["c2p", "p2c"],
        conv_kernel_size=3,
        conv_act="gelu",
    ),
    encoder("MPNet", "mpnet", draw=named(input_ids=ids()), pad_token_id=1, bos_token_id=0),
    encoder(
        "XLNet",
        "xlnet",
        base=False,
        vocab_size=40,
        d_model=16,
        n_layer=2,
        n_head=2,
        d_inner=24,
        pad_token_id=0,
    ),
    encoder("XLM", "xlm", base=False, vocab_size=40, emb_dim=16, n_layers=2, n_heads=2, n_words=40),
    encoder(
        "Funnel",
        "funnel",
        base=False,
        vocab_size=40,
        block_sizes=[1, 1],
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=24,
    ),
    encoder("FNet", "fnet"),
    encoder("Longformer", "longformer", attention_window=4),
    encoder(
        "BigBird",
        "big_bird",
        attention_type="block_sparse",
        block_size=4,
        num_random_blocks=1,
        max_position_embeddings=64,
        draw=named(input_ids=ids(48)),
    ),
    encoder("Nyströmformer", "nystromformer", num_landmarks=3, segment_means_seq_len=6),
    encoder("YOSO", "yoso"),
    encoder(
        "SqueezeBERT",
        "squeezebert",
        embedding_size=16,
        q_groups=2,
        k_groups=2,
        v_groups=2,
        post_attention_groups=1,
        intermediate_groups=2,
        output_groups=2,
    ),
    encoder(
        "MobileBERT",
        "mobilebert",
        embedding_size=8,
        intra_bottleneck_size=8,
        true_hidden_size=8,
        num_feedforward_networks=2,
    ),
    encoder("ConvBERT", "convbert", embedding_size=16, head_ratio=1, conv_kernel_size=3),
    encoder("I-BERT", "ibert", quant_mode=False),
    encoder("RoFormer", "roformer", embedding_size=16),
    encoder("ModernBERT", "modernbert", local_attention=4, global_attn_every_n_layers=2),
    encoder("ESM", "esm", position_embedding_type="rotary", mask_token_id=4, token_dropout=False),
    encoder("NomicBERT", "nomic_bert"),
    encoder(
        "TAPAS",
        "tapas",
        draw=named(
            input_ids=ids(), token_type_ids=lambda g: torch.zeros(2, 6, 7, dtype=torch.long)
        ),
    ),
    encoder("LayoutLM", "layoutlm", draw=named(input_ids=ids(), bbox=boxes)),
    encoder(
        "LiLT",
        "lilt",
        draw=named(input_ids=ids(), bbox=boxes),
        channel_shrink_ratio=2,
        hidden_size=24,
    ),
    decoder("GPT-2", "gpt2", base=False, vocab_size=40, n_embd=16, n_layer=2, n_head=2),
    decoder("OpenAI GPT", "openai-gpt", base=False, vocab_size=40, n_embd=16, n_layer=2, n_head=2),
    decoder(
        "GPT-Neo",
        "gpt_neo",
        base=False,
        vocab_size=40,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
    ),
    decoder(
        "GPT-J", "gptj", base=False, vocab_size=40, n_embd=16, n_layer=2, n_head=2, rotary_dim=4
    ),
    decoder("GPT-NeoX", "gpt_neox"),
    decoder(
        "CodeGen",
        "codegen",
        base=False,
        vocab_size=40,
        n_embd=16,
        n_layer=2,
        n_head=4,
        rotary_dim=4,
    ),
    decoder("OPT", "opt", ffn_dim=24, word_embed_proj_dim=16),
    decoder("BLOOM", "bloom", base=False, vocab_size=40, hidden_size=16, n_layer=2, n_head=2),
    decoder("MPT", "mpt", base=False, vocab_size=40, d_model=16, n_layers=2, n_heads=2),
    decoder("CTRL", "ctrl", base=False, vocab_size=40, n_embd=16, n_layer=2, n_head=2, dff=24),
    decoder("Llama", "llama", **GROUPED),
    decoder("Mistral", "mistral", sliding_window=4, **GROUPED),
    decoder("Mixtral", "mixtral", num_local_experts=4, num_experts_per_tok=2, **EAGER, **GROUPED),
    decoder("Qwen 2", "qwen2", **GROUPED),
    decoder(
        "Qwen 3 MoE",
        "qwen3_moe",
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        head_dim=8,
        **EAGER,
        **GROUPED,
    ),
    decoder("Gemma 2", "gemma2", head_dim=8, sliding_window=4, **GROUPED),
    decoder("Phi", "phi", partial_rotary_factor=0.5),
    decoder("Falcon", "falcon", alibi=True, new_decoder_architecture=False),
    decoder("StableLM", "stablelm", num_key_value_heads=2),
    decoder("OLMo 2", "olmo2", **GROUPED),
    decoder("Mamba", "mamba", state_size=4, conv_kernel=3, time_step_rank=2),
    decoder(
        "Mamba 2",
        "mamba2",
        state_size=4,
        conv_kernel=3,
        num_heads=4,
        head_dim=8,
        n_groups=1,
        chunk_size=4,
    ),
    decoder("RWKV", "rwkv", attention_hidden_size=16, context_length=16),
    decoder(
        "RecurrentGemma",
        "recurrent_gemma",
        lru_width=16,
        attention_window_size=4,
        head_dim=8,
        num_hidden_layers=3,
        num_key_value_heads=1,
    ),
    decoder(
        "DeepSeek V2",
        "deepseek_v2",
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=8,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        num_key_value_heads=2,
        **EAGER,
    ),
    translator("T5", "t5", "encoder.embed_tokens", **T5),
    translator("LongT5", "longt5", "encoder.embed_tokens", local_radius=3, **T5),
    translator(
        "Switch Transformers",
        "switch_transformers",
        "encoder.embed_tokens",
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=8,
        **T5,
    ),
    translator("BART", "bart", "model.encoder.embed_tokens", **BART),
    translator("Pegasus", "pegasus", "model.encoder.embed_tokens", **BART),
    translator("Marian", "marian", "model.encoder.embed_tokens", **BART),
    translator("mBART", "mbart", "model.encoder.embed_tokens", **BART),
    translator(
        "LED",
        "led",
        "led.encoder.embed_tokens",
        **{k: v for k, v in BART.items() if k != "max_position_embeddings"},
        attention_window=4,
        max_encoder_position_embeddings=32,
        max_decoder_position_embeddings=32,
    ),
    translator(
        "ProphetNet",
        "prophetnet",
        "prophetnet.encoder.word_embeddings",
        hidden_size=16,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_encoder_attention_heads=2,
        num_decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
        ngram=2,
        pad_token_id=0,
    ),
)
