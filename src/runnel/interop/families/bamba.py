"""Bamba: Mamba-2, attention in some layers, SwiGLU in all.

Paper of its mixer: "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space
Duality" (2024, 2405.21060).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS: dict[str, str] = {}
MODEL_TYPES = ("bamba",)
DEFAULTS = {
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "num_key_value_heads": 8, "attn_layer_indices": None,
    "mamba_n_heads": 128, "mamba_d_head": "auto", "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4,
    "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False, "time_step_limit": None,
    "attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 0.5, "max_position_embeddings": 262144,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    bias = theirs["attention_bias"]
    attention = parts.attention(theirs, bias=bias, out_bias=bias)
    block, mamba = parts.gated(theirs, bias=theirs["mlp_bias"]), parts.mamba2(theirs)
    layers = [f"{attention if attends else mamba}+{block}" for attends in _attends(theirs)]
    return parts.decoder(theirs, layers)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    bias = theirs["attention_bias"]
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.final_layernorm.weight")
    for i, attends in enumerate(_attends(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        if attends:
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, bias, bias)
        else:
            yield from parts.mamba2_of(f"{ours}.mixer", f"{own}.mamba", theirs)
        yield Entry(f"{ours}.block_norm.weight", f"{own}.pre_ff_layernorm.weight")
        hidden = theirs["intermediate_size"]
        yield from parts.gated_entries(f"{ours}.block", f"{own}.feed_forward", hidden, theirs["mlp_bias"])


def _attends(theirs: parts.Theirs) -> list[bool]:
    return [i in (theirs["attn_layer_indices"] or ()) for i in range(theirs["num_hidden_layers"])]
