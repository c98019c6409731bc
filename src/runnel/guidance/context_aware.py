"""Context-aware decoding: what a context makes likelier than the model finds it without is made likelier still.

Papers: "Trusting Your Evidence: Hallucinate Less with Context-aware Decoding" (2023, 2305.14739), eq. 2-3;
"Context-aware Decoding Reduces Hallucination in Query-focused Summarization" (2023, 2312.14335), eq. 2.

    p'(v | c, x, y) = softmax((1 + alpha) logit(v | c, x, y) - alpha logit(v | x, y))_v       (1)

| code | paper |
|---|---|
| the prompts of `generate` | c, x: the context and the question |
| prompts | x: the question alone |

alpha 0 is plain decoding. It is classifier-free guidance of scale 1 + alpha against the question alone: the more the
memory of the model contradicts the context, the more it corrects. Every token costs two calls of the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.guidance import Guidance, own_prompts
from runnel.model import Model

PAPERS = {
    "Trusting Your Evidence: Hallucinate Less with Context-aware Decoding": "2305.14739",
    "Context-aware Decoding Reduces Hallucination in Query-focused Summarization": "2312.14335",
}


@dataclass(frozen=True)
class Config:
    """prompts: one for each prompt, without its context, ending with the same token. alpha >= 0."""

    prompts: Sequence[Sequence[int]]
    alpha: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha of context_aware must be a finite number >= 0; got {self.alpha}")


class ContextAware(Guidance):
    config: Config

    def others(self, model: Model) -> list[Model]:
        return [model]

    def prompts(self, texts: Sequence[Sequence[int]]) -> list[Sequence[Sequence[int]]]:
        return own_prompts("context_aware", self.config.prompts, texts)

    def combine(self, logits: Sequence[Tensor]) -> Tensor:
        with_context, without = logits
        return (1 + self.config.alpha) * with_context - self.config.alpha * without  # eq. (1)


def reference(with_context: Sequence[float], without: Sequence[float], config: Config) -> list[float]:
    """The law of one row, from the probabilities of both streams."""
    scores = [p ** (1 + config.alpha) / q**config.alpha for p, q in zip(with_context, without, strict=True)]
    return [score / sum(scores) for score in scores]
