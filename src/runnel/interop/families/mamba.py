"""Mamba: checkpoints of the first selective state-space model, and Falcon Mamba, which normalises what it selects with.

Papers: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, 2312.00752); "Falcon Mamba: The First
Competitive Attention-free 7B Language Model" (2024, 2410.05355).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {
    "Mamba: Linear-Time Sequence Modeling with Selective State Spaces": "2312.00752",
    "Falcon Mamba: The First Competitive Attention-free 7B Language Model": "2410.05355",
}
MODEL_TYPES = ("mamba", "falcon_mamba")
DEFAULTS = {
    "layer_norm_epsilon": 1e-5, "state_size": 16, "expand": 2, "conv_kernel": 4, "use_bias": False,
    "use_conv_bias": True, "hidden_act": "silu", "time_step_rank": "auto", "tie_word_embeddings": True,
    "mixer_rms_eps": 1e-6, "vocab_size": 50280, "hidden_size": 768, "num_hidden_layers": 32,
}  # fmt: skip
PREFIX = "backbone."
IGNORED = ()


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    rank = theirs["time_step_rank"]
    options = {
        "inner": _inner(theirs),
        "d_state": theirs["state_size"],
        "conv": theirs["conv_kernel"],
        "rank": -(-theirs["hidden_size"] // 16) if rank == "auto" else rank,
        "bias": theirs["use_bias"],
        "conv_bias": theirs["use_conv_bias"],
    }
    if theirs["model_type"] == "falcon_mamba":
        options |= {"select_norm": "plain", "norm_eps": theirs["mixer_rms_eps"]}
    return parts.decoder(theirs, [parts.mixer("mamba", **options)] * theirs["num_hidden_layers"], "layer_norm_epsilon")


def _inner(theirs: parts.Theirs) -> int:
    return int(theirs["expand"] * theirs["hidden_size"])


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    sizes = {"channels": _inner(theirs), "width": theirs["conv_kernel"]}
    biases = (theirs["use_bias"], theirs["use_conv_bias"])
    yield from parts.ends(theirs, "backbone.embeddings.weight", "backbone.norm_f.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"backbone.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm.weight")
        yield from parts.mamba_entries(f"{ours}.mixer", f"{own}.mixer", *biases, **sizes)
