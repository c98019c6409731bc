"""Modular counting: how many ones so far, modulo m: a cycle of m states that never forgets.

Parity is m = 2. A diagonal recurrence needs an eigenvalue that turns by 1/m of a circle, so a complex one for m > 2; a
nonlinear cell needs none. The modular tasks of Neural Networks and the Chomsky Hierarchy (Deletang et al., 2022, arXiv
2207.02098) at their smallest.

    target_t = (x_0 + ... + x_t) mod m,  x_t in {0, 1}
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from runnel.data._generated import Generated, tokens
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """modulus: m."""

    modulus: int = 3
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.modulus < 2:
            raise ValueError(f"modulus must be at least 2; got {self.modulus}")


class Source(Generated):
    """Batches of bits with their count modulo m."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = config.modulus
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.modulus)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        bits = rng.integers(2, size=(self.batch_size, self.length))
        return tokens(bits, np.cumsum(bits, axis=1) % self.config.modulus)
