"""Folders of the authors of Mamba and Mamba-2 (package mamba_ssm): a config.json without a model_type, and a .bin file.

Papers: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, 2312.00752); "Transformers are SSMs:
Generalized Models and Efficient Algorithms Through Structured State Space Duality" (2024, 2405.21060).

Their vocabulary is padded to a multiple of a number, and their head is written also where it is the embedding. Export
writes safetensors of the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {
    "Mamba: Linear-Time Sequence Modeling with Selective State Spaces": "2312.00752",
    "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality": (
        "2405.21060"
    ),
}
MODEL_TYPES = ("mamba_ssm",)
ALIASES = {"d_model": "hidden_size", "n_layer": "num_hidden_layers", "tie_embeddings": "tie_word_embeddings"}
DEFAULTS = {
    "d_model": 2560, "n_layer": 64, "vocab_size": 50277, "pad_vocab_size_multiple": 8, "tie_embeddings": True,
    "rms_norm": True, "attn_layer_idx": [], "d_intermediate": 0, "ssm_cfg": {},
}  # fmt: skip
PREFIX = "backbone."
IGNORED = ()
EPS = 1e-5
SIZES: dict[str, Any] = {"expand": 2, "d_conv": 4, "bias": False, "conv_bias": True}
SIZES_1 = {**SIZES, "d_state": 16, "dt_rank": "auto"}
SIZES_2 = {**SIZES, "d_state": 128, "headdim": 64, "ngroups": 1, "rmsnorm": True, "D_has_hdim": False}
SIZES_2 |= {"norm_before_gate": False, "dt_limit": None, "d_ssm": None}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, rms_norm=True, attn_layer_idx=[], d_intermediate=0)
    multiple = theirs["pad_vocab_size_multiple"]
    padded = -(-theirs["vocab_size"] // multiple) * multiple
    mixer = _mixer_2(theirs) if _second(theirs) else _mixer_1(theirs)
    whole = {**theirs, "vocab_size": padded, "eps": EPS}
    return parts.decoder(whole, [mixer] * theirs["n_layer"], "eps")


def _second(theirs: parts.Theirs) -> bool:
    return theirs["ssm_cfg"].get("layer", "Mamba1") == "Mamba2"


def _sizes(theirs: parts.Theirs) -> dict[str, Any]:
    return {"model_type": "mamba_ssm", **(SIZES_2 if _second(theirs) else SIZES_1), **theirs["ssm_cfg"]}


def _mixer_1(theirs: parts.Theirs) -> str:
    sizes, width = _sizes(theirs), theirs["d_model"]
    rank = -(-width // 16) if sizes["dt_rank"] == "auto" else sizes["dt_rank"]
    biases = {"bias": sizes["bias"], "conv_bias": sizes["conv_bias"]}
    inner = int(sizes["expand"] * width)
    return parts.mixer("mamba", inner=inner, d_state=sizes["d_state"], conv=sizes["d_conv"], rank=rank, **biases)


def _mixer_2(theirs: parts.Theirs) -> str:
    sizes = _sizes(theirs)
    parts.require(sizes, rmsnorm=True, D_has_hdim=False, norm_before_gate=False, d_ssm=None)
    return parts.mixer(
        "mamba2",
        heads=_heads(theirs),
        head_dim=sizes["headdim"],
        d_state=sizes["d_state"],
        groups=sizes["ngroups"],
        norm_groups=sizes["ngroups"],
        norm_eps=EPS,
        conv=sizes["d_conv"],
        bias=sizes["bias"],
        conv_bias=sizes["conv_bias"],
        dt_range=parts.limits(sizes["dt_limit"]),
    )


def _heads(theirs: parts.Theirs) -> int:
    sizes = _sizes(theirs)
    return int(sizes["expand"] * theirs["d_model"]) // sizes["headdim"]


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    sizes, inner = _sizes(theirs), int(_sizes(theirs)["expand"] * theirs["d_model"])
    biases, width = (sizes["bias"], sizes["conv_bias"]), sizes["d_conv"]
    yield from parts.ends(theirs, "backbone.embedding.weight", "backbone.norm_f.weight")
    for i in range(theirs["n_layer"]):
        ours, own = f"layers.{i}", f"backbone.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm.weight")
        names = (f"{ours}.mixer", f"{own}.mixer", *biases)
        if _second(theirs):
            mixed = inner + 2 * sizes["ngroups"] * sizes["d_state"]
            yield from parts.mamba2_entries(*names, channels=mixed, heads=_heads(theirs), width=width)
        else:
            yield from parts.mamba_entries(*names, channels=inner, width=width)
