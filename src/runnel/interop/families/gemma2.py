"""Gemma 2: norms around every part, scores and logits with a cap, every other layer with a window, scaled embeddings.

Paper: "Gemma 2: Improving Open Language Models at a Practical Size" (2024, 2408.00118).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.interop import parts
from runnel.interop.tables import Entry
from runnel.model import ModelConfig

PAPERS = {"Gemma 2: Improving Open Language Models at a Practical Size": "2408.00118"}
MODEL_TYPES = ("gemma2",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": 4, "head_dim": 256,
    "attention_bias": False, "query_pre_attn_scalar": 256, "sliding_window": 4096, "layer_types": None,
    "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0, "use_bidirectional_attention": None,
    "max_position_embeddings": 8192, "tie_word_embeddings": True,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq",)
NORMS = {
    "mixer_norm": "input_layernorm",
    "mixer_norm_after": "post_attention_layernorm",
    "block_norm": "pre_feedforward_layernorm",
    "block_norm_after": "post_feedforward_layernorm",
}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    if theirs["use_bidirectional_attention"]:
        raise ValueError("gemma2 with use_bidirectional_attention is not a model of what comes next")
    count, bias = theirs["num_hidden_layers"], theirs["attention_bias"]
    kinds = theirs["layer_types"] or ["full_attention" if i % 2 else "sliding_attention" for i in range(count)]
    scores = {"scale": theirs["query_pre_attn_scalar"] ** -0.5, "cap": theirs["attn_logit_softcapping"]}
    block = parts.gated(theirs, "hidden_activation")
    layers = [
        f"{parts.attention(theirs, window=w, bias=bias, out_bias=bias, **scores)}+{block}"
        for w in parts.windows(theirs, kinds)
    ]
    return parts.decoder(
        theirs,
        layers,
        norm=parts.norm("rms", eps=theirs["rms_norm_eps"], offset=1.0),
        place="around",
        embedding=theirs["hidden_size"] ** 0.5,
        head=parts.part("heads", "categorical", cap=theirs["final_logit_softcapping"]),
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    bias = theirs["attention_bias"]
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.norm.weight")
    for i in range(theirs["num_hidden_layers"]):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        for mine, name in NORMS.items():
            yield Entry(f"{ours}.{mine}.weight", f"{own}.{name}.weight")
        yield from parts.attention_entries(f"{ours}.mixer", f"{own}.self_attn", theirs, bias, bias)
        yield from parts.gated_entries(f"{ours}.block", f"{own}.mlp", theirs["intermediate_size"])
