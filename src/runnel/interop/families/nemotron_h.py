"""Nemotron-H: Mamba-2, attention without positions, perceptrons and experts, each a layer of its own in their count.

Paper: "Nemotron-H: A Family of Accurate and Efficient Hybrid Mamba-Transformer Models" (2025, 2504.03624).

One of our layers is a mixer of theirs with the perceptron or the experts after it, if there are any. Experts that look
at a narrower copy of their input (`moe_latent_size`) are not supported.
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
    "use_bias": False, "num_nextn_predict_layers": 0, "n_routed_experts": 8, "n_shared_experts": 1,
    "moe_intermediate_size": 7688, "moe_shared_expert_intermediate_size": 7688, "moe_latent_size": None,
    "num_experts_per_tok": 2, "routed_scaling_factor": 1.0, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
}  # fmt: skip
"""num_hidden_layers is not written any more: the kinds of layers say how many there are."""
PREFIX = "backbone."
IGNORED = ()
MAMBA, ATTENTION, MLP, EXPERTS = "linear_attention", "full_attention", "mlp", "moe"
LETTERS = {"M": MAMBA, "*": ATTENTION, "-": MLP, "E": EXPERTS}
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
    layers = [
        f"{mamba if kind == MAMBA else attention}+{'none' if after is None else _block(theirs, after)}"
        for _, kind, after in _layers(theirs)
    ]
    return parts.decoder(theirs, layers, "layer_norm_epsilon")


def _block(theirs: parts.Theirs, kind: str) -> str:
    activation = parts.activation(theirs, "mlp_hidden_act")
    if kind == MLP:
        return parts.block("mlp", hidden=theirs["intermediate_size"], activation=activation, bias=theirs["mlp_bias"])
    parts.require(theirs, moe_latent_size=None, mlp_bias=False)
    return parts.block(
        "moe",
        experts=theirs["n_routed_experts"],
        active=theirs["num_experts_per_tok"],
        hidden=theirs["moe_intermediate_size"],
        rescaled=theirs["norm_topk_prob"],
        shared=theirs["moe_shared_expert_intermediate_size"],
        gated=False,
        activation=activation,
        scores="sigmoid",
        scale=theirs["routed_scaling_factor"],
        corrected=True,
        groups=theirs["n_group"],
        reached=theirs["topk_group"],
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    heads, width = theirs["mamba_num_heads"], theirs["conv_kernel"]
    channels = heads * theirs["mamba_head_dim"] + 2 * theirs["n_groups"] * theirs["ssm_state_size"]
    yield from parts.ends(theirs, "backbone.embeddings.weight", "backbone.norm_f.weight")
    for layer, (i, kind, after) in enumerate(_layers(theirs)):
        ours, own = f"layers.{layer}", f"backbone.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.norm.weight")
        if kind == MAMBA:
            biases = (theirs["use_bias"], theirs["use_conv_bias"])
            yield from parts.mamba2_entries(f"{ours}.mixer", f"{own}.mixer", *biases, channels, heads, width)
        else:
            yield from parts.attention_entries(f"{ours}.mixer", f"{own}.mixer", theirs, False, False)
        if after is not None:
            yield Entry(f"{ours}.block_norm.weight", f"backbone.layers.{i + 1}.norm.weight")
            entries = _perceptron if after == MLP else _experts
            yield from entries(f"{ours}.block", f"backbone.layers.{i + 1}.mixer", theirs)


def _perceptron(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    for mine, name in {"input": "up_proj", "out": "down_proj"}.items():
        for part in ("weight", "bias")[: 1 + theirs["mlp_bias"]]:
            yield Entry(f"{ours}.{mine}.{part}", f"{own}.{name}.{part}")


def _experts(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    count = theirs["n_routed_experts"]
    yield Entry(f"{ours}.router.weight", f"{own}.gate.weight")
    yield Entry(f"{ours}.correction", f"{own}.gate.e_score_correction_bias")
    for mine, name in {"up": "up_proj", "out": "down_proj"}.items():
        for e in range(count):
            yield Entry(f"{ours}.{mine}.{e}.weight", f"{own}.experts.{e}.{name}.weight")
        yield Entry(f"{ours}.{mine}.{count}.weight", f"{own}.shared_experts.{name}.weight")


def _layers(theirs: parts.Theirs) -> list[tuple[int, str, str | None]]:
    """Our layers: which one of theirs mixes, how, and what follows: a perceptron, experts or nothing."""
    kinds, layers = _kinds(theirs), list[tuple[int, str, str | None]]()
    for i, kind in enumerate(kinds):
        if kind in (MAMBA, ATTENTION):
            after = kinds[i + 1] if i + 1 < len(kinds) else None
            layers.append((i, kind, after if after in (MLP, EXPERTS) else None))
        elif kind not in (MLP, EXPERTS):
            raise ValueError(f"nemotron_h with layers of {kind!r} is not supported; only {', '.join(LETTERS.values())}")
        elif i == 0 or kinds[i - 1] in (MLP, EXPERTS):
            raise ValueError(f"a perceptron of nemotron_h must follow a mixer; layer {i} does not")
    return layers


def _kinds(theirs: parts.Theirs) -> list[str]:
    if theirs["layers_block_type"] is not None:
        return [OTHER_NAMES.get(kind, kind) for kind in theirs["layers_block_type"]]
    if theirs["hybrid_override_pattern"] is None:
        raise ValueError("nemotron_h needs layers_block_type or hybrid_override_pattern; got neither")
    return [LETTERS.get(letter, letter) for letter in theirs["hybrid_override_pattern"]]
