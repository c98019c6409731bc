"""Repetition penalty: tokens that the text already holds are made less likely, once and for all.

Paper: "CTRL: A Conditional Transformer Language Model for Controllable Generation" (2019, 1909.05858), section 4.1.

    l'_v = l_v / theta  if v occurs in the text, else l_v                              (1)

| code | paper |
|---|---|
| penalty | theta |
| the text | g |

Deviates: a negative logit is multiplied by theta, since dividing it would make the token likelier (as every library
does); the temperature divides afterwards, which is the same. Prompt and written tokens count alike, those of the last
`last` tokens only where that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS = {"CTRL: A Conditional Transformer Language Model for Controllable Generation": "1909.05858"}


@dataclass(frozen=True)
class Config:
    """penalty > 0: 1 changes nothing, more than 1 avoids repetition. last >= 1: how far back, or None for all."""

    penalty: float = 1.2
    last: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.penalty < math.inf:
            raise ValueError(f"repetition_penalty must be a finite number above 0; got {self.penalty}")
        if self.last is not None and self.last < 1:
            raise ValueError(f"last of a repetition_penalty must be at least 1; got {self.last}")


class RepetitionPenalty(Processor):
    config: Config
    stage = Stage.PENALTY

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.avoids = config.penalty - 1

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        seen = torch.zeros_like(logits, dtype=torch.bool)
        for row, text in enumerate(texts):
            seen[row, text.newest(self.config.last)] = True
        penalised = torch.where(logits > 0, logits / self.config.penalty, logits * self.config.penalty)
        return torch.where(seen, penalised, logits)  # eq. (1)


def reference(logits: Sequence[float], text: Sequence[int], config: Config) -> list[float]:
    """One row, token by token."""
    window = text if config.last is None else text[-config.last :]
    changed = []
    for token, logit in enumerate(logits):
        if token not in window:
            changed.append(logit)
        elif logit > 0:
            changed.append(logit / config.penalty)
        else:
            changed.append(logit * config.penalty)
    return changed
