"""Sorting: symbols in any order, a mark, and the same symbols in ascending order; as many as fit into the row.

Counting how often every symbol came is enough, so a state of one number a symbol does it, if it counts exactly.

    row:     s_1 .. s_n, mark, s_(1) .. s_(n-1);  n = T / 2
    target:  s_(1) <= ... <= s_(n) from the mark on, IGNORE before

Tokens: 0 is the mark, symbols from 1 on. Best loss 0; chance is guessing among all symbols. Repeating the last symbol
is right most of the time in long rows: `repeat_accuracy` says how often, in the mean over rows.
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

    symbols: int = 32
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.symbols < 2:
            raise ValueError(f"symbols must be at least 2; got {self.symbols}")


class Source(Generated):
    """Batches of symbols to sort. length: T, at least 2."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("sorting", length, 2)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 1 + config.symbols
        count = length // 2
        seen = config.symbols * (1 - (1 - 1 / config.symbols) ** count)  # kinds that come at all, in the mean
        self.facts = {
            "optimal_nats": 0.0,
            "chance_nats": log(config.symbols),
            "repeat_accuracy": 1 - seen / count,
        }

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        count = self.length // 2
        symbols = rng.integers(1, self.vocab_size, size=(self.batch_size, count))
        ordered = np.sort(symbols, axis=1)
        inputs = np.zeros((self.batch_size, self.length), dtype=np.int64)
        inputs[:, :count], inputs[:, count + 1 : 2 * count] = symbols, ordered[:, :-1]
        targets = no_targets(inputs)
        targets[:, count : 2 * count] = ordered
        return tokens(inputs, targets)
