"""What several families share: parts of patterns, rotary settings, the names of decoders that are built like Llama."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from runnel import catalog
from runnel.frame import Frame
from runnel.interop.tables import Entry, Joined, Shaped
from runnel.model import ModelConfig

Theirs = Mapping[str, Any]
"""The content of a config.json, completed by the family's defaults."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "squared_relu",
}


def activation(theirs: Theirs, field: str = "hidden_act") -> str:
    """Our name of an activation."""
    name = theirs[field]
    if name not in ACTIVATIONS:
        raise ValueError(f"{field} must be one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return ACTIVATIONS[name]


def require(theirs: Theirs, **values: Any) -> None:
    """ValueError where a field has a value that Runnel has no part for."""
    for field, wanted in values.items():
        if theirs[field] != wanted:
            raise ValueError(
                f"{theirs['model_type']} with {field} = {theirs[field]!r} is not supported; only {wanted!r}"
            )


def part(folder: str, name: str, **options: Any) -> str:
    """A page with its options as a pattern writes them; those that are its defaults are left out."""
    defaults = catalog.page(folder, name).Config()
    written = [f"{key}={value!r}" for key, value in options.items() if getattr(defaults, key) != value]
    return f"{name}({', '.join(written)})" if written else name


def mixer(name: str, **options: Any) -> str:
    return part("mixers", name, **options)


def block(name: str, **options: Any) -> str:
    return part("blocks", name, **options)


def norm(name: str, **options: Any) -> str:
    return part("norms", name, **options)


def pattern(layers: Sequence[str]) -> str:
    """Layers one after the other, equal neighbours written once."""
    runs = [(layer, len(list(same))) for layer, same in groupby(layers)]
    return ", ".join(layer if count == 1 else f"{layer}*{count}" for layer, count in runs)


def head_width(theirs: Theirs) -> int:
    return theirs.get("head_dim") or theirs["hidden_size"] // theirs["num_attention_heads"]


def rotation(theirs: Theirs, layer_type: str | None = None) -> dict[str, Any]:
    """Options rope_base, rope and rotated of attention. Reads the layout of transformers 5 (rope_parameters, perhaps by
    kind of layer) and the older one (rope_theta, rope_scaling, partial_rotary_factor).
    """
    given: Theirs = theirs.get("rope_parameters") or theirs.get("rope_scaling") or {}
    given = given.get(layer_type or "", given)
    width = head_width(theirs)
    share = given.get("partial_rotary_factor") or theirs.get("partial_rotary_factor") or 1.0
    rotated = int(width * share)
    return {
        "rope_base": float(given.get("rope_theta") or theirs.get("rope_theta") or 10_000.0),
        "rope": _stretched(theirs, given),
        "rotated": None if rotated == width else rotated,
    }


def _stretched(theirs: Theirs, given: Theirs) -> dict[str, Any] | None:
    kind = given.get("rope_type") or given.get("type") or "default"
    longest = theirs.get("max_position_embeddings") or 0
    trained = theirs.get("original_max_position_embeddings") or given.get("original_max_position_embeddings") or longest
    if kind == "default":
        return None
    if kind == "linear":
        return {"kind": "linear", "factor": float(given["factor"])}
    if kind == "dynamic":
        return {"kind": "dynamic", "factor": float(given["factor"]), "context": longest}
    if kind == "llama3":
        low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
        return {"kind": "llama3", "factor": float(given["factor"]), "context": trained, "low": low, "high": high}
    if kind == "yarn":
        return _yarn(given, trained, longest)
    raise ValueError(f"rope_type must be default, linear, dynamic, yarn or llama3; got {kind!r}")


def _yarn(given: Theirs, trained: int, longest: int) -> dict[str, Any]:
    if given.get("mscale") and given.get("mscale_all_dim"):
        raise ValueError("yarn with mscale and mscale_all_dim is not supported; only with attention_factor or neither")
    factor = given.get("factor") or longest / trained
    fast, slow = given.get("beta_fast") or 32, given.get("beta_slow") or 1
    options = {"kind": "yarn", "factor": float(factor), "context": trained, "fast": float(fast), "slow": float(slow)}
    if given.get("attention_factor") is not None:
        options["attention"] = float(given["attention_factor"])
    return options if given.get("truncate", True) else {**options, "whole": False}


def by_kind(heads: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Where rows that lie head by head, `sizes` of each kind, stand kind by kind."""
    total, starts = sum(sizes), [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(
        head * total + start + i
        for start, size in zip(starts, sizes, strict=True)
        for head in range(heads)
        for i in range(size)
    )


# ---- decoders that are built and named like Llama -------------------------------------------------------------------


def groups(theirs: Theirs) -> int:
    """Number of key and value heads."""
    return theirs.get("num_key_value_heads") or theirs["num_attention_heads"]


def attention(theirs: Theirs, layer_type: str | None = None, **options: Any) -> str:
    """The attention of a config.json that names things like Llama's; options: what else is to be said."""
    sizes = {"heads": theirs["num_attention_heads"], "head_dim": head_width(theirs), "kv_heads": groups(theirs)}
    return mixer("attention", **{**sizes, "qk_norm": False, **rotation(theirs, layer_type), **options})


def gated(theirs: Theirs, field: str = "hidden_act", **options: Any) -> str:
    """options: what else is to be said of swiglu."""
    return block("swiglu", hidden=theirs["intermediate_size"], activation=activation(theirs, field), **options)


def windows(theirs: Theirs, of_layer: Sequence[str] | None = None) -> list[int | None]:
    """The window of every layer: layer_types says which ones slide."""
    kinds = of_layer or theirs.get("layer_types")
    if kinds is None:
        return [theirs.get("sliding_window")] * theirs["num_hidden_layers"]
    return [theirs["sliding_window"] if kind == "sliding_attention" else None for kind in kinds]


def late_windows(theirs: Theirs) -> Sequence[str]:
    """layer_types of Qwen: given, or a window from a layer on."""
    if theirs["layer_types"]:
        return theirs["layer_types"]
    first = theirs["max_window_layers"] if theirs["use_sliding_window"] and theirs["sliding_window"] else None
    count = theirs["num_hidden_layers"]
    return ["full_attention" if first is None or i < first else "sliding_attention" for i in range(count)]


def decoder(theirs: Theirs, layers: Sequence[str], eps: str = "rms_norm_eps", **frame: Any) -> ModelConfig:
    """A model of `layers` with root-mean-square norms."""
    frame = {"norm": norm("rms", eps=theirs[eps]), "tied": theirs["tie_word_embeddings"], **frame}
    head = frame.pop("head", None)
    return ModelConfig(
        pattern(layers), theirs["hidden_size"], theirs["vocab_size"], channel=None, head=head, frame=Frame(**frame)
    )


def decoder_table(
    theirs: Theirs, bias: bool = False, out_bias: bool = False, mlp_bias: bool = False
) -> Iterator[Entry]:
    """All of a Llama's names."""
    yield from ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
        yield from attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, bias, out_bias)
        yield Entry(f"{ours}.block_norm.weight", f"{own}.post_attention_layernorm.weight")
        yield from gated_entries(f"{ours}.block", f"{own}.mlp", theirs["intermediate_size"], mlp_bias)


def attention_entries(
    ours: str, theirs: str, config: Theirs, bias: bool, out_bias: bool, out: str = "o_proj"
) -> Iterator[Entry]:
    """ours, theirs: the prefixes of the mixer, such as "layers.0.mixer" and "model.layers.0.self_attn"."""
    width = head_width(config)
    sizes = tuple(count * width for count in (config["num_attention_heads"], groups(config), groups(config)))
    for kind in ("weight", "bias")[: 1 + bias]:
        yield Entry(f"{ours}.qkv.{kind}", tuple(f"{theirs}.{x}_proj.{kind}" for x in "qkv"), Joined(sizes))
    for kind in ("weight", "bias")[: 1 + out_bias]:
        yield Entry(f"{ours}.out.{kind}", f"{theirs}.{out}.{kind}")


MLP = ("gate_proj", "up_proj", "down_proj")


def gated_entries(
    ours: str, theirs: str, hidden: int, bias: bool = False, names: Sequence[str] = MLP
) -> Iterator[Entry]:
    """A block of swiglu and what Llama calls an MLP. names: of its matrices for gate, value and out."""
    gate, value, out = names
    for kind in ("weight", "bias")[: 1 + bias]:
        pair = (f"{theirs}.{gate}.{kind}", f"{theirs}.{value}.{kind}")
        yield Entry(f"{ours}.gate_and_value.{kind}", pair, Joined((hidden, hidden)))
        yield Entry(f"{ours}.out.{kind}", f"{theirs}.{out}.{kind}")


def expert_entries(ours: str, theirs: str, count: int, hidden: int, names: Sequence[str] = MLP) -> Iterator[Entry]:
    """The experts of a block of moe, one after the other."""
    gate, value, out = names
    for e in range(count):
        yield Entry(
            f"{ours}.up.{e}.weight", tuple(f"{theirs}.{e}.{x}.weight" for x in (gate, value)), Joined((hidden,) * 2)
        )
        yield Entry(f"{ours}.out.{e}.weight", f"{theirs}.{e}.{out}.weight")


def ends(config: Theirs, embed: str, norm: str, head: str = "lm_head.weight") -> Iterator[Entry]:
    """Embedding, final norm (its weight) and head."""
    yield Entry("embed.weight", embed)
    yield Entry("norm.weight", norm)
    if not config["tie_word_embeddings"]:
        yield Entry("head.logits.weight", head)


# ---- Mamba, in whatever it is built into -----------------------------------------------------------------------------


def limits(given: Sequence[Any] | None) -> list[float] | None:
    """dt_range of mamba2; None where it limits nothing, as [0, infinity] does."""
    if given is None:
        return None
    low, high = (float(limit["__float__"] if isinstance(limit, dict) else limit) for limit in given)
    return None if low <= 0 and math.isinf(high) else [low, min(high, 1e30)]  # a pattern cannot say infinity


MAMBA = {
    "input.weight": "in_proj.weight",
    "select.weight": "x_proj.weight",
    "dt.weight": "dt_proj.weight",
    "dt_bias": "dt_proj.bias",
    "log_a": "A_log",
    "skip": "D",
    "out.weight": "out_proj.weight",
}


def mamba_entries(ours: str, theirs: str, bias: bool, conv_bias: bool, channels: int, width: int) -> Iterator[Entry]:
    """channels: what the convolution is over; width: its taps."""
    names = dict(MAMBA)
    if bias:
        names |= {"input.bias": "in_proj.bias", "out.bias": "out_proj.bias"}
    if conv_bias:
        names |= {"conv_bias": "conv1d.bias"}
    for mine, name in names.items():
        yield Entry(f"{ours}.{mine}", f"{theirs}.{name}")
    yield Entry(f"{ours}.conv_weight", f"{theirs}.conv1d.weight", Shaped((channels, width), (channels, 1, width)))


def mamba2(theirs: Theirs, **options: Any) -> str:
    """The Mamba-2 of a hybrid whose config.json names its sizes mamba_n_heads, mamba_d_state and so on."""
    require(theirs, hidden_act="silu")
    sizes = {
        "heads": theirs["mamba_n_heads"],
        "head_dim": _mamba2_width(theirs),
        "d_state": theirs["mamba_d_state"],
        "groups": theirs["mamba_n_groups"],
        "norm_groups": theirs["mamba_n_groups"],
        "conv": theirs["mamba_d_conv"],
        "bias": theirs["mamba_proj_bias"],
        "conv_bias": theirs["mamba_conv_bias"],
        "norm_eps": theirs["rms_norm_eps"],
        "dt_range": limits(theirs["time_step_limit"]),
    }
    return mixer("mamba2", **{**sizes, **options})


def mamba2_of(ours: str, theirs: str, config: Theirs) -> Iterator[Entry]:
    """The tensors of `mamba2`."""
    heads, width = config["mamba_n_heads"], config["mamba_d_conv"]
    channels = heads * _mamba2_width(config) + 2 * config["mamba_n_groups"] * config["mamba_d_state"]
    biases = (config["mamba_proj_bias"], config["mamba_conv_bias"])
    normed = config.get("mamba_rms_norm", True)
    yield from mamba2_entries(ours, theirs, *biases, channels=channels, heads=heads, width=width, normed=normed)


def _mamba2_width(theirs: Theirs) -> int:
    given = theirs["mamba_d_head"]
    inner = theirs.get("mamba_d_ssm") or theirs["mamba_expand"] * theirs["hidden_size"]
    return inner // theirs["mamba_n_heads"] if given == "auto" else given


def mamba2_entries(
    ours: str,
    theirs: str,
    bias: bool,
    conv_bias: bool,
    channels: int,
    heads: int,
    width: int,
    normed: bool = True,
) -> Iterator[Entry]:
    """channels: what the convolution is over; width: its taps; normed: its output has a norm."""
    names = {"input.weight": "in_proj.weight", "out.weight": "out_proj.weight", "dt_bias": "dt_bias", "log_a": "A_log"}
    if normed:
        names |= {"norm.weight": "norm.weight"}
    if bias:
        names |= {"input.bias": "in_proj.bias", "out.bias": "out_proj.bias"}
    if conv_bias:
        names |= {"conv_bias": "conv1d.bias"}
    for mine, name in names.items():
        yield Entry(f"{ours}.{mine}", f"{theirs}.{name}")
    yield Entry(f"{ours}.conv_weight", f"{theirs}.conv1d.weight", Shaped((channels, width), (channels, 1, width)))
    yield Entry(f"{ours}.skip", f"{theirs}.D", Shaped((heads, 1), (heads,)))
