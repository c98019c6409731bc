"""Sampling: a draw from the model's law, tempered and truncated, with noise keyed by (the row's seed, position).

Papers: top-k, "Hierarchical Neural Story Generation" (2018, 1805.04833), section 5.1; top-p, "The Curious Case of
Neural Text Degeneration" (2019, 1904.09751), eq. 2-3; min-p, "Turning Up the Heat: Min-p Sampling for Creative and
Coherent LLM Outputs" (2024, 2407.01082), section 3.

    q(v) = softmax(logits / temperature)_v                                             (1)
    top-k: v is among the k likeliest                                                  (2)
    top-p: the outcomes likelier than v have less than top_p of the mass               (3)
    min-p: q(v) >= min_p * max_u q(u)                                                  (4)
    y = argmax_v (log q(v) + G_v),  G_v ~ Gumbel(0) given by (seed, position, v)       (5)

(2), (3) and (4) apply in this order, each to the renormalised law that the one before it left. Temperature 0 is greedy.
Eq. (5) is an exact draw, and the same draw wherever the logits come from: a draft is accepted when it is the token that
(5) would have drawn anyway.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.decoders import Decoder
from runnel.ops.sampling import gumbel, keep_min_p, keep_top_k, keep_top_p

PAPERS = {
    "Hierarchical Neural Story Generation": "1805.04833",
    "The Curious Case of Neural Text Degeneration": "1904.09751",
    "Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs": "2407.01082",
}
LOSSLESS = True


@dataclass(frozen=True)
class Config:
    """temperature >= 0; top_k >= 1, top_p in (0, 1] and min_p in [0, 1], or None for no truncation."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be a finite number >= 0; got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1; got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1]; got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1]; got {self.min_p}")


class Sample(Decoder):
    config: Config

    def pick(self, logits: Tensor, seeds: Sequence[int], positions: Sequence[int]) -> list[int]:
        if self.config.temperature == 0:
            return logits.argmax(-1).tolist()
        noise = gumbel(seeds, positions, logits.shape[-1])
        return (law(logits, self.config) + noise).argmax(-1).tolist()  # eq. (5)


def law(logits: Tensor, config: Config) -> Tensor:
    """Logits (..., V) of the law that is drawn from; -inf where it is zero. The temperature must be above 0."""
    scores = logits / config.temperature  # eq. (1)
    if config.top_k is not None:
        scores = keep_top_k(scores, config.top_k)
    if config.top_p is not None:
        scores = keep_top_p(scores, config.top_p)
    if config.min_p is not None:
        scores = keep_min_p(scores, config.min_p)
    return scores


def reference(logits: Sequence[float], config: Config) -> list[float]:
    """The probability of every token of one row, by the definitions."""
    q = _normalised({v: math.exp((logit - max(logits)) / config.temperature) for v, logit in enumerate(logits)})
    ranked = sorted(q, key=lambda v: (-q[v], v))
    if config.top_k is not None:
        q = _normalised({v: q[v] for v in ranked[: config.top_k]})
    if config.top_p is not None:
        ranked = [v for v in ranked if v in q]
        q = _normalised({v: q[v] for i, v in enumerate(ranked) if sum(q[u] for u in ranked[:i]) < config.top_p})
    if config.min_p is not None:
        q = _normalised({v: p for v, p in q.items() if p >= config.min_p * max(q.values())})
    return [q.get(v, 0.0) for v in range(len(logits))]


def _normalised(weights: dict[int, float]) -> dict[int, float]:
    total = sum(weights.values())
    return {v: weight / total for v, weight in weights.items()}
