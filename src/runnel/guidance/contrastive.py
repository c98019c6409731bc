"""Contrastive decoding: what a strong model finds likelier than a weak one, among what the strong one finds plausible.

Paper: "Contrastive Decoding: Open-ended Text Generation as Optimization" (2022, 2210.15097), eq. 1-4.

    plausible = {v : p_expert(v | y) >= plausibility * max_u p_expert(u | y)}          (1)
    score(v)  = log p_expert(v | y) - strength * log softmax(logit_amateur / temperature)_v
                for the plausible, -inf for others                                     (2)

| code | paper |
|---|---|
| the model of `generate` | EXP |
| amateur, temperature | AMA, tau |
| plausibility | alpha |

strength 1 is the paper's. strength 0 with plausibility 0 is plain decoding, plausibility 1 is greedy decoding. The
paper searches for the text with the largest sum of (2): that is `decoder="beam"`; here the softmax of (2) is a law, so
that it can be sampled and speculated too. The amateur reads the same prompts. Every token costs a call of both models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.guidance import Guidance
from runnel.model import Model
from runnel.ops.sampling import keep_min_p

PAPERS = {"Contrastive Decoding: Open-ended Text Generation as Optimization": "2210.15097"}


@dataclass(frozen=True)
class Config:
    """amateur: a weaker model of the same tokens. plausibility in [0, 1]; strength >= 0; temperature > 0."""

    amateur: Model
    plausibility: float = 0.1
    strength: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.plausibility <= 1:
            raise ValueError(f"plausibility of contrastive must lie in [0, 1]; got {self.plausibility}")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength of contrastive must be a finite number >= 0; got {self.strength}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature of contrastive must be a finite number > 0; got {self.temperature}")


class Contrastive(Guidance):
    config: Config

    def others(self, model: Model) -> list[Model]:
        return [self.config.amateur]

    def prompts(self, texts: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        return [texts]

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        expert, amateur = logits
        scores = expert - self.config.strength / self.config.temperature * amateur  # eq. (2), but for a constant
        return scores.masked_fill(keep_min_p(expert, self.config.plausibility) == -math.inf, -math.inf)  # eq. (1)


def reference(expert: Sequence[float], amateur: Sequence[float], config: Config) -> list[float]:
    """The law of one row, from the probabilities of both models."""
    tempered = [q ** (1 / config.temperature) for q in amateur]
    least = config.plausibility * max(expert)
    ratios = [p / (q / sum(tempered)) ** config.strength for p, q in zip(expert, tempered, strict=True)]
    scores = [ratio if p >= least else 0.0 for ratio, p in zip(ratios, expert, strict=True)]
    return [score / sum(scores) for score in scores]
