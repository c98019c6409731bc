"""A Dyck language: brackets of several kinds, nested; wherever one closes, its kind is what must be known.

The smallest language that takes a stack. Its depth is bounded, so that a finite state can do it: RNNs Can Generate
Bounded Hierarchical Languages with Optimal Memory (Hewitt et al., 2020, arXiv 2010.07515).

    at depth 0 a bracket opens, at the greatest depth one closes, between them either with probability 1/2
    input_t = the bracket at t;  target_t = the bracket at t + 1 where that closes, else IGNORE

Tokens: opening brackets 0 .. kinds - 1, closing ones kinds .. 2 kinds - 1. Since only closing brackets are asked for,
the best loss is 0 and guessing the kind costs ln(kinds). Closing what has just opened is right about half of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from runnel.data._generated import Generated, need, tokens
from runnel.types import IGNORE, Batch

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """kinds: of brackets. depth: the greatest."""

    kinds: int = 4
    depth: int = 8
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.kinds < 2 or self.depth < 1:
            raise ValueError(f"dyck needs kinds >= 2 and depth >= 1; got kinds={self.kinds}, depth={self.depth}")


class Source(Generated):
    """Batches of beginnings of words. length: T, at least 2."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        need("dyck", length, 2)
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = 2 * config.kinds
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.kinds)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        kinds, rows = self.config.kinds, np.arange(self.batch_size)
        stack = np.zeros((self.batch_size, self.config.depth + 1), dtype=np.int64)
        depth = np.zeros(self.batch_size, dtype=np.int64)
        word = np.empty((self.batch_size, self.length + 1), dtype=np.int64)
        for place in range(self.length + 1):
            opens = ((rng.random(self.batch_size) < 0.5) | (depth == 0)) & (depth < self.config.depth)
            fresh = rng.integers(kinds, size=self.batch_size)
            word[:, place] = np.where(opens, fresh, kinds + stack[rows, depth])
            depth += np.where(opens, 1, -1)
            stack[rows[opens], depth[opens]] = fresh[opens]
        following = word[:, 1:]
        return tokens(word[:, :-1], np.where(following >= kinds, following, IGNORE))
