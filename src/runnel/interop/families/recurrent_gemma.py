"""RecurrentGemma: two layers of gated linear recurrence to one of local attention, as in Griffin.

Paper: "RecurrentGemma: Moving Past Transformers for Efficient Open Language Models" (2024, 2404.07839).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Shaped, Then
from runnel.model import ModelConfig

PAPERS = {"RecurrentGemma: Moving Past Transformers for Efficient Open Language Models": "2404.07839"}
MODEL_TYPES = ("recurrent_gemma",)
DEFAULTS = {
    "rms_norm_eps": 1e-6, "hidden_activation": "gelu_pytorch_tanh", "num_key_value_heads": None, "lru_width": None,
    "attention_window_size": 2048, "conv1d_width": 4, "logits_soft_cap": 30.0, "attention_bias": False,
    "block_types": ["recurrent", "recurrent", "attention"], "partial_rotary_factor": 0.5, "tie_word_embeddings": True,
}  # fmt: skip
PREFIX = "model."
IGNORED = ("rotary_emb.inv_freq", "model.normalizer")
RECURRENT = {
    "conv_bias": "conv_1d.bias",
    "decay": "rg_lru.recurrent_param",
    "out.weight": "linear_out.weight",
    "out.bias": "linear_out.bias",
}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, hidden_activation="gelu_pytorch_tanh")
    bias, window = theirs["attention_bias"], theirs["attention_window_size"]
    attention = parts.attention(theirs, window=window, bias=bias, out_bias=True)
    width = _width(theirs)
    recurrent = parts.mixer(
        "rg_lru", width=width, head_dim=width // theirs["num_attention_heads"], conv=theirs["conv1d_width"]
    )
    block = parts.block("swiglu", hidden=_hidden(theirs), activation="gelu_tanh", bias=True)
    layers = [f"{recurrent if kind == 'recurrent' else attention}+{block}" for kind in _kinds(theirs)]
    return parts.decoder(
        theirs,
        layers,
        norm=parts.norm("rms", eps=theirs["rms_norm_eps"], offset=1.0),
        embedding=float(
            torch.tensor(theirs["hidden_size"] ** 0.5, dtype=torch.bfloat16, device="cpu")
        ),  # so in any dtype
        head=parts.part("heads", "categorical", cap=theirs["logits_soft_cap"]),
    )


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    yield from parts.ends(theirs, "model.embed_tokens.weight", "model.final_norm.weight")
    for i, kind in enumerate(_kinds(theirs)):
        ours, own = f"layers.{i}", f"model.layers.{i}"
        yield Entry(f"{ours}.mixer_norm.weight", f"{own}.temporal_pre_norm.weight")
        yield Entry(f"{ours}.block_norm.weight", f"{own}.channel_pre_norm.weight")
        yield from parts.gated_entries(f"{ours}.block", f"{own}.mlp_block", _hidden(theirs), bias=True)
        mixer, block = f"{ours}.mixer", f"{own}.temporal_block"
        if kind == "recurrent":
            yield from _recurrent(mixer, block, theirs)
        else:
            yield from parts.attention_entries(mixer, block, theirs, theirs["attention_bias"], True)


def _recurrent(ours: str, own: str, theirs: parts.Theirs) -> Iterator[Entry]:
    width, heads, taps = _width(theirs), theirs["num_attention_heads"], theirs["conv1d_width"]
    block = width // heads
    for mine, name in RECURRENT.items():
        yield Entry(f"{ours}.{mine}", f"{own}.{name}")
    yield Entry(f"{ours}.conv_weight", f"{own}.conv_1d.weight", Shaped((width, taps), (width, 1, taps)))
    for kind in ("weight", "bias"):
        names = (f"{own}.linear_x.{kind}", f"{own}.linear_y.{kind}")
        yield Entry(f"{ours}.x_and_y.{kind}", names, Joined((width, width)))
        names = (f"{own}.rg_lru.recurrent_gate_{kind}", f"{own}.rg_lru.input_gate_{kind}")
        shapes = (
            ((2, heads, block, block), (2 * heads, block, block))
            if kind == "weight"
            else ((2, width), (2 * heads, block))
        )
        yield Entry(
            f"{ours}.gates" if kind == "weight" else f"{ours}.gate_bias",
            names,
            Then((Joined((heads, heads)), Shaped(*shapes))),
        )


def _kinds(theirs: parts.Theirs) -> list[str]:
    cycle = theirs["block_types"]
    return [cycle[i % len(cycle)] for i in range(theirs["num_hidden_layers"])]


def _width(theirs: parts.Theirs) -> int:
    return theirs["lru_width"] or theirs["hidden_size"]


def _hidden(theirs: parts.Theirs) -> int:
    return theirs["intermediate_size"] // 2
