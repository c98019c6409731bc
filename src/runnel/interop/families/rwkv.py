"""RWKV-4: time mixing and channel mixing in turn, layer norms, one more of them after the embedding.

Paper: "RWKV: Reinventing RNNs for the Transformer Era" (2023, 2305.13048).

Two of our layers are one of theirs. Their `rescale_every` halves weights and activations for half precision, which
changes no output.
"""

from __future__ import annotations

from collections.abc import Iterator

from runnel.frame import Frame
from runnel.interop import parts
from runnel.interop.tables import Entry, Joined, Shaped, Then
from runnel.model import ModelConfig

PAPERS = {"RWKV: Reinventing RNNs for the Transformer Era": "2305.13048"}
MODEL_TYPES = ("rwkv",)
DEFAULTS = {"attention_hidden_size": None, "intermediate_size": None, "layer_norm_epsilon": 1e-5}
PREFIX = "rwkv."
IGNORED = ()
TIME = {"r": "receptance", "k": "key", "v": "value", "out": "output"}
CHANNEL = {"r": "receptance", "k": "key", "out": "value"}


def model_config(theirs: parts.Theirs) -> ModelConfig:
    parts.require(theirs, layer_norm_epsilon=1e-5)  # their last norm has this one in any case
    if (theirs["attention_hidden_size"] or theirs["hidden_size"]) != theirs["hidden_size"]:
        raise ValueError("rwkv with an attention_hidden_size of its own is not supported")
    layers = ["rwkv4+none", f"{parts.mixer('channel_mix', hidden=_hidden(theirs))}+none"] * theirs["num_hidden_layers"]
    frame = Frame(norm=parts.norm("layer"), embedding_norm=True, tied=theirs["tie_word_embeddings"])
    return ModelConfig(", ".join(layers), theirs["hidden_size"], theirs["vocab_size"], channel=None, frame=frame)


def table(theirs: parts.Theirs) -> Iterator[Entry]:
    width = theirs["hidden_size"]
    yield from parts.ends(theirs, "rwkv.embeddings.weight", "rwkv.ln_out.weight", "head.weight")
    yield Entry("norm.bias", "rwkv.ln_out.bias")
    for kind in ("weight", "bias"):
        yield Entry(f"embedding_norm.{kind}", f"rwkv.blocks.0.pre_ln.{kind}")
    for i in range(theirs["num_hidden_layers"]):
        own, parts_of = f"rwkv.blocks.{i}", (("ln1", "attention", TIME, "rkv"), ("ln2", "feed_forward", CHANNEL, "rk"))
        for layer, (norm, name, matrices, mixed) in enumerate(parts_of, start=2 * i):
            ours, count = f"layers.{layer}", len(mixed)
            for kind in ("weight", "bias"):
                yield Entry(f"{ours}.mixer_norm.{kind}", f"{own}.{norm}.{kind}")
            for mine, matrix in matrices.items():
                yield Entry(f"{ours}.mixer.{mine}.weight", f"{own}.{name}.{matrix}.weight")
            names = tuple(f"{own}.{name}.time_mix_{TIME[letter]}" for letter in mixed)
            shape = (1, count, width) if name == "attention" else (count, width)
            yield Entry(f"{ours}.mixer.mu", names, Then((Joined((1,) * count), Shaped(shape, (count, 1, width)))))
        for mine, name in {"decay": "time_decay", "bonus": "time_first"}.items():
            yield Entry(f"layers.{2 * i}.mixer.{mine}", f"{own}.attention.{name}", Shaped((1, width), (width,)))


def _hidden(theirs: parts.Theirs) -> int:
    return theirs["intermediate_size"] or 4 * theirs["hidden_size"]
