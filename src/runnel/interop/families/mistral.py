"""Mistral: a Llama whose tokens see a window.

Paper: "Mistral 7B" (2023, 2310.06825).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Mistral 7B": "2310.06825"}
MODEL_TYPES = ("mistral",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "head_dim": None, "num_key_value_heads": 8, "sliding_window": 4096,
    "max_position_embeddings": 4096 * 32,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    block = parts.gated(theirs)
    return parts.decoder(theirs, [f"{parts.attention(theirs, window=w)}+{block}" for w in parts.windows(theirs)])


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    return parts.decoder_table(theirs)
