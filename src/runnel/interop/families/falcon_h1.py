"""Falcon-H1: Mamba-2 and attention side by side in every layer, scales on everything.

Paper: "Falcon-H1: A Family of Hybrid-Head Language Models Redefining Efficiency and Performance" (2025, 2507.22448).

A scale of an input stands before a projection without bias, so that it is one of the output: those of attention's input
go into the scale of the scores (twice) and of the output.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {
    "Falcon-H1: A Family of Hybrid-Head Language Models Redefining Efficiency and Performance": "2507.22448",
}
MODEL_TYPES = ("falcon_h1",)
DEFAULTS = {
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "num_key_value_heads": 8, "max_position_embeddings": 8192,
    "mamba_d_ssm": 1024, "mamba_n_heads": 128, "mamba_d_head": "auto", "mamba_n_groups": 1, "mamba_d_state": 256,
    "mamba_d_conv": 4, "mamba_expand": 2, "mamba_conv_bias": True, "mamba_proj_bias": False,
    "mamba_norm_before_gate": True, "mamba_rms_norm": False, "time_step_limit": None, "projectors_bias": False,
    "lm_head_multiplier": 1.0, "embedding_multiplier": 1.0, "mlp_multipliers": None, "key_multiplier": 1.0,
    "attention_out_multiplier": 1.0, "attention_in_multiplier": 1.0, "ssm_multipliers": None,
    "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq", "mup_vector")


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, attention_bias=False, mamba_proj_bias=False, projectors_bias=False)
    read, width = theirs["attention_in_multiplier"], parts.head_width(theirs)
    attention = parts.attention(
        theirs,
        scale=read**2 * theirs["key_multiplier"] * width**-0.5,
        out_scale=read * theirs["attention_out_multiplier"],
    )
    scales = [theirs["ssm_in_multiplier"] * scale for scale in theirs["ssm_multipliers"] or [1.0] * 5]
    norm = "ungated" if theirs["mamba_norm_before_gate"] else "gated"
    mamba = parts.mamba2(
        theirs,
        norm=norm if theirs["mamba_rms_norm"] else None,
        scales=None if set(scales) == {1.0} else scales,
        out_scale=theirs["ssm_out_multiplier"],
    )
    gate, out = theirs["mlp_multipliers"] or (1.0, 1.0)
    block = parts.gated(theirs, bias=theirs["mlp_bias"], gate_scale=gate, out_scale=out)
    return parts.decoder(
        theirs,
        [f"{mamba} & {attention}+{block}"] * theirs["num_hidden_layers"],
        embedding=theirs["embedding_multiplier"],
        head=parts.part("heads", "categorical", scale=theirs["lm_head_multiplier"]),
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.final_layernorm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield from parts.mamba2_of(f"{ours}.mixer.parts.0", f"{own}.mamba", theirs)
        yield from parts.attention_entries(f"{ours}.mixer.parts.1", f"{own}.self_attn", theirs, False, False)
        yield Entry(f"{ours}.block_norm.weight", f"{own}.pre_ff_layernorm.weight")
        hidden = theirs["intermediate_size"]
        yield from parts.gated_entries(f"{ours}.block", f"{own}.feed_forward", hidden, theirs["mlp_bias"])
