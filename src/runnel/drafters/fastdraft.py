"""FastDraft: a small model derived from the target's own layout, trained on text, then on what the target says.

Paper: "FastDraft: How to Train Your Draft" (2024, 2411.11055), section 3.

    1. derive:    the target's tokens and kinds of layers, but fewer and narrower
    2. pretrain:  next-token training on text (the objective `nested`: with one exit it is just that)
    3. align:     distillation on sequences that the target has written (the objective `fastdraft`)

    tau = (1 - alpha^(gamma + 1)) / (1 - alpha)      block efficiency: expected tokens a call of the target         (1)
    MBSU = c tau / (c + gamma),  c = size of the target over size of the draft       speed-up when memory-bound     (2)

| code | paper |
|---|---|
| rate | alpha, how likely a drafted token is accepted when those before it were |
| max_draft | gamma |
| layers, narrower | how many of the target's layers, and by what its width is divided |

Deviates: alpha is taken to be the same at every place and for every token, as in (1); how far that holds is measured
in `recipes/drafters.py`. A draft of any other layout is a model like every other: train it and give its folder to
`draft_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from runnel import patterns
from runnel.heads import categorical
from runnel.mixer import RMSNorm
from runnel.model import ModelConfig, layers_of
from runnel.trained import ChainedConfig
from runnel.trained.stack import sliced
from runnel.trained.staged import Staged

PAPERS = {"FastDraft: How to Train Your Draft": "2411.11055"}
TRAINED = True


@dataclass(frozen=True)
class Config(ChainedConfig):
    """layers: in [1, the target's]. narrower >= 1 divides the target's width."""

    layers: int = 1
    narrower: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        most, width = len(self.target.layers), self.target.config.d_model
        if not 1 <= self.layers <= most:
            raise ValueError(f"layers must lie in [1, {most}], the target's; got {self.layers}")
        if self.narrower < 1 or width % self.narrower:
            raise ValueError(f"narrower must divide the target's width {width}; got {self.narrower}")


class FastDraft(Staged):
    config: Config

    def make(self, d_model: int) -> None:
        vocab_size, width = self.target.head(self.target.norm.weight).shape[-1], d_model // self.config.narrower
        specs = derived(self.target.config, self.config.layers)
        self.embedding = nn.Embedding(vocab_size, width)
        layers = layers_of(specs, width, reads_tokens=True)
        self.stages = nn.ModuleList(sliced(layers, [], nn.Identity(), width, self.embedding))
        self.norm, self.head = RMSNorm(width), categorical.Categorical(width, vocab_size, categorical.Config())

    def enough(self, logits: Float[Tensor, "N V"]) -> Bool[Tensor, "N"]:
        return torch.ones(len(logits), dtype=torch.bool)


def derived(config: ModelConfig, count: int) -> Sequence[patterns.Layer]:
    """`count` layers of a model, spread over its depth so that a hybrid's draft is one too; the first among them."""
    layers = patterns.parse(config.pattern, config.channel, config.n_layers)
    return [layers[place * len(layers) // count] for place in range(count)]


def block_efficiency(rate: float, length: int) -> float:
    """Eq. (1). rate in [0, 1]; length >= 0 drafted tokens."""
    return float(length + 1) if rate == 1 else (1 - rate ** (length + 1)) / (1 - rate)


def memory_bound_speedup(rate: float, length: int, size_ratio: float) -> float:
    """Eq. (2). size_ratio > 0: bytes of the target over those of the draft."""
    return size_ratio * block_efficiency(rate, length) / (size_ratio + length)


def reference(rate: float, length: int) -> float:
    """Eq. (1) by its meaning: the mean of one token more than were accepted before the first that was not."""
    stopping = sum((count + 1) * rate**count * (1 - rate) for count in range(length))
    return stopping + (length + 1) * rate**length
