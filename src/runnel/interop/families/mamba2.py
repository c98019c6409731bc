"""Mamba-2: checkpoints of the state-space model with one decay per head.

Paper: "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality"
(2024, 2405.21060).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {
    "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality": (
        "2405.21060"
    )
}
MODEL_TYPES = ("mamba2",)
DEFAULTS = {
    "layer_norm_epsilon": 1e-5, "state_size": 128, "expand": 2, "conv_kernel": 4, "use_bias": False, "n_groups": 8,
    "use_conv_bias": True, "hidden_act": "silu", "num_heads": 128, "head_dim": 64, "vocab_size": 32768,
    "hidden_size": 4096, "num_hidden_layers": 64, "time_step_limit": None,
}  # fmt: skip
PREFIX = "backbone."
IGNORED = ()


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_act="silu")
    layer = parts.mixer(
        "mamba2",
        heads=theirs["num_heads"],
        head_dim=theirs["head_dim"],
        d_state=theirs["state_size"],
        groups=theirs["n_groups"],
        norm_groups=theirs["n_groups"],
        conv=theirs["conv_kernel"],
        bias=theirs["use_bias"],
        conv_bias=theirs["use_conv_bias"],
        norm_eps=theirs["layer_norm_epsilon"],
        dt_range=parts.limits(theirs["time_step_limit"]),
    )
    return parts.decoder(theirs, [layer] * theirs["num_hidden_layers"], "layer_norm_epsilon")


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    inner = theirs["num_heads"] * theirs["head_dim"]
    mixed = inner + 2 * theirs["n_groups"] * theirs["state_size"]
    yield from parts.ends(theirs, "backbone.embeddings.weight", "backbone.norm_f.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"backbone.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm.weight")
        sizes = {"channels": mixed, "heads": theirs["num_heads"], "width": theirs["conv_kernel"]}
        biases = (theirs["use_bias"], theirs["use_conv_bias"])
        yield from parts.mamba2_entries(f"{ours}.mixer", f"{own}.mixer", *biases, **sizes)
