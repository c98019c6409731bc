"""Classifier-free guidance: what the prompt makes likelier than another prompt does is made likelier still.

Paper: "Stay on topic with Classifier-Free Guidance" (2023, 2306.17806), sections 2.2 and 3.3.

    log p'(v | y, c) = log p(v | y, c_) + scale (log p(v | y, c) - log p(v | y, c_)) + constant    (1)

| code | paper |
|---|---|
| scale | gamma |
| the prompts of `generate` | c |
| prompts | c_, the negative prompt; by default nothing but the last token of c |

scale 1 is plain decoding, 0 follows the other prompt alone. Every token costs two calls of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.guidance import Guidance, own_prompts
from runnel.model import Model

PAPERS = {"Stay on topic with Classifier-Free Guidance": "2306.17806"}


@dataclass(frozen=True)
class Config:
    """scale: a finite number. prompts: one for each prompt, ending with the same token; None for that token alone."""

    scale: float = 1.5
    prompts: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"scale of cfg must be a finite number; got {self.scale}")


class Cfg(Guidance):
    config: Config

    def others(self, model: Model) -> list[Model]:
        return [model]

    def prompts(self, texts: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        return own_prompts("cfg", self.config.prompts, texts)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        given, other = logits
        return self.config.scale * given + (1 - self.config.scale) * other  # eq. (1)


def reference(given: Sequence[float], other: Sequence[float], config: Config) -> list[float]:
    """The law of one row, from the probabilities of both streams."""
    scores = [q * (p / q) ** config.scale for p, q in zip(given, other, strict=True)]
    return [score / sum(scores) for score in scores]
