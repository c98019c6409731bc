"""Kimi Linear: Kimi delta attention, latent attention without positions in some layers, experts routed by sigmoids.

Paper: "Kimi Linear: An Expressive, Efficient Attention Architecture" (2025, 2510.26692).

The published config.json says which layers attend in `linear_attn_config`, counted from 1, and perceptrons without
experts are named `mlp`; that of transformers says it in `layer_types`, and names every block `block_sparse_moe`.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Shaped, Then
from runnel.model import ModelConfig

PAPERS = {"Kimi Linear: An Expressive, Efficient Attention Architecture": "2510.26692"}
MODEL_TYPES = ("kimi_linear",)
DEFAULTS = {
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "q_lora_rank": None, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128, "v_head_dim": 128, "attention_bias": False, "num_experts": 256,
    "num_experts_per_token": 8, "num_shared_experts": 1, "num_expert_group": 1, "topk_group": 1,
    "moe_renormalize": True, "moe_intermediate_size": 1024, "routed_scaling_factor": 2.446, "layer_types": None,
    "mlp_layer_types": None, "first_k_dense_replace": 1, "moe_layer_freq": 1, "moe_router_activation_func": "sigmoid",
    "use_grouped_topk": True, "mla_use_nope": True, "num_nextn_predict_layers": 0, "linear_attn_config": None,
    "linear_head_dim": 128, "linear_num_heads": 32, "linear_conv_kernel_dim": 4,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)
EXPERT = ("w1", "w3", "w2")
KDA = {
    "beta.weight": "b_proj.weight",
    "decay.map.0.weight": "f_a_proj.weight",
    "decay.map.1.weight": "f_b_proj.weight",
    "decay.bias": "dt_bias",
    "gate.0.weight": "g_a_proj.weight",
    "gate.1.weight": "g_b_proj.weight",
    "norm.weight": "o_norm.weight",
    "out.weight": "o_proj.weight",
}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(
        theirs, hidden_act="silu", attention_bias=False, moe_layer_freq=1, moe_router_activation_func="sigmoid",
        use_grouped_topk=True, mla_use_nope=True, num_nextn_predict_layers=0,
    )  # fmt: skip
    heads, width, taps = _delta_sizes(theirs)
    norms = {"key_eps": 1e-6, "norm_eps": theirs["rms_norm_eps"]}
    delta = parts.mixer("kda", heads=heads, head_dim=width, conv=taps, gate_bias=False, **norms)
    attention = parts.mixer(
        "latent_attention",
        heads=theirs["num_attention_heads"],
        head_dim=theirs["qk_nope_head_dim"],
        rotated=theirs["qk_rope_head_dim"],
        value_dim=theirs["v_head_dim"],
        rank=theirs["kv_lora_rank"],
        query_rank=theirs["q_lora_rank"],
        rope_base=None,
    )
    experts = parts.block(
        "moe",
        experts=theirs["num_experts"],
        active=theirs["num_experts_per_token"],
        hidden=theirs["moe_intermediate_size"],
        rescaled=theirs["moe_renormalize"],
        shared=theirs["moe_intermediate_size"] * theirs["num_shared_experts"],
        scores="sigmoid",
        scale=theirs["routed_scaling_factor"],
        corrected=True,
        groups=theirs["num_expert_group"],
        reached=theirs["topk_group"],
    )
    layers = [
        f"{attention if attends else delta}+{experts if routes else parts.gated(theirs)}"
        for attends, routes in _layers(theirs)
    ]
    return parts.decoder(theirs, layers)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    dense = "mlp" if theirs["mlp_layer_types"] is None else "block_sparse_moe"
    for i, (attends, routes) in enumerate(_layers(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.post_attention_layernorm.weight")
        yield from (_attention if attends else _delta)(f"{ours}.mixer", f"{own}.self_attn", theirs)
        if routes:
            yield from _experts(f"{ours}.block", f"{own}.block_sparse_moe", theirs)
        else:
            yield from parts.gated_entries(f"{ours}.block", f"{own}.{dense}", theirs["intermediate_size"])


def _delta(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    heads, width, taps = _delta_sizes(theirs)
    inner = heads * width
    for mine, name in KDA.items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")
    yield Entry(f"{ours}.decay.log_a", f"{own}.A_log", Shaped((heads, 1), (1, 1, heads, 1)))
    yield Entry(f"{ours}.inputs.project.weight", tuple(f"{own}.{x}_proj.weight" for x in "qkv"), Joined((inner,) * 3))
    filters = Then((Joined((inner,) * 3), Shaped((3 * inner, taps), (3 * inner, 1, taps))))
    yield Entry(f"{ours}.inputs.conv_weight", tuple(f"{own}.{x}_conv1d.weight" for x in "qkv"), filters)


def _attention(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    names = {"down": "kv_a_proj_with_mqa", "norm": "kv_a_layernorm", "up": "kv_b_proj", "out": "o_proj"}
    if theirs["q_lora_rank"] is None:
        names |= {"q": "q_proj"}
    else:
        names |= {"q.0": "q_a_proj", "q.1": "q_a_layernorm", "q.2": "q_b_proj"}
    for mine, name in names.items():
        yield Entry(f"{ours}.{mine}.weight", f"{own}.{name}.weight")


def _experts(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    count, hidden = theirs["num_experts"], theirs["moe_intermediate_size"]
    yield Entry(f"{ours}.router.weight", f"{own}.gate.weight")
    yield Entry(f"{ours}.correction", f"{own}.gate.e_score_correction_bias")
    yield from parts.expert_entries(ours, f"{own}.experts", count, hidden, EXPERT)
    shared = hidden * theirs["num_shared_experts"]
    names = tuple(f"{own}.shared_experts.{name}.weight" for name in ("gate_proj", "up_proj"))
    yield Entry(f"{ours}.up.{count}.weight", names, Joined((shared,) * 2))
    yield Entry(f"{ours}.out.{count}.weight", f"{own}.shared_experts.down_proj.weight")


def _delta_sizes(theirs: parts.Theirs) -> tuple[int, int, int]:
    """Heads, their width, and the taps of the convolution."""
    given: parts.Theirs = theirs["linear_attn_config"] or {}
    own = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim"}
    own |= {"short_conv_kernel_size": "linear_conv_kernel_dim"}
    heads, width, taps = [int(given.get(published, theirs[name])) for published, name in own.items()]
    return heads, width, taps


def _layers(theirs: parts.Theirs) -> list[tuple[bool, bool]]:
    """For each layer: does it attend, and does it route."""
    count, given = theirs["num_hidden_layers"], theirs["linear_attn_config"] or {}
    if theirs["layer_types"] is not None:
        attend = [kind == "full_attention" for kind in theirs["layer_types"]]
    elif "full_attn_layers" in given:
        attend = [i + 1 in given["full_attn_layers"] for i in range(count)]
    else:
        attend = [i > 0 and i % 4 == 0 for i in range(count)]
    kinds = theirs["mlp_layer_types"] or ["dense"] * theirs["first_k_dense_replace"] + ["sparse"] * count
    return [(attends, kind == "sparse") for attends, kind in zip(attend, kinds[:count], strict=True)]
