"""Typical acceptance: a draft is good enough when the model does not find it improbable. Lossy.

Paper: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads" (2024, 2401.10774), section
2.3.1.

    t = min(epsilon, delta exp(-H(p))),  H(p) = -sum_v p(v) log p(v)                   (1)
    a draft x is typical when p(x) > t                                                 (2)
    the longest path of typical drafts is accepted, of equally long ones the likeliest (3)

Where no draft is typical the token is that of plain decoding, noise included. At temperature 0 only the likeliest token
is typical, and with epsilon = 1 and delta = inf none is: the text is then that of plain decoding.

Bound: where a draft is accepted, the law of the token, given the drafts, is within 1 - p(x) < 1 - t of p in total
variation. `drifts` holds 1 for every token that is not the one that plain decoding would have written, else 0.

Deviates: the paper accepts its first token without a test, being greedy there; here it is tested like the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from runnel.acceptance import Lossy, picked
from runnel.processors import Exhausted
from runnel.rows import Walk

PAPERS = {"Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads": "2401.10774"}
LOSSLESS = False


@dataclass(frozen=True)
class Config:
    """epsilon in (0, 1]; delta > 0."""

    epsilon: float = 0.09
    delta: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 1:
            raise ValueError(f"epsilon must lie in (0, 1]; got {self.epsilon}")
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0; got {self.delta}")


class Typical(Lossy):
    config: Config
    shares_noise = True

    def step(self, walk: Walk) -> None:
        path = self._longest(walk, [])[0]
        for child in path:
            if walk.walking:
                self.drifts.append(float(walk.token(child) != picked(walk)))
                walk.go(child)
        if not path:
            self.drifts.append(0.0)
            walk.step(picked(walk))

    def _longest(self, walk: Walk, below: list[int]) -> tuple[list[int], float]:
        """Eq. (3): the nodes to accept after the path of nodes `below` this one, and their log-probability."""
        children = walk.forest.children.get([walk.node, *below][-1], ())
        if not children:
            return [], 0.0
        try:
            law = walk.law(below)
        except Exhausted:  # a path that plain decoding cannot take
            return [], 0.0
        least, best = threshold(law, self.config), (list[int](), 0.0)
        for child in children:
            chance = float(law[walk.token(child)])
            if chance > least:  # eq. (2)
                path, score = self._longest(walk, [*below, child])
                found = [child, *path], score + math.log(chance)
                best = max(best, found, key=lambda of: (len(of[0]), of[1]))
        return best


def threshold(law: Tensor, config: Config) -> float:
    """Eq. (1) for probabilities (V,)."""
    return min(config.epsilon, config.delta * math.exp(float(law.xlogy(law).sum())))


def reference(law: Sequence[float], config: Config) -> list[int]:
    """The typical tokens, by the definition."""
    entropy = -sum(p * math.log(p) for p in law if p > 0)
    return [v for v, p in enumerate(law) if p > min(config.epsilon, config.delta / math.exp(entropy))]
