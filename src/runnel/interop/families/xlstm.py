"""xLSTM: matrix cells and SwiGLU, logits with a cap.

Paper: "xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference" (2025, 2503.13427).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined
from runnel.model import ModelConfig

PAPERS = {"xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference": "2503.13427"}
MODEL_TYPES = ("xlstm",)
DEFAULTS = {
    "num_heads": 8, "use_bias": False, "add_out_norm": True, "norm_eps": 1e-6, "qk_dim_factor": 0.5,
    "v_dim_factor": 1.0, "ffn_proj_factor": 2.667, "ffn_round_up_to_multiple_of": 64, "gate_soft_cap": 15.0,
    "output_logit_soft_cap": 30.0, "weight_mode": "single",
}  # fmt: skip
PREFIX = "backbone."
IGNORED = ()
JOINED = {"qkvo": ("q", "k", "v", "ogate_preact"), "gates": ("igate_preact", "fgate_preact")}
BIASES = {"i_bias": "igate_preact", "f_bias": "fgate_preact"}
MLP = ("proj_up_gate", "proj_up", "proj_down")


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, use_bias=False, add_out_norm=True, weight_mode="single")
    cell = parts.mixer(
        "xlstm_large",
        heads=theirs["num_heads"],
        key_factor=theirs["qk_dim_factor"],
        value_factor=theirs["v_dim_factor"],
        cap=theirs["gate_soft_cap"],
        norm_eps=theirs["norm_eps"],
    )
    layer = f"{cell}+{parts.block('swiglu', hidden=_hidden(theirs))}"
    head = parts.part("heads", "categorical", cap=theirs["output_logit_soft_cap"])
    return parts.decoder(theirs, [layer] * theirs["num_hidden_layers"], "norm_eps", head=head)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    width, heads = theirs["hidden_size"], theirs["num_heads"]
    keys, values = int(width * theirs["qk_dim_factor"]), int(width * theirs["v_dim_factor"])
    sizes = {"qkvo": (keys, keys, values, values), "gates": (heads, heads)}
    yield from parts.ends(theirs, "backbone.embeddings.weight", "backbone.out_norm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"backbone.blocks.{i}"
        cell = f"{own}.mlstm_layer"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm_mlstm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.norm_ffn.weight")
        for mine, names in JOINED.items():
            weights = tuple(f"{cell}.{name}.weight" for name in names)
            yield Entry(f"{ours}.mixer.{mine}.weight", weights, Joined(sizes[mine]))
        for mine, name in BIASES.items():
            yield Entry(f"{ours}.mixer.{mine}", f"{cell}.{name}.bias")
        yield Entry(f"{ours}.mixer.norm", f"{cell}.multihead_norm.weight")
        yield Entry(f"{ours}.mixer.out.weight", f"{cell}.out_proj.weight")
        yield from parts.gated_entries(f"{ours}.block", f"{own}.ffn", _hidden(theirs), names=MLP)


def _hidden(theirs: parts.Theirs) -> int:
    """Width of the perceptrons, rounded up."""
    unit = theirs["ffn_round_up_to_multiple_of"]
    return int(-(-theirs["hidden_size"] * theirs["ffn_proj_factor"] // unit) * unit)
