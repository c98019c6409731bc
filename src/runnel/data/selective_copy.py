"""Selective copying: a few symbols among filler, to be repeated in order at the end; how much filler varies.

Spacing that varies takes a gate that decides by content what is kept: a recurrence that treats every input alike cannot
do it. Mamba: Linear-Time Sequence Modeling with Selective State Spaces (Gu and Dao, 2023, arXiv 2312.00752).

    row:     filler with the symbols s_1 .. s_n at random places, in order | n times "say"
    target:  s_i at the i-th "say", IGNORE elsewhere

Tokens: 0 is filler, 1 is "say", symbols from 2 on. Best loss 0; guessing costs ln(symbols).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from runnel.data._generated import Generated, need, no_targets, tokens
from runnel.types import Batch

PAPERS: dict[str, str] = {}  # the paper's method is a mixer


@dataclass(frozen=True)
class Config:
    """items: n, symbols to repeat. symbols: how many kinds there are."""

    items: int = 8
    symbols: int = 16
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.items < 1 or self.symbols < 2:
            raise ValueError(
                f"selective_copy needs items >= 1 and symbols >= 2; got items={self.items}, symbols={self.symbols}"
            )


class Source(Generated):
    """Batches of rows to repeat. length: T, at least 2 * items."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("selective_copy", length, 2 * config.items)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 2 + config.symbols
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.symbols)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        count, context = self.config.items, self.length - self.config.items
        symbols = rng.integers(2, self.vocab_size, size=(self.batch_size, count))
        places = np.sort(np.argsort(rng.random((self.batch_size, context)), axis=1)[:, :count], axis=1)
        inputs = np.zeros((self.batch_size, self.length), dtype=np.int64)
        inputs[:, context:] = 1
        targets = no_targets(inputs)
        np.put_along_axis(inputs, places, symbols, axis=1)
        targets[:, context:] = symbols
        return tokens(inputs, targets)
