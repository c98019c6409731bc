"""Copying: a string, a mark, and the string again; the string grows with the row, so that a fixed state must fail.

Repeat After Me: Transformers are Better than State Space Models at Copying (Jelassi et al., 2024, arXiv 2402.01032): a
state of b bits holds at most b / log2(symbols) symbols of a random string.

    row:     s_1 .. s_n, mark, s_1 .. s_{n-1};  n = T / 2
    target:  s_1 .. s_n from the mark on, IGNORE before

Tokens: 0 is the mark, symbols from 1 on. Best loss 0; guessing costs ln(symbols). A row of odd length ends with a token
without a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from runnel.data._generated import Generated, need, no_targets, tokens
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """symbols: how many kinds there are."""

    symbols: int = 16
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.symbols < 2:
            raise ValueError(f"symbols must be at least 2; got {self.symbols}")


class Source(Generated):
    """Batches of strings to copy. length: T, at least 2. facts: string_bits, what a state must hold."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("copying", length, 2)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 1 + config.symbols
        bits = length // 2 * log(config.symbols) / log(2)
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.symbols), "string_bits": bits}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        count = self.length // 2
        string = rng.integers(1, self.vocab_size, size=(self.batch_size, count))
        inputs = np.zeros((self.batch_size, self.length), dtype=np.int64)
        inputs[:, :count], inputs[:, count + 1 : 2 * count] = string, string[:, :-1]
        targets = no_targets(inputs)
        targets[:, count : 2 * count] = string
        return tokens(inputs, targets)
