"""Nemotron-H: Mamba-2, attention without positions and perceptrons, each a layer of its own in their count.

Paper: "Nemotron-H: A Family of Accurate and Efficient Hybrid Mamba-Transformer Models" (2025, 2504.03624).

One of our layers is a mixer of theirs with the perceptron after it, if there is one. Their experts (Nemotron 3) are not
supported: they are routed by sigmoids with corrections, which `moe` is not.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Nemotron-H: A Family of Accurate and Efficient Hybrid Mamba-Transformer Models": "2504.03624"}
MODEL_TYPES = ("nemotron_h",)
DEFAULTS = {
    "layer_norm_epsilon": 1e-5, "num_hidden_layers": 1, "layers_block_type": None, "hybrid_override_pattern": None,
    "num_key_value_heads": 8, "head_dim": 128, "sliding_window": None, "mlp_bias": False,
    "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "mamba_num_heads": 128, "mamba_head_dim": 64,
    "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4, "time_step_min": 1e-3, "use_conv_bias": True,
    "use_bias": False, "num_nextn_predict_layers": 0,
}  # fmt: skip
"""num_hidden_layers is not written any more: the kinds of layers say how many there are."""
PREFIX = "backbone."
IGNORED = ()
MAMBA, ATTENTION, MLP = "linear_attention", "full_attention", "mlp"
LETTERS = {"M": MAMBA, "*": ATTENTION, "-": MLP}
OTHER_NAMES = {"mamba": MAMBA, "attention": ATTENTION}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, mamba_hidden_act="silu", num_nextn_predict_layers=0)
    mamba = parts.mixer(
        "mamba2",
        heads=theirs["mamba_num_heads"],
        head_dim=theirs["mamba_head_dim"],
        d_state=theirs["ssm_state_size"],
        groups=theirs["n_groups"],
        norm_groups=theirs["n_groups"],
        conv=theirs["conv_kernel"],
        bias=theirs["use_bias"],
        conv_bias=theirs["use_conv_bias"],
        norm_eps=theirs["layer_norm_epsilon"],
        dt_range=parts.limits(
            (theirs["time_step_min"], "inf")
        ),  # their code reads neither time_step_limit nor attention_bias
    )
    attention = parts.attention(theirs, rotated=0, window=theirs["sliding_window"])
    perceptron = parts.block(
        "mlp",
        hidden=theirs["intermediate_size"],
        activation=parts.activation(theirs, "mlp_hidden_act"),
        bias=theirs["mlp_bias"],
    )
    layers = [
        f"{mamba if kind == MAMBA else attention}+{perceptron if with_mlp else 'none'}"
        for _, kind, with_mlp in _layers(theirs)
    ]
    return parts.decoder(theirs, layers, "layer_norm_epsilon")


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    heads, width = theirs["mamba_num_heads"], theirs["conv_kernel"]
    channels = heads * theirs["mamba_head_dim"] + 2 * theirs["n_groups"] * theirs["ssm_state_size"]
    yield from parts.ends(theirs, "backbone.embeddings.weight", "backbone.norm_f.weight")
    for layer, (i, kind, with_mlp) in enumerate(_layers(theirs)):
        ours, own = f"layers.{layer}", f"backbone.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm.weight")
        if kind == MAMBA:
            biases = (theirs["use_bias"], theirs["use_conv_bias"])
            yield from parts.mamba2_entries(f"{ours}.mixer", f"{own}.mixer", *biases, channels, heads, width)
        else:
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.mixer", theirs, False, False)
        if with_mlp:
            yield Entry(f"{ours}.block_norm.weight", f"backbone.layers.{i + 1}.norm.weight")
            for mine, name in {"input": "up_proj", "out": "down_proj"}.items():
                for part in ("weight", "bias")[: 1 + theirs["mlp_bias"]]:
                    yield Entry(f"{ours}.block.{mine}.{part}", f"backbone.layers.{i + 1}.mixer.{name}.{part}")


def _layers(theirs: parts.Theirs) -> list[tuple[int, str, bool]]:
    """Our layers: which one of theirs mixes, how, and whether a perceptron follows."""
    kinds, layers = _kinds(theirs), list[tuple[int, str, bool]]()
    for i, kind in enumerate(kinds):
        if kind in (MAMBA, ATTENTION):
            layers.append((i, kind, kinds[i + 1 : i + 2] == [MLP]))
        elif kind != MLP:
            raise ValueError(f"nemotron_h with layers of {kind!r} is not supported; only {', '.join(LETTERS.values())}")
        elif i == 0 or kinds[i - 1] == MLP:
            raise ValueError(f"a perceptron of nemotron_h must follow a mixer; layer {i} does not")
    return layers


def _kinds(theirs: parts.Theirs) -> list[str]:
    if theirs["layers_block_type"] is not None:
        return [OTHER_NAMES.get(kind, kind) for kind in theirs["layers_block_type"]]
    if theirs["hybrid_override_pattern"] is None:
        raise ValueError("nemotron_h needs layers_block_type or hybrid_override_pattern; got neither")
    return [LETTERS.get(letter, letter) for letter in theirs["hybrid_override_pattern"]]
