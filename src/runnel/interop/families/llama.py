"""Llama: rotary attention with grouped heads and SwiGLU, the layout that most later decoders keep.

Papers: "LLaMA: Open and Efficient Foundation Language Models" (2023, 2302.13971); "The Llama 3 Herd of Models" (2024,
2407.21783) for the stretched rates.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {
    "LLaMA: Open and Efficient Foundation Language Models": "2302.13971",
    "The Llama 3 Herd of Models": "2407.21783",
}
MODEL_TYPES = ("llama",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "head_dim": None,
    "num_key_value_heads": None, "max_position_embeddings": 2048, "pretraining_tp": 1,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, pretraining_tp=1)
    bias = theirs["attention_bias"]
    layer = f"{parts.attention(theirs, bias=bias, out_bias=bias)}+{parts.gated(theirs, bias=theirs['mlp_bias'])}"
    return parts.decoder(theirs, [layer] * theirs["num_hidden_layers"])


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    bias = theirs["attention_bias"]
    return parts.decoder_table(theirs, bias, bias, theirs["mlp_bias"])
