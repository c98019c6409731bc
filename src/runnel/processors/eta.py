"""Eta sampling: tokens below a probability that falls with the entropy of the law are removed.

Paper: "Truncation Sampling as Language Model Desmoothing" (2022, 2210.15191), section 4.

    h   = -sum_v p(v) log p(v)                                                         (1)
    eta = min(epsilon, sqrt(epsilon) exp(-h))                                          (2)
    keep v with p(v) > eta; the likeliest token always                                 (3)

sqrt(epsilon) is the paper's choice of alpha. epsilon 0 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS = {"Truncation Sampling as Language Model Desmoothing": "2210.15191"}


@dataclass(frozen=True)
class Config:
    """epsilon in [0, 1)."""

    epsilon: float = 0.0009

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon of eta must lie in [0, 1); got {self.epsilon}")


class Eta(Processor):
    config: Config
    stage = Stage.TRUNCATION

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        law = logits.softmax(-1)
        entropy = torch.special.entr(law).sum(-1, keepdim=True)  # eq. (1)
        eta = (math.sqrt(self.config.epsilon) * (-entropy).exp()).clamp(max=self.config.epsilon)  # eq. (2)
        kept = (law > eta) | (law == law.amax(-1, keepdim=True))
        return logits.masked_fill(~kept, -math.inf)  # eq. (3)


def reference(logits: Sequence[float], config: Config) -> list[float]:
    """One row, token by token."""
    total = sum(math.exp(logit) for logit in logits)
    law = [math.exp(logit) / total for logit in logits]
    entropy = -sum(p * math.log(p) for p in law if p > 0)
    eta = min(config.epsilon, math.sqrt(config.epsilon) * math.exp(-entropy))
    return [logit if p > eta or p == max(law) else -math.inf for logit, p in zip(logits, law, strict=True)]
