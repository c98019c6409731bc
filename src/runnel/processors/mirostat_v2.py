"""Mirostat 2: tokens more surprising than a bound are removed; the bound follows the text, whose surprise it steers.

Paper: "Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity" (2020, 2007.14966); this form is
that of the authors' program mirostat_v2, which needs no Zipf law.

    keep v with -log2 p(v) <= mu; the likeliest token always                                       (1)
    mu <- mu - rate (S(y) - target),  S(y) = -log2 p(y),  mu = 2 target before the first token     (2)

| code | paper |
|---|---|
| target, rate | tau, eta |

p is the law that arrives here, tempered and penalised; the other truncations are refused beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runnel.processors import Processor, Stage, Text

PAPERS = {"Mirostat: A Neural Text Decoding Algorithm that Directly Controls Perplexity": "2007.14966"}


@dataclass(frozen=True)
class Config:
    """target >= 0 in bits per token. rate >= 0."""

    target: float = 3.0
    rate: float = 0.1

    def __post_init__(self) -> None:
        for name in ("target", "rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} of mirostat_v2 must be a finite number >= 0; got {getattr(self, name)}")


class MirostatV2(Processor):
    config: Config
    stage = Stage.TRUNCATION
    alone = True
    remembers = True

    def process(self, logits: Tensor, texts: Sequence[Text]) -> Tensor:
        surprise = -logits.log_softmax(-1) / math.log(2)
        mu = torch.tensor([self._mu(text) for text in texts], dtype=logits.dtype)[:, None]
        removed = (surprise > mu) & (surprise > surprise.amin(-1, keepdim=True))
        return logits.masked_fill(removed, -math.inf)  # eq. (1)

    def note(self, text: Text, logits: Tensor, token: int) -> float:
        surprise = -float(logits.log_softmax(-1)[token]) / math.log(2)
        return self._mu(text) - self.config.rate * (surprise - self.config.target)  # eq. (2)

    def _mu(self, text: Text) -> float:
        return text.memory.get(self.name, 2 * self.config.target)


def reference(logits: Sequence[float], mu: float) -> list[float]:
    """One row, token by token."""
    total = sum(math.exp(logit) for logit in logits)
    surprise = [math.inf if logit == -math.inf else -math.log2(math.exp(logit) / total) for logit in logits]
    return [
        logit if bits <= mu or bits == min(surprise) else -math.inf
        for logit, bits in zip(logits, surprise, strict=True)
    ]
