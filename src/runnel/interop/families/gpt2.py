"""GPT-2: learned positions, layer norms, biases everywhere, matrices stored as (inputs, outputs).

Report: "Language Models are Unsupervised Multitask Learners" (2019).
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.frame import Frame
from runnel.interop import parts
from runnel.interop.tables import Entry, Transposed
from runnel.model import ModelConfig

PAPERS = {"Language Models are Unsupervised Multitask Learners": ""}
MODEL_TYPES = ("gpt2",)
ALIASES = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers"}
DEFAULTS = {
    "n_positions": 1024, "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False,
    "tie_word_embeddings": True, "vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12,
}  # fmt: skip
PREFIX = "transformer."
IGNORED = ("attn.bias", "attn.masked_bias")
MATRICES = {
    "mixer.qkv": "attn.c_attn",
    "mixer.out": "attn.c_proj",
    "block.input": "mlp.c_fc",
    "block.out": "mlp.c_proj",
}
NORMS = {"mixer_norm": "ln_1", "block_norm": "ln_2"}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, add_cross_attention=False)
    width, count = theirs["n_embd"], theirs["n_layer"]
    block = parts.block(
        "mlp", hidden=theirs["n_inner"] or 4 * width, activation=parts.activation(theirs, "activation_function")
    )
    layers = [f"{_attention(theirs, i)}+{block}" for i in range(count)]
    norm = parts.norm("layer", eps=theirs["layer_norm_epsilon"])
    frame = Frame(norm=norm, positions=theirs["n_positions"], tied=theirs["tie_word_embeddings"])
    return ModelConfig(parts.pattern(layers), width, theirs["vocab_size"], channel=None, frame=frame)


def _attention(theirs: parts.Theirs, layer: int) -> str:
    scale = (theirs["n_embd"] // theirs["n_head"]) ** -0.5 if theirs["scale_attn_weights"] else 1.0
    scale = scale / (layer + 1) if theirs["scale_attn_by_inverse_layer_idx"] else scale
    plain = theirs["scale_attn_weights"] and not theirs["scale_attn_by_inverse_layer_idx"]
    options = {"bias": True, "out_bias": True, "rotated": 0, "qk_norm": False}
    return parts.mixer("attention", heads=theirs["n_head"], scale=None if plain else scale, **options)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "transformer.wte.weight", "transformer.ln_f.weight")
    yield Entry("norm.bias", "transformer.ln_f.bias")
    yield Entry("positions.weight", "transformer.wpe.weight")
    for i in range(theirs["n_layer"]):
        ours, own = f"layers.{i}", f"transformer.h.{i}"
        for mine, name in NORMS.items():
            for kind in ("weight", "bias"):
                yield Entry(f"{ours}.{mine}.{kind}", f"{own}.{name}.{kind}")
        for mine, name in MATRICES.items():
            yield Entry(f"{ours}.{mine}.weight", f"{own}.{name}.weight", Transposed())
            yield Entry(f"{ours}.{mine}.bias", f"{own}.{name}.bias")
