"""Qwen2 (and 2.5): a Llama with biases on queries, keys and values; later layers may see a window.

Paper: "Qwen2 Technical Report" (2024, 2407.10671).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Qwen2 Technical Report": "2407.10671"}
MODEL_TYPES = ("qwen2",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28, "layer_types": None,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    windows = parts.windows(theirs, parts.late_windows(theirs))
    block = parts.gated(theirs)
    return parts.decoder(theirs, [f"{parts.attention(theirs, bias=True, window=w)}+{block}" for w in windows])


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    return parts.decoder_table(theirs, bias=True)
