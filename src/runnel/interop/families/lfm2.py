"""LFM2: short gated convolutions, attention in some layers.

Report: "LFM2 Technical Report" (2025, 2511.23404).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry, Shaped
from runnel.model import ModelConfig

PAPERS = {"LFM2 Technical Report": "2511.23404"}
MODEL_TYPES = ("lfm2",)
DEFAULTS = {
    "norm_eps": 1e-5, "num_key_value_heads": 8, "max_position_embeddings": 128_000, "tie_word_embeddings": True,
    "rope_theta": 1_000_000.0, "conv_bias": False, "conv_L_cache": 3, "block_multiple_of": 256,
    "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True, "full_attn_idxs": None, "layer_types": None,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)
ATTENTION = {"q_norm": "q_layernorm", "k_norm": "k_layernorm"}
MLP = ("w1", "w3", "w2")


def model_config(theirs: parts.Theirs) -> ModelConfig:
    block = parts.block("swiglu", hidden=_hidden(theirs))
    conv = parts.mixer("short_conv", width=theirs["conv_L_cache"], bias=theirs["conv_bias"])
    attention = parts.attention(theirs, qk_norm=True, norm_eps=theirs["norm_eps"])
    layers = [f"{conv if kind == 'conv' else attention}+{block}" for kind in _kinds(theirs)]
    return parts.decoder(theirs, layers, "norm_eps")


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    width, taps = theirs["hidden_size"], theirs["conv_L_cache"]
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.embedding_norm.weight")
    for i, kind in enumerate(_kinds(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.operator_norm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.ffn_norm.weight")
        yield from parts.gated_entries(f"{ours}.block", f"{own}.feed_forward", _hidden(theirs), names=MLP)
        if kind != "conv":
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, False, False, "out_proj")
            for mine, name in ATTENTION.items():
                yield Entry(f"{ours}.mixer.{mine}.weight", f"{own}.self_attn.{name}.weight")
            continue
        for mine, name in {"input": "in_proj", "out": "out_proj"}.items():
            for part in ("weight", "bias")[: 1 + theirs["conv_bias"]]:
                yield Entry(f"{ours}.mixer.{mine}.{part}", f"{own}.conv.{name}.{part}")
        filters = Shaped((width, taps), (width, 1, taps))
        yield Entry(f"{ours}.mixer.conv_weight", f"{own}.conv.conv.weight", filters)
        if theirs["conv_bias"]:
            yield Entry(f"{ours}.mixer.conv_bias", f"{own}.conv.conv.bias")


def _kinds(theirs: parts.Theirs) -> list[str]:
    """What every layer mixes with: "conv" or something else."""
    if theirs["layer_types"]:
        return list(theirs["layer_types"])
    count, given = theirs["num_hidden_layers"], theirs["full_attn_idxs"]
    return ["full_attention" if given is None or i in given else "conv" for i in range(count)]


def _hidden(theirs: parts.Theirs) -> int:
    """Width of the perceptrons: two thirds of what is written, rounded up."""
    written = theirs.get("block_ff_dim") or theirs["intermediate_size"]
    if not theirs["block_auto_adjust_ff_dim"]:
        return int(written)
    hidden = int(2 * written / 3)
    if theirs["block_ffn_dim_multiplier"] is None:
        return hidden
    unit = theirs["block_multiple_of"]
    return int(unit * -(-int(theirs["block_ffn_dim_multiplier"] * hidden) // unit))
