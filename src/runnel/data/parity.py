"""Running parity of random bits: one bit of state, and no way around carrying it through every step.

A recurrence whose eigenvalues are all positive cannot do it at unseen lengths, one with -1 can: Unlocking
State-Tracking in Linear RNNs Through Negative Eigenvalues (Grazzi et al., 2024, arXiv 2411.12537). Train at
one length, then open the source again with a longer one.

    target_t = (x_0 + ... + x_t) mod 2
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch

from runnel.data._generated import Generated
from runnel.types import IGNORE, Batch

PAPERS: dict[str, str] = {}  # the task is older than the paper, which is a mixer's


@dataclass(frozen=True)
class Config:
    """targets: "every" position has one, or only the "last"."""

    targets: str = "every"
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.targets not in ("every", "last"):
            raise ValueError(f"targets must be every or last; got {self.targets}")


class Source(Generated):
    """Batches of bits (vocabulary 2) with their running parity. length: T."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 2
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(2)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        bits = rng.integers(2, size=(self.batch_size, self.length))
        targets = np.cumsum(bits, axis=1) % 2
        if self.config.targets == "last":
            targets[:, :-1] = IGNORE
        return Batch(torch.from_numpy(bits), torch.from_numpy(targets))
