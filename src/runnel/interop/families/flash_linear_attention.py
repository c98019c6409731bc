"""Folders of flash-linear-attention: gated linear attention, DeltaNet and Gated DeltaNet, in its own layout.

Papers of the mixers: 2312.06635, 2406.06484, 2412.06464. The first two split the width of the model among their heads.

Not supported are layers of attention among others (`attn`), keys without a convolution, and values of another width
than keys' in DeltaNet. Their RWKV-7 has a page of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Shaped, Then
from runnel.model import ModelConfig

PAPERS: dict[str, str] = {}
MODEL_TYPES = ("gla", "delta_net", "gated_deltanet")
DEFAULTS = {
    "hidden_ratio": 4, "intermediate_size": None, "hidden_act": "swish", "norm_eps": 1e-6, "attn": None,
    "attnres_block_size": None, "allow_neg_eigval": False, "conv_size": 4, "num_v_heads": None, "head_dim": 256,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "gla": {
        "hidden_size": 2048, "num_hidden_layers": 24, "num_heads": 4, "expand_k": 0.5, "expand_v": 1.0,
        "num_kv_heads": None, "feature_map": None, "use_short_conv": False, "use_output_gate": True,
        "clamp_min": None, "elementwise_affine": True, "fuse_norm": True,
    },
    "delta_net": {
        "num_heads": 16, "expand_k": 1.0, "expand_v": 1.0, "use_gate": False, "use_short_conv": True,
        "use_beta": True, "qk_norm": "l2", "qk_activation": "silu",
    },
    "gated_deltanet": {"num_heads": 6, "expand_v": 2.0, "use_gate": True, "use_short_conv": True},
}  # fmt: skip
"""Defaults that differ from one to the other."""
PREFIX = "model."
IGNORED = ()
GLA = {
    "v.weight": "v_proj.weight",
    "gate.0.weight": "gk_proj.0.weight",
    "gate.1.weight": "gk_proj.1.weight",
    "gate.1.bias": "gk_proj.1.bias",
    "r.weight": "g_proj.weight",
    "out.weight": "o_proj.weight",
}
DELTA_NET = {"beta.weight": "b_proj.weight", "norm.weight": "o_norm.weight", "out.weight": "o_proj.weight"}
GATED = {
    "gate.weight": "g_proj.weight",
    "decay_bias": "dt_bias",
    "log_a": "A_log",
    "norm.weight": "o_norm.weight",
    "out.weight": "o_proj.weight",
}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, attn=None, attnres_block_size=None, hidden_act="swish")
    made = {"gla": _gla, "delta_net": _delta_net, "gated_deltanet": _gated}[theirs["model_type"]]
    block = parts.block("swiglu", hidden=_hidden(theirs))
    return parts.decoder(theirs, [f"{made(_own(theirs))}+{block}"] * theirs["num_hidden_layers"], "norm_eps")


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    made = {"gla": _gla_entries, "delta_net": _delta_net_entries, "gated_deltanet": _gated_entries}
    yield from parts.ends(theirs, "model.embeddings.weight", "model.norm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.attn_norm.weight")
        yield from made[theirs["model_type"]](f"{ours}.mixer", f"{own}.attn", _own(theirs))
        yield Entry(f"{ours}.block_norm.weight", f"{own}.mlp_norm.weight")
        yield from parts.gated_entries(f"{ours}.block", f"{own}.mlp", _hidden(theirs))


def _own(theirs: parts.Theirs) -> parts.Theirs:
    return {**OWN[theirs["model_type"]], **theirs}


def _hidden(theirs: parts.Theirs) -> int:
    """A multiple of 256 where it is not given."""
    asked = int(theirs["hidden_size"] * (theirs["hidden_ratio"] or 4) * 2 / 3)
    return theirs["intermediate_size"] or 256 * -(-asked // 256)


def _gla(theirs: parts.Theirs) -> str:
    parts.require(theirs, expand_v=1.0, num_kv_heads=None, feature_map=None, use_short_conv=False, use_output_gate=True)
    parts.require(theirs, clamp_min=None, elementwise_affine=True)
    width = theirs["hidden_size"] // theirs["num_heads"]
    return parts.mixer("gla", head_dim=width, expand_k=theirs["expand_k"], norm_eps=theirs["norm_eps"])


def _delta_net(theirs: parts.Theirs) -> str:
    parts.require(theirs, expand_k=1.0, expand_v=1.0, use_gate=False, use_short_conv=True, use_beta=True)
    parts.require(theirs, qk_norm="l2", qk_activation="silu")
    width = theirs["hidden_size"] // theirs["num_heads"]
    return parts.mixer("deltanet", head_dim=width, norm_eps=theirs["norm_eps"], **_rule(theirs))


def _gated(theirs: parts.Theirs) -> str:
    parts.require(theirs, use_gate=True, use_short_conv=True)
    sizes = {"heads": theirs["num_heads"], "value_heads": theirs["num_v_heads"], "head_dim": theirs["head_dim"]}
    rule = {"expand_v": theirs["expand_v"], "norm_eps": theirs["norm_eps"], **_rule(theirs)}
    return parts.mixer("gated_deltanet", **sizes, **rule)


def _rule(theirs: parts.Theirs) -> dict[str, float]:
    return {"conv": theirs["conv_size"], "key_eps": 1e-6, "beta_max": 2.0 if theirs["allow_neg_eigval"] else 1.0}


def _gla_entries(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    keys = theirs["num_heads"] * int(theirs["hidden_size"] // theirs["num_heads"] * theirs["expand_k"])
    yield Entry(f"{ours}.qk.weight", tuple(f"{own}.{x}_proj.weight" for x in "qk"), Joined((keys, keys)))
    norm = "g_norm_swish_gate" if theirs["fuse_norm"] else "g_norm"
    for mine, name in (GLA | {"norm.weight": f"{norm}.weight"}).items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")


def _delta_net_entries(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    yield from _inputs(f"{ours}.inputs.project", f"{ours}.inputs", own, (theirs["hidden_size"],) * 3, theirs)
    for mine, name in DELTA_NET.items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")


def _gated_entries(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    heads, width = theirs["num_v_heads"] or theirs["num_heads"], theirs["head_dim"]
    keys = theirs["num_heads"] * width
    sizes = (keys, keys, heads * round(width * theirs["expand_v"]))
    yield from _inputs(f"{ours}.qkv", ours, own, sizes, theirs)
    yield Entry(f"{ours}.rates.weight", (f"{own}.a_proj.weight", f"{own}.b_proj.weight"), Joined((heads, heads)))
    for mine, name in GATED.items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")


def _inputs(project: str, conv: str, own: str, sizes: tuple[int, ...], theirs: parts.Theirs) -> Iterator[Entry]:
    """q, k and v and the convolution over them."""
    channels, taps = sum(sizes), theirs["conv_size"]
    yield Entry(f"{project}.weight", tuple(f"{own}.{x}_proj.weight" for x in "qkv"), Joined(sizes))
    filters = Then((Joined(sizes), Shaped((channels, taps), (channels, 1, taps))))
    yield Entry(f"{conv}.conv_weight", tuple(f"{own}.{x}_conv1d.weight" for x in "qkv"), filters)
