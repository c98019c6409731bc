"""Presence penalty: tokens that were written already lose a fixed number of nats, however often they were.

    l'_v = l_v - alpha * [c_v > 0],  c_v the count of v among the written tokens       (1)

The rule is that of OpenAI's completions API; there is no paper. The prompt does not count. A negative penalty favours
repetition, 0 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.ops.sampling import counts_of
from runnel.processors import Processor, Stage, Text

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """penalty: alpha, in nats."""

    penalty: float = 0.5

    def __post_init__(self) -> None:
        if not math.isfinite(self.penalty):
            raise ValueError(f"presence_penalty must be a finite number; got {self.penalty}")


class PresencePenalty(Processor):
    config: Config
    stage = Stage.PENALTY

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.avoids = config.penalty

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        counts = torch.stack([counts_of(text.written, logits.shape[-1]) for text in texts])
        return logits - self.config.penalty * counts.clamp(max=1)  # eq. (1)


def reference(logits: Sequence[float], written: Sequence[int], config: Config) -> list[float]:
    """One row, token by token."""
    return [logit - config.penalty * min(1, written.count(token)) for token, logit in enumerate(logits)]
