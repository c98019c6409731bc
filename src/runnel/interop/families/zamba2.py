"""Zamba2: Mamba-2 everywhere, and before some layers a transformer block that they share, with adapters of their own.

Paper: "The Zamba2 Suite: Technical Report" (2024, 2411.15242).

A checkpoint has each shared block once, under the first layer that uses it, and there also the adapters of all its
uses. Where the head is not tied, transformers shares no block either: not supported.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined
from runnel.model import ModelConfig

PAPERS = {"The Zamba2 Suite: Technical Report": "2411.15242"}
MODEL_TYPES = ("zamba2",)
DEFAULTS = {
    "hidden_size": 2560, "num_hidden_layers": 54, "layers_block_type": None, "layer_types": None, "mamba_d_state": 64,
    "mamba_d_conv": 4, "mamba_expand": 2, "mamba_ngroups": 1, "n_mamba_heads": 8, "time_step_min": 0.001,
    "use_conv_bias": True, "add_bias_linear": False, "intermediate_size": None, "hidden_act": "gelu",
    "num_attention_heads": 32, "num_key_value_heads": None, "num_mem_blocks": 1, "use_shared_attention_adapter": False,
    "adapter_rank": 128, "use_mem_rope": False, "rope_parameters": None, "rms_norm_eps": 1e-5,
    "use_long_context": False, "tie_word_embeddings": True,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)
HYBRID = [*range(6, 43, 6), 47, 51]
"""Layers with a shared block where a config.json does not say which."""


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, tie_word_embeddings=True)
    mamba, uses = _mamba(theirs), _uses(theirs)
    layers = []
    for i in range(theirs["num_hidden_layers"]):
        shared = f"{_shared(theirs, uses.index(i) % theirs['num_mem_blocks'])} > " if i in uses else ""
        layers.append(f"{shared}{mamba}+none")
    return parts.decoder(theirs, layers)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.final_layernorm.weight")
    uses, blocks = _uses(theirs), theirs["num_mem_blocks"]
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        if i not in uses:
            yield Entry(f"{ours}.mixer_norm.weight", f"{own}.input_layernorm.weight")
            yield from _mamba_entries(f"{ours}.mixer", f"{own}.mamba", theirs)
            continue
        yield Entry(f"{ours}.mixer.norm.weight", f"{own}.mamba_decoder.input_layernorm.weight")
        yield from _mamba_entries(f"{ours}.mixer.second", f"{own}.mamba_decoder.mamba", theirs)
        yield Entry(f"{ours}.mixer.first.out.weight", f"{own}.linear.weight")
        use = uses.index(i)
        home = f"model.layers.{uses[use % blocks]}.shared_transformer"
        if use < blocks:
            yield from _block_entries(f"{ours}.mixer.first.block", home, theirs)
        yield from _adapters(f"{ours}.mixer.first", home, use, theirs)


def _uses(theirs: parts.Theirs) -> list[int]:
    kinds = theirs["layers_block_type"] or theirs["layer_types"]
    if kinds is None:
        return [i for i in HYBRID if i < theirs["num_hidden_layers"]]
    return [i for i, kind in enumerate(kinds) if kind == "hybrid"]


def _shared(theirs: parts.Theirs, number: int) -> str:
    base, heads = _rotation(theirs), theirs["num_attention_heads"]
    return parts.mixer(
        "zamba2",
        share="abcdefghijklmnopqrstuvwxyz"[number],
        heads=heads,
        kv_heads=theirs["num_key_value_heads"] or heads,
        hidden=theirs["intermediate_size"] or 4 * theirs["hidden_size"],
        activation=parts.activation(theirs),
        rank=theirs["adapter_rank"],
        adapters=theirs["use_shared_attention_adapter"],
        rotated=base is not None,
        rope_base=base or 10_000.0,
        bias=theirs["add_bias_linear"],
        norm_eps=theirs["rms_norm_eps"],
    )


def _rotation(theirs: parts.Theirs) -> float | None:
    """The base of the rotation, None where there is none."""
    if not theirs["use_mem_rope"]:
        return None
    width = 2 * theirs["hidden_size"] // theirs["num_attention_heads"]
    found = parts.rotation({**theirs, "head_dim": width})
    if found["rope"] is not None or found["rotated"] is not None:
        raise ValueError(f"zamba2 with rope_parameters = {theirs['rope_parameters']!r} is not supported")
    return found["rope_base"]


def _mamba(theirs: parts.Theirs) -> str:
    heads, groups = theirs["n_mamba_heads"], theirs["mamba_ngroups"]
    return parts.mixer(
        "mamba2",
        heads=heads,
        head_dim=int(theirs["mamba_expand"] * theirs["hidden_size"]) // heads,
        d_state=theirs["mamba_d_state"],
        groups=groups,
        norm_groups=groups,
        conv=theirs["mamba_d_conv"],
        bias=theirs["add_bias_linear"],
        norm_eps=1e-5,
        dt_range=parts.limits((theirs["time_step_min"], float("inf"))),
    )


def _mamba_entries(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    channels = int(theirs["mamba_expand"] * theirs["hidden_size"])
    channels += 2 * theirs["mamba_ngroups"] * theirs["mamba_d_state"]
    bias, heads = theirs["add_bias_linear"], theirs["n_mamba_heads"]
    yield from parts.mamba2_entries(ours, own, bias, True, channels, heads, theirs["mamba_d_conv"])


def _block_entries(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    yield Entry(f"{ours}.norm.weight", f"{own}.input_layernorm.weight")
    yield Entry(f"{ours}.block_norm.weight", f"{own}.pre_ff_layernorm.weight")
    joined = tuple(f"{own}.self_attn.{x}_proj.weight" for x in "qkv")
    yield Entry(f"{ours}.qkv.weight", joined, Joined(_sizes(theirs)))
    yield Entry(f"{ours}.project.weight", f"{own}.self_attn.o_proj.weight")
    for kind in ("weight", "bias")[: 1 + theirs["add_bias_linear"]]:
        yield Entry(f"{ours}.gate_and_value.{kind}", f"{own}.feed_forward.gate_up_proj.{kind}")
        yield Entry(f"{ours}.down.{kind}", f"{own}.feed_forward.down_proj.{kind}")


def _adapters(ours: str, own: str, use: int, theirs: parts.Theirs) -> Iterator[Entry]:
    """Those of a block's use: `use` counts all uses of all blocks."""
    for half in (0, 1):
        adapter = f"{own}.feed_forward.gate_up_proj_adapter_list.{use}.{half}.weight"
        yield Entry(f"{ours}.block_adapter.{half}.weight", adapter)
        if theirs["use_shared_attention_adapter"]:
            for i, x in enumerate("qkv"):
                adapter = f"{own}.self_attn.linear_{x}_adapter_list.{use}.{half}.weight"
                yield Entry(f"{ours}.adapters.{i}.{half}.weight", adapter)


def _sizes(theirs: parts.Theirs) -> tuple[int, int, int]:
    """Widths of q, k and v."""
    heads = theirs["num_attention_heads"]
    width = 2 * theirs["hidden_size"] // heads
    return heads * width, *[(theirs["num_key_value_heads"] or heads) * width] * 2
