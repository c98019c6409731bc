"""A needle in a haystack: key-value pairs at random depths of random filler, one of the keys asked at the very end.

The test of long contexts in its smallest form (Kamradt, Needle In A Haystack, 2023, github.com/gkamradt): the answer is
one look-up, however long the row is.

    row:     filler with  k_i v_i  at random places, i = 1 .. needles | "ask", k_j
    target:  v_j at the last place, IGNORE elsewhere

Tokens: 0 is "ask"; then filler, keys and values, each of its own range. Keys of a row differ, and so do values:
guessing among the values of the row costs ln(needles).
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
    """needles: pairs of a row. keys, values, filler: how many kinds there are."""

    needles: int = 4
    keys: int = 16
    values: int = 16
    filler: int = 16
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.needles <= min(self.keys, self.values) or self.filler < 1:
            raise ValueError(
                f"needle needs 1 <= needles <= keys and values, and filler >= 1; got needles={self.needles}, "
                f"keys={self.keys}, values={self.values}, filler={self.filler}"
            )


class Source(Generated):
    """Batches of haystacks. length: T, at least 2 * needles + 2."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("needle", length, 2 * config.needles + 2)
        super().__init__(config, length, batch_size, seed)
        self.first_key = 1 + config.filler
        self.first_value = self.first_key + config.keys
        self.vocab_size = self.first_value + config.values
        self.facts = {"optimal_nats": 0.0, "guess_nats": log(config.needles), "chance_nats": log(config.values)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        config, rows = self.config, self.batch_size
        keys = self.first_key + distinct(rng, rows, config.needles, config.keys)
        values = self.first_value + distinct(rng, rows, config.needles, config.values)
        free = self.length - 2 - config.needles  # every needle is one slot until it is laid out as two tokens
        slots = np.sort(distinct(rng, rows, config.needles, free), axis=1) + np.arange(config.needles)
        inputs = rng.integers(1, self.first_key, size=(rows, self.length))
        np.put_along_axis(inputs, slots, keys, axis=1)
        np.put_along_axis(inputs, slots + 1, values, axis=1)
        asked = rng.integers(config.needles, size=rows)
        inputs[:, -2], inputs[:, -1] = 0, keys[np.arange(rows), asked]
        targets = no_targets(inputs)
        targets[:, -1] = values[np.arange(rows), asked]
        return tokens(inputs, targets)
