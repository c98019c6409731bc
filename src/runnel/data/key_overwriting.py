"""Overwriting: keys are given values again and again, and at the end every key is asked for its last one.

A memory that only adds holds all values of a key at once; one that erases before it writes holds the last: what the
delta rule is for (Linear Transformers Are Secretly Fast Weight Programmers, Schlag et al., 2021, arXiv 2102.11174,
section 6.1, setting 2).

    row:     k v pairs, keys at random, every key at least once | every key once, in any order
    target:  the last value of the key where it is asked, IGNORE elsewhere

Tokens: 0 is filler (one at the start where the length is odd), then keys, then values.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from runnel.data._generated import Generated, distinct, need, no_targets, tokens
from runnel.types import Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """keys, values: how many kinds there are."""

    keys: int = 4
    values: int = 16
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.keys < 1 or self.values < 2:
            raise ValueError(
                f"key_overwriting needs keys >= 1 and values >= 2; got keys={self.keys}, values={self.values}"
            )


class Source(Generated):
    """Batches of writes and questions. length: T, at least 3 * keys."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("key_overwriting", length, 3 * config.keys)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 1 + config.keys + config.values
        self.writes = (length - config.keys) // 2
        self.facts = {
            "optimal_nats": 0.0,
            "chance_nats": log(config.values),
            "writes_per_key": self.writes / config.keys,
        }

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        config, rows = self.config, self.batch_size
        keys = rng.integers(config.keys, size=(rows, self.writes))
        keys[:, : config.keys] = np.arange(config.keys)
        keys = rng.permuted(keys, axis=1)
        values = rng.integers(config.values, size=(rows, self.writes))
        last = np.zeros((rows, config.keys), dtype=np.int64)
        for write in range(self.writes):
            np.put_along_axis(last, keys[:, write, None], values[:, write, None], axis=1)
        asked = distinct(rng, rows, config.keys, config.keys)
        inputs = np.zeros((rows, self.length), dtype=np.int64)
        written = inputs[:, self.length - config.keys - 2 * self.writes : self.length - config.keys]
        written[:, 0::2], written[:, 1::2] = 1 + keys, 1 + config.keys + values
        inputs[:, -config.keys :] = 1 + asked
        targets = no_targets(inputs)
        targets[:, -config.keys :] = 1 + config.keys + np.take_along_axis(last, asked, axis=1)
        return tokens(inputs, targets)
