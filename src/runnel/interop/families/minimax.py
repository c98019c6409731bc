"""MiniMax: lightning attention with softmax attention in some layers, experts in all, residuals taken after the norms.

Paper: "MiniMax-01: Scaling Foundation Models with Lightning Attention" (2025, 2501.08313).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from runnel.interop import parts
from runnel.interop.tables import Entry, Ordered
from runnel.model import ModelConfig

PAPERS = {"MiniMax-01: Scaling Foundation Models with Lightning Attention": "2501.08313"}
MODEL_TYPES = ("minimax",)
DEFAULTS = {
    "rms_norm_eps": 1e-5, "hidden_act": "silu", "num_key_value_heads": 8, "head_dim": None, "rope_theta": 1e6,
    "max_position_embeddings": 4096 * 32, "sliding_window": None, "num_experts_per_tok": 2, "num_local_experts": 8,
    "layer_types": None, "block_size": 256, "full_attn_alpha_factor": 1, "full_attn_beta_factor": 1,
    "linear_attn_alpha_factor": 1, "linear_attn_beta_factor": 1, "mlp_alpha_factor": 1, "mlp_beta_factor": 1,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("slope_rate", "query_decay", "key_decay", "diagonal_decay", "rotary_emb.inv_freq")
EXPERT = ("w1", "w3", "w2")
FACTORS = ("full_attn", "linear_attn", "mlp")


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    attention = parts.attention(theirs, window=theirs["sliding_window"])
    experts = parts.block(
        "moe",
        experts=theirs["num_local_experts"],
        active=theirs["num_experts_per_tok"],
        hidden=theirs["intermediate_size"],
    )
    kinds = _kinds(theirs)
    layers = [
        f"{attention if kind == 'full_attention' else _lightning(theirs, i)}+{experts}" for i, kind in enumerate(kinds)
    ]
    return parts.decoder(
        theirs, layers, place="through", carried=_factor(theirs, "alpha"), residual=_factor(theirs, "beta")
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    for i, kind in enumerate(_kinds(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.post_attention_layernorm.weight")
        if kind == "full_attention":
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, False, False)
        else:
            heads, width = theirs["num_attention_heads"], parts.head_width(theirs)
            by_kind = Ordered(parts.by_kind(heads, (width,) * 3))
            yield Entry(f"{ours}.mixer.qkv.weight", f"{own}.self_attn.qkv_proj.weight", by_kind)
            for mine, name in {"gate": "output_gate", "norm": "norm", "out": "out_proj"}.items():
                yield Entry(f"{ours}.mixer.{mine}.weight", f"{own}.self_attn.{name}.weight")
        yield Entry(f"{ours}.block.router.weight", f"{own}.block_sparse_moe.gate.weight")
        count, hidden = theirs["num_local_experts"], theirs["intermediate_size"]
        yield from parts.expert_entries(f"{ours}.block", f"{own}.block_sparse_moe.experts", count, hidden, EXPERT)


def constants(theirs: parts.Theirs) -> Iterator[tuple[str, Tensor]]:
    """The decays within a block of tokens, which they write beside the weights."""
    heads, size = theirs["num_attention_heads"], theirs["block_size"]
    steps = torch.arange(size) + 1
    apart = (steps[:, None] - steps[None, :])[None, None]
    for i, kind in enumerate(_kinds(theirs)):
        if kind != "full_attention":
            slope = ((1 / 2 ** (8 / heads)) ** (torch.arange(heads) + 1) * _rate(theirs, i))[:, None, None]
            own = f"model.layers.{i}.self_attn"
            yield f"{own}.slope_rate", slope
            yield f"{own}.query_decay", (-slope * steps[:, None]).exp()
            yield f"{own}.key_decay", (-slope * (size - steps[:, None])).exp()
            yield f"{own}.diagonal_decay", torch.where(apart >= 0, -(slope * apart), -torch.inf).exp()


def _rate(theirs: parts.Theirs, layer: int) -> float:
    """Deeper layers forget less."""
    return float(1 - layer / (theirs["num_hidden_layers"] - 1 + 1e-5) + 1e-5)


def _lightning(theirs: parts.Theirs, layer: int) -> str:
    return parts.mixer(
        "minimax_attention",
        heads=theirs["num_attention_heads"],
        head_dim=parts.head_width(theirs),
        rate=_rate(theirs, layer),
    )


def _factor(theirs: parts.Theirs, which: str) -> float:
    """What residuals (alpha) or outputs (beta) are multiplied by, which must be one number."""
    found = {float(theirs[f"{part}_{which}_factor"]) for part in FACTORS}
    if len(found) > 1:
        raise ValueError(f"minimax with several {which} factors is not supported; got {sorted(found)}")
    return found.pop()


def _kinds(theirs: parts.Theirs) -> list[str]:
    count = theirs["num_hidden_layers"]
    return theirs["layer_types"] or ["linear_attention" if i % 2 else "full_attention" for i in range(count)]
