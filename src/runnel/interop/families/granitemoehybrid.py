"""Granite 4: Mamba-2 and attention, experts beside a shared perceptron, scales on everything.

Its scales are those of maximal update parametrisation ("Tensor Programs V", 2022, 2203.03466).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runnel.interop import parts
from runnel.interop.tables import Entry, Stacked
from runnel.model import ModelConfig

PAPERS: dict[str, str] = {}
MODEL_TYPES = ("granitemoehybrid",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "num_key_value_heads": None, "max_position_embeddings": 2048,
    "attention_bias": False, "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0,
    "attention_multiplier": 1.0, "num_local_experts": 8, "num_experts_per_tok": 2, "shared_intermediate_size": 1024,
    "position_embedding_type": None, "layer_types": None, "mamba_n_heads": 128, "mamba_n_groups": 1,
    "mamba_d_state": 256, "mamba_d_head": "auto", "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True,
    "mamba_proj_bias": False, "time_step_limit": None,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)
ATTENTION = ("attention", "full_attention")


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    bias, scale = theirs["attention_bias"], theirs["attention_multiplier"]
    turned: dict[str, Any] = {} if theirs["position_embedding_type"] == "rope" else {"rotated": 0}
    attention = parts.attention(theirs, bias=bias, out_bias=bias, scale=scale, **turned)
    mamba = parts.mamba2(theirs, norm_groups=1)
    layers = [f"{attention if kind in ATTENTION else mamba}+{_block(theirs)}" for kind in _kinds(theirs)]
    return parts.decoder(
        theirs,
        layers,
        residual=theirs["residual_multiplier"],
        embedding=theirs["embedding_multiplier"],
        head=parts.part("heads", "categorical", scale=1 / theirs["logits_scaling"]),
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    bias, count = theirs["attention_bias"], theirs["num_local_experts"]
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    for i, kind in enumerate(_kinds(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.post_attention_layernorm.weight")
        if kind in ATTENTION:
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, bias, bias)
        else:
            yield from parts.mamba2_of(f"{ours}.mixer", f"{own}.mamba", theirs)
        shared = (f"{ours}.block.up.{count}", f"{ours}.block.out.{count}")
        if not count:
            shared = (f"{ours}.block.gate_and_value", f"{ours}.block.out")
        for mine, name in zip(shared, ("input_linear", "output_linear"), strict=True):
            yield Entry(f"{mine}.weight", f"{own}.shared_mlp.{name}.weight")
        if count:
            yield Entry(f"{ours}.block.router.weight", f"{own}.block_sparse_moe.router.layer.weight")
            for mine, name in (("up", "input_linear"), ("out", "output_linear")):
                experts = tuple(f"{ours}.block.{mine}.{e}.weight" for e in range(count))
                yield Entry(experts, f"{own}.block_sparse_moe.{name}.weight", Stacked())


def _kinds(theirs: parts.Theirs) -> list[str]:
    return list(theirs["layer_types"] or ["mamba"] * theirs["num_hidden_layers"])


def _block(theirs: parts.Theirs) -> str:
    if not theirs["num_local_experts"]:
        return parts.block("swiglu", hidden=theirs["shared_intermediate_size"])
    return parts.block(
        "moe",
        experts=theirs["num_local_experts"],
        active=theirs["num_experts_per_tok"],
        hidden=theirs["intermediate_size"],
        shared=theirs["shared_intermediate_size"],
    )
