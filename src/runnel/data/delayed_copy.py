"""Delayed copy: symbols at the start, a long silence, then the symbols again: memory over time and nothing else.

The copying memory problem of Unitary Evolution Recurrent Neural Networks (Arjovsky et al., 2015, arXiv 1511.06464),
which goes back to Long Short-Term Memory (Hochreiter and Schmidhuber, 1997). The number of symbols stays, the silence
grows with the row.

    row:     s_1 .. s_n | silence | "say" n times
    target:  s_i at the i-th "say", IGNORE elsewhere

Tokens: 0 is silence, 1 is "say", symbols from 2 on. Deviation: only the repeated symbols are scored, not the silence.
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
    """items: n, symbols to repeat. symbols: how many kinds there are."""

    items: int = 8
    symbols: int = 8
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.items < 1 or self.symbols < 2:
            raise ValueError(
                f"delayed_copy needs items >= 1 and symbols >= 2; got items={self.items}, symbols={self.symbols}"
            )


class Source(Generated):
    """Batches of rows to repeat. length: T, at least 2 * items."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("delayed_copy", length, 2 * config.items)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 2 + config.symbols
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.symbols)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        count = self.config.items
        inputs = np.zeros((self.batch_size, self.length), dtype=np.int64)
        inputs[:, :count] = rng.integers(2, self.vocab_size, size=(self.batch_size, count))
        inputs[:, -count:] = 1
        targets = no_targets(inputs)
        targets[:, -count:] = inputs[:, :count]
        return tokens(inputs, targets)
