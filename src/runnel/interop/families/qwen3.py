"""Qwen3: a Llama whose queries and keys are normalised per head.

Paper: "Qwen3 Technical Report" (2025, 2505.09388).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Qwen3 Technical Report": "2505.09388"}
MODEL_TYPES = ("qwen3",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "num_key_value_heads": 32, "head_dim": 128, "attention_bias": False,
    "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28,
    "layer_types": None,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    options = {"bias": theirs["attention_bias"], "out_bias": theirs["attention_bias"], "qk_norm": True}
    options["norm_eps"] = theirs["rms_norm_eps"]
    windows = parts.windows(theirs, parts.late_windows(theirs))
    block = parts.gated(theirs)
    return parts.decoder(theirs, [f"{parts.attention(theirs, window=w, **options)}+{block}" for w in windows])


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    bias = theirs["attention_bias"]
    yield from parts.decoder_table(theirs, bias, bias)
    for i in range(theirs["num_hidden_layers"]):
        for x in "qk":
            yield Entry(f"layers.{i}.mixer.{x}_norm.weight", f"model.layers.{i}.self_attn.{x}_norm.weight")
