"""LANTERN: a draft may use up the probability of tokens that lie near it in the embedding space. Lossy, by a budget.

Paper: "LANTERN: Accelerating Visual Autoregressive Models with Relaxed Speculative Decoding" (2024, 2410.03355),
section 4: pooling the law over a neighbourhood whose total variation from the law is at most delta.

    B(x) = the k tokens nearest to x in the embedding space, x among them              (1)
    p' = p, mass moved from tokens with p' > q to tokens x with q > p' that they are in B(x) of, the largest
        q - p' first and the nearest neighbours first, at most delta in all            (2)
    accept x ~ q with probability min(1, p'(x) / q(x)), else draw from max(0, p' - q)  (3)

| code | paper |
|---|---|
| pooled | p_{k, delta} |
| neighbours, delta | k, delta |

What is written follows p' exactly, and its distance from p is what was moved: at most delta, and acceptance rises by as
much. delta = 0 or k = 1 is `recursive_rejection`, to the bit. After the first child the others are tried as there.

Deviates: the paper pools anew for every drawn x, all of its neighbours' mass up to delta. Each of those laws is within
delta of p, but what is written mixes them and may be further off than delta (its test shows 1 for delta = 0.25).
For a token that was given the two agree, but that a neighbour's mass may here be taken in part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.acceptance import Lossy, offered, proposal
from runnel.rows import Walk

PAPERS = {"LANTERN: Accelerating Visual Autoregressive Models with Relaxed Speculative Decoding": "2410.03355"}
LOSSLESS = False


@dataclass(frozen=True)
class Config:
    """embeddings (V, D): where each token lies. neighbours >= 1, the token itself among them. delta in [0, 1]."""

    embeddings: Float[Tensor, "V D"]
    neighbours: int = 10
    delta: float = 0.1

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1; got {self.neighbours}")
        if not 0 <= self.delta <= 1:
            raise ValueError(f"delta must lie in [0, 1]; got {self.delta}")


class Lantern(Lossy):
    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.near: dict[int, list[int]] = {}

    def step(self, walk: Walk) -> None:
        law, moved = walk.law(), 0.0
        if walk.children:
            law, moved = self.pooled(law, proposal(walk, walk.children[0]))
        self.drifts.append(moved)
        offered(walk, law)

    def pooled(self, law: Float[Tensor, "V"], taken: Float[Tensor, "V"]) -> tuple[Float[Tensor, "V"], float]:
        """Eq. (2) for p = law and q = taken: p', and how much was moved."""
        if len(self.config.embeddings) != len(law):
            raise ValueError(f"embeddings must have {len(law)} rows, one a token; got {len(self.config.embeddings)}")
        pool, left = law.clone(), self.config.delta
        wanting = (taken - law).clamp(min=0)
        for token in wanting.argsort(descending=True, stable=True)[: int((wanting > 0).sum())].tolist():
            for other in self.neighbours(token):
                mass = min(left, float(taken[token] - pool[token]), float(pool[other] - taken[other]))
                if mass > 0:
                    pool[token] += mass
                    pool[other] -= mass
                    left -= mass
            if left <= 0:
                break
        return pool, self.config.delta - left

    def neighbours(self, token: int) -> list[int]:
        """Eq. (1), nearest first, without the token itself."""
        if token not in self.near:
            table = self.config.embeddings
            distances = (table - table[token]).norm(dim=-1)
            distances[token] = -1.0
            count = min(self.config.neighbours, len(table))
            self.near[token] = distances.topk(count, largest=False).indices.tolist()[1:]
        return self.near[token]


def reference(law: Sequence[float], taken: Sequence[float], config: Config) -> list[float]:
    """The law of what is written, by summing over the drafted token and both outcomes of eq. (3)."""
    p, q = torch.tensor([law, taken], dtype=torch.float64)
    pool, _ = Lantern(config).pooled(p, q)
    rest = [max(0.0, p - q) for p, q in zip(pool.tolist(), taken, strict=True)]
    left = sum(rest) or 1.0
    written = [0.0] * len(law)
    for token, chance in enumerate(taken):
        kept = min(1.0, float(pool[token]) / chance) if chance > 0 else 1.0
        written[token] += chance * kept
        for other, r in enumerate(rest):
            written[other] += chance * (1 - kept) * r / left
    return written
