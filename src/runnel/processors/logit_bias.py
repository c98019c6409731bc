"""Logit bias: a number added to the logits of given tokens, to favour, disfavour or ban them.

    l'_v = l_v + b_v                                                                   (1)

-inf bans a token. b_v = 0 changes nothing. Tokens that are left out have b_v = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """bias: token -> what is added to its logit, in nats; finite or -inf."""

    bias: Mapping[int, float]

    def __post_init__(self) -> None:
        for token, value in self.bias.items():
            if not value < math.inf:
                raise ValueError(f"a logit_bias must be a finite number or -inf; got {value} for token {token}")


class LogitBias(Processor):
    config: Config
    stage = Stage.BIAS

    def check(self, vocab_size: int, stops: frozenset[int], limit: int) -> None:
        for token in self.config.bias:
            if not 0 <= token < vocab_size:
                raise ValueError(f"logit_bias must name tokens in [0, {vocab_size}); got {token}")

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        added = torch.zeros_like(logits[0])
        added[list(self.config.bias)] = torch.tensor(list(self.config.bias.values()), dtype=logits.dtype)
        return logits + added  # eq. (1)


def reference(logits: Sequence[float], config: Config) -> list[float]:
    return [logit + config.bias.get(token, 0.0) for token, logit in enumerate(logits)]
