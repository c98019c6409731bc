"""RWKV-7 in flash-linear-attention's layout: time mixing and channel mixing in turn, a norm after the embedding.

Paper: "RWKV-7 \"Goose\" with Expressive Dynamic State Evolution" (2025, 2503.14456).

The values of the first layer go to all others (the link `value` of the mixer). Layers of attention among others
(`attn`) and values wider than keys are not supported.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.frame import Frame
from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Shaped, Then
from runnel.model import ModelConfig

PAPERS = {'RWKV-7 "Goose" with Expressive Dynamic State Evolution': "2503.14456"}
MODEL_TYPES = ("rwkv7",)
DEFAULTS = {
    "hidden_size": 2048, "num_hidden_layers": 24, "hidden_ratio": 4, "intermediate_size": None, "head_dim": 64,
    "num_heads": None, "decay_low_rank_dim": 64, "gate_low_rank_dim": 128, "a_low_rank_dim": 64,
    "v_low_rank_dim": 16, "hidden_act": "sqrelu", "norm_first": True, "norm_bias": True, "norm_eps": 1e-5,
    "attn": None, "fuse_norm": True, "value_dim": None,
}  # fmt: skip
PREFIX = "model."
IGNORED = ()
TIMES = {"decay": 2.5, "a": 2.5, "v": 1.7, "gate": 5.0}
"""Of the square root of the width: a rank that is left open."""
MIXER = {
    "r.weight": "r_proj.weight", "k.weight": "k_proj.weight", "v.weight": "v_proj.weight",
    "decay.0.weight": "w_lora.lora.0.weight", "decay.2.weight": "w_lora.lora.2.weight",
    "decay_bias": "w_lora.lora.2.bias", "rate.0.weight": "a_lora.lora.0.weight",
    "rate.1.weight": "a_lora.lora.2.weight", "rate_bias": "a_lora.lora.2.bias",
    "gate.0.weight": "g_lora.lora.0.weight", "gate.2.weight": "g_lora.lora.2.weight",
    "erase_scale": "k_k", "key_scale": "k_a", "bonus": "r_k", "norm.weight": "g_norm.weight",
    "norm.bias": "g_norm.bias", "out.weight": "o_proj.weight",
}  # fmt: skip
LATER = {
    "mix.0.weight": "v_lora.lora.0.weight", "mix.1.weight": "v_lora.lora.2.weight", "mix_bias": "v_lora.lora.2.bias",
}  # fmt: skip
"""What all layers but the first have too."""


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, attn=None, hidden_act="sqrelu")
    width = theirs["hidden_size"]
    if {width} != set(_each(theirs["value_dim"], width)):
        raise ValueError(f"rwkv7 with value_dim = {theirs['value_dim']!r} is not supported; only {width}, its width")
    time = parts.mixer(
        "rwkv7",
        head_dim=_head_width(theirs),
        ranks=[_rank(theirs, name) for name in TIMES],
        norm_eps=theirs["norm_eps"],
        key_eps=1e-6 if theirs["fuse_norm"] else 0.0,
    )
    channel = parts.mixer("channel_mix", gated=False, hidden=_hidden(theirs))
    norm = parts.norm("layer", eps=theirs["norm_eps"], bias=theirs["norm_bias"])
    frame = Frame(norm=norm, embedding_norm=theirs["norm_first"], tied=theirs["tie_word_embeddings"])
    pattern = ", ".join([f"{time}+none", f"{channel}+none"] * theirs["num_hidden_layers"])
    return ModelConfig(pattern, width, theirs["vocab_size"], channel=None, frame=frame)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    width, kinds = theirs["hidden_size"], ("weight", "bias")[: 1 + theirs["norm_bias"]]
    yield Entry("embed.weight", "model.embeddings.weight")
    if not theirs["tie_word_embeddings"]:
        yield Entry("head.logits.weight", "lm_head.weight")
    norms = {"norm": "norm"} | ({"embedding_norm": "layers.0.pre_norm"} if theirs["norm_first"] else {})
    for i in range(theirs["num_hidden_layers"]):
        time, channel, own = f"layers.{2 * i}", f"layers.{2 * i + 1}", f"model.layers.{i}"
        norms |= {f"{time}.mixer_norm": f"layers.{i}.attn_norm", f"{channel}.mixer_norm": f"layers.{i}.ffn_norm"}
        shifts = Then((Joined((1,) * 6), Shaped((6, width), (6, 1, width))))
        yield Entry(f"{time}.mixer.mu", tuple(f"{own}.attn.x_{letter}" for letter in "rwkvag"), shifts)
        for mine, name in (MIXER | (LATER if i else {})).items():
            yield Entry(f"{time}.mixer.{mine}", f"{own}.attn.{name}")
        yield Entry(f"{channel}.mixer.mu", f"{own}.ffn.x_k", Shaped((1, width), (width,)))
        yield Entry(f"{channel}.mixer.k.weight", f"{own}.ffn.key.weight")
        yield Entry(f"{channel}.mixer.out.weight", f"{own}.ffn.value.weight")
    for ours, name in norms.items():
        yield from (Entry(f"{ours}.{kind}", f"model.{name}.{kind}") for kind in kinds)


def _each(value_dim: int | list[int] | None, width: int) -> list[int]:
    return value_dim if isinstance(value_dim, list) else [value_dim or width]


def _head_width(theirs: parts.Theirs) -> int:
    return theirs["head_dim"] or theirs["hidden_size"] // theirs["num_heads"]


def _hidden(theirs: parts.Theirs) -> int:
    """A multiple of 32 where it is not given."""
    return theirs["intermediate_size"] or 32 * -(-int(theirs["hidden_size"] * (theirs["hidden_ratio"] or 4)) // 32)


def _rank(theirs: parts.Theirs, name: str) -> int:
    wider = 1.0 if name == "gate" else _head_width(theirs) / 64
    open_rank = max(32, round(TIMES[name] * theirs["hidden_size"] ** 0.5 * wider / 32) * 32)
    return theirs[f"{name}_low_rank_dim"] or open_rank
