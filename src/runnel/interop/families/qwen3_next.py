"""Qwen3-Next: gated delta nets, attention with an output gate in every fourth layer, many small experts.

Papers: "Gated Delta Networks: Improving Mamba2 with Delta Rule" (2024, 2412.06464); "Gated Attention for Large Language
Models: Non-linearity, Sparsity, and Attention-Sink-Free" (2025, 2505.06708).

Their projections lie key head by key head, (q, k, v, z) and (b, a) of each; those of the queries lie head by head, (q,
gate) of each. Ours lie kind by kind.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Ordered, Parted, Shaped, Then
from runnel.model import ModelConfig

PAPERS = {
    "Gated Attention for Large Language Models: Non-linearity, Sparsity, and Attention-Sink-Free": "2505.06708",
}
MODEL_TYPES = ("qwen3_next",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_act": "silu", "num_key_value_heads": 2, "head_dim": 256, "attention_bias": False,
    "max_position_embeddings": 32768, "partial_rotary_factor": 0.25, "layer_types": None, "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128, "linear_value_head_dim": 128, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "decoder_sparse_step": 1, "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512, "num_experts_per_tok": 10, "num_experts": 512, "norm_topk_prob": True,
    "mlp_only_layers": [],
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    eps, bias = theirs["rms_norm_eps"], theirs["attention_bias"]
    norms = {"qk_norm": True, "norm_eps": eps, "norm_offset": 1.0}
    attention = parts.attention(theirs, gated=True, bias=bias, out_bias=bias, **norms)
    delta = parts.mixer(
        "gated_deltanet",
        heads=theirs["linear_num_key_heads"],
        value_heads=theirs["linear_num_value_heads"],
        head_dim=theirs["linear_key_head_dim"],
        expand_v=theirs["linear_value_head_dim"] / theirs["linear_key_head_dim"],
        conv=theirs["linear_conv_kernel_dim"],
        key_eps=1e-6,
        norm_eps=eps,
    )
    experts = parts.block(
        "moe",
        experts=theirs["num_experts"],
        active=min(theirs["num_experts_per_tok"], theirs["num_experts"]),
        hidden=theirs["moe_intermediate_size"],
        rescaled=theirs["norm_topk_prob"],
        shared=theirs["shared_expert_intermediate_size"],
        shared_gate=True,
    )
    layers = [
        f"{attention if kind == 'full_attention' else delta}+{experts if _routes(theirs, i) else parts.gated(theirs)}"
        for i, kind in enumerate(_kinds(theirs))
    ]
    return parts.decoder(theirs, layers, norm=parts.norm("rms", eps=eps, offset=1.0))


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    for i, kind in enumerate(_kinds(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.post_attention_layernorm.weight")
        if kind == "full_attention":
            yield from _attention(f"{ours}.mixer", f"{own}.self_attn", theirs)
        else:
            yield from _delta(f"{ours}.mixer", f"{own}.linear_attn", theirs)
        if _routes(theirs, i):
            yield from _experts(f"{ours}.block", f"{own}.mlp", theirs)
        else:
            yield from parts.gated_entries(f"{ours}.block", f"{own}.mlp", theirs["intermediate_size"])


def _attention(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    heads, width = theirs["num_attention_heads"], theirs["head_dim"]
    queries, keys = heads * width, parts.groups(theirs) * width
    by_kind = parts.by_kind(heads, (width, width))
    order = (*by_kind[:queries], *range(2 * queries, 2 * queries + 2 * keys), *by_kind[queries:])
    how = Then((Joined((2 * queries, keys, keys)), Ordered(order), Parted((queries + 2 * keys, queries))))
    for kind in ("weight", "bias")[: 1 + theirs["attention_bias"]]:
        names = tuple(f"{own}.{x}_proj.{kind}" for x in "qkv")
        yield Entry((f"{ours}.qkv.{kind}", f"{ours}.gate.{kind}"), names, how)
        yield Entry(f"{ours}.out.{kind}", f"{own}.o_proj.{kind}")
    for x in "qk":
        yield Entry(f"{ours}.{x}_norm.weight", f"{own}.{x}_norm.weight")


def _delta(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    heads, value_heads = theirs["linear_num_key_heads"], theirs["linear_num_value_heads"]
    each = value_heads // heads
    keys, values = heads * theirs["linear_key_head_dim"], value_heads * theirs["linear_value_head_dim"]
    own_sizes = (theirs["linear_key_head_dim"],) * 2 + (each * theirs["linear_value_head_dim"],) * 2
    how = Then((Ordered(parts.by_kind(heads, own_sizes)), Parted((2 * keys + values, values))))
    yield Entry((f"{ours}.qkv.weight", f"{ours}.gate.weight"), f"{own}.in_proj_qkvz.weight", how)
    beta_decay = parts.by_kind(heads, (each, each))
    yield Entry(
        f"{ours}.rates.weight",
        f"{own}.in_proj_ba.weight",
        Ordered((*beta_decay[value_heads:], *beta_decay[:value_heads])),
    )
    channels, taps = 2 * keys + values, theirs["linear_conv_kernel_dim"]
    yield Entry(f"{ours}.conv_weight", f"{own}.conv1d.weight", Shaped((channels, taps), (channels, 1, taps)))
    names = {"decay_bias": "dt_bias", "log_a": "A_log", "norm.weight": "norm.weight", "out.weight": "out_proj.weight"}
    for mine, name in names.items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")


def _experts(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    count, hidden = theirs["num_experts"], theirs["shared_expert_intermediate_size"]
    yield Entry(f"{ours}.router.weight", f"{own}.gate.weight")
    yield Entry(f"{ours}.shared_gate.weight", f"{own}.shared_expert_gate.weight")
    yield from parts.expert_entries(ours, f"{own}.experts", count, theirs["moe_intermediate_size"])
    gate_and_value = tuple(f"{own}.shared_expert.{x}.weight" for x in parts.MLP[:2])
    yield Entry(f"{ours}.up.{count}.weight", gate_and_value, Joined((hidden, hidden)))
    yield Entry(f"{ours}.out.{count}.weight", f"{own}.shared_expert.{parts.MLP[2]}.weight")


def _kinds(theirs: parts.Theirs) -> list[str]:
    count = theirs["num_hidden_layers"]
    return theirs["layer_types"] or ["linear_attention" if (i + 1) % 4 else "full_attention" for i in range(count)]


def _routes(theirs: parts.Theirs, layer: int) -> bool:
    sparse = theirs["num_experts"] > 0 and (layer + 1) % theirs["decoder_sparse_step"] == 0
    return sparse and layer not in theirs["mlp_only_layers"]
