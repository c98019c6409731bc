"""Locally typical sampling: tokens whose surprise is near the expected surprise, as many as carry a given mass.

Paper: "Locally Typical Sampling" (2022, 2202.00666), section 4.

    H    = -sum_v p(v) log p(v)                                                        (1)
    e(v) = |H + log p(v)|                                                              (2)
    keep the smallest set of least e whose mass reaches `mass`                         (3)

| code | paper |
|---|---|
| mass | tau |

The likeliest token may be removed: where the law is flat but for a peak, the peak is untypical. Ties go to the lower
token. mass 1 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS = {"Locally Typical Sampling": "2202.00666"}


@dataclass(frozen=True)
class Config:
    """mass in (0, 1]."""

    mass: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.mass <= 1:
            raise ValueError(f"mass of typical must lie in (0, 1]; got {self.mass}")


class Typical(Processor):
    config: Config
    stage = Stage.TRUNCATION

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        if self.config.mass == 1:
            return logits
        law = logits.log_softmax(-1)
        entropy = torch.special.entr(law.exp()).sum(-1, keepdim=True)  # eq. (1)
        order = (entropy + law).abs().sort(dim=-1, stable=True).indices  # eq. (2)
        ordered = law.exp().gather(-1, order)
        before = ordered.cumsum(-1) - ordered
        before[..., 0] = 0.0
        removed = torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= self.config.mass)
        return logits.masked_fill(removed, -math.inf)  # eq. (3)


def reference(logits: Sequence[float], config: Config) -> list[float]:
    """One row, token after token in the order of eq. (2)."""
    total = sum(math.exp(logit) for logit in logits)
    law = [math.exp(logit) / total for logit in logits]
    entropy = -sum(p * math.log(p) for p in law if p > 0)
    distance = [abs(entropy + math.log(p)) if p > 0 else math.inf for p in law]
    kept, mass = [], 0.0
    for token in sorted(range(len(law)), key=lambda v: (distance[v], v)):
        if mass < config.mass or config.mass == 1:
            kept.append(token)
        mass += law[token]
    return [logit if token in kept else -math.inf for token, logit in enumerate(logits)]
