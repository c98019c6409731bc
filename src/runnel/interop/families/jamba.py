"""Jamba: Mamba with normalised selections, attention without positions in some layers, experts in some.

Paper: "Jamba: A Hybrid Transformer-Mamba Language Model" (2024, 2403.19887).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Jamba: A Hybrid Transformer-Mamba Language Model": "2403.19887"}
MODEL_TYPES = ("jamba",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "num_key_value_heads": 8, "max_position_embeddings": 262144,
    "num_experts": 16, "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
    "attn_layer_period": 8, "attn_layer_offset": 4, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2,
    "mamba_dt_rank": "auto", "mamba_conv_bias": True, "mamba_proj_bias": False,
}  # fmt: skip
PREFIX = "model."
IGNORED = ()
NORMS = {0: "dt_layernorm", 1: "b_layernorm", 2: "c_layernorm"}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    rank = theirs["mamba_dt_rank"]
    mamba = parts.mixer(
        "mamba",
        expand=theirs["mamba_expand"],
        d_state=theirs["mamba_d_state"],
        conv=theirs["mamba_d_conv"],
        rank=-(-theirs["hidden_size"] // 16) if rank == "auto" else rank,
        bias=theirs["mamba_proj_bias"],
        conv_bias=theirs["mamba_conv_bias"],
        select_norm="scaled",
        norm_eps=theirs["rms_norm_eps"],
    )
    attention = parts.attention(theirs, rotated=0)
    experts = parts.block(
        "moe",
        experts=theirs["num_experts"],
        active=theirs["num_experts_per_tok"],
        hidden=theirs["intermediate_size"],
        rescaled=False,
    )
    layers = [
        f"{attention if _attends(theirs, i) else mamba}+{experts if _routes(theirs, i) else parts.gated(theirs)}"
        for i in range(theirs["num_hidden_layers"])
    ]
    return parts.decoder(theirs, layers)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    sizes = {"channels": theirs["mamba_expand"] * theirs["hidden_size"], "width": theirs["mamba_d_conv"]}
    biases, hidden = (theirs["mamba_proj_bias"], theirs["mamba_conv_bias"]), theirs["intermediate_size"]
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.final_layernorm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.pre_ff_layernorm.weight")
        if _attends(theirs, i):
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, False, False)
        else:
            yield from parts.mamba_entries(f"{ours}.mixer", f"{own}.mamba", *biases, **sizes)
            for mine, name in NORMS.items():
                yield Entry(f"{ours}.mixer.select_norms.{mine}.weight", f"{own}.mamba.{name}.weight")
        if _routes(theirs, i):
            yield Entry(f"{ours}.block.router.weight", f"{own}.feed_forward.router.weight")
            yield from parts.expert_entries(
                f"{ours}.block", f"{own}.feed_forward.experts", theirs["num_experts"], hidden
            )
        else:
            yield from parts.gated_entries(f"{ours}.block", f"{own}.feed_forward", hidden)


def _attends(theirs: parts.Theirs, layer: int) -> bool:
    return layer % theirs["attn_layer_period"] == theirs["attn_layer_offset"]


def _routes(theirs: parts.Theirs, layer: int) -> bool:
    return theirs["num_experts"] > 1 and layer % theirs["expert_layer_period"] == theirs["expert_layer_offset"]
