"""A regular language: random symbols drive a random automaton, and the target is the state that it is in.

Where every symbol permutes the states, nothing is ever forgotten, and products of permutations that do not commute are
as hard as state tracking gets: The Illusion of State in State-Space Models (Merrill et al., 2024, arXiv 2404.08819).
Where symbols are arbitrary maps, most automata forget their past after a few symbols, and a window is enough.

    q_t = delta(q_{t-1}, x_t),  q_{-1} = 0,  target_t = q_t
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from runnel.data._generated import Generated, tokens
from runnel.data._keyed import TASK, generator
from runnel.types import Batch

PAPERS: dict[str, str] = {}
MAPS = ("permutations", "any")


@dataclass(frozen=True)
class Config:
    """states, symbols: of the automaton. maps: what a symbol does to the states, "permutations" or "any" map."""

    states: int = 5
    symbols: int = 3
    maps: str = "permutations"
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.states < 2 or self.symbols < 1:
            raise ValueError(
                f"regular_language needs states >= 2 and symbols >= 1; got states={self.states}, symbols={self.symbols}"
            )
        if self.maps not in MAPS:
            raise ValueError(f"maps must be permutations or any; got {self.maps}")


class Source(Generated):
    """Batches for the automaton that `seed` draws. moves: delta, (symbols, states)."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        super().__init__(config, length, batch_size, seed)
        self.moves = _draw(config, generator(seed, TASK))
        self.vocab_size = max(config.states, config.symbols)
        self.facts = {"optimal_nats": 0.0, "chance_nats": log(config.states), "moves": self.moves.tolist()}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        symbols = rng.integers(self.config.symbols, size=(self.batch_size, self.length))
        states, state = np.empty_like(symbols), np.zeros(self.batch_size, dtype=np.int64)
        for place in range(self.length):
            state = self.moves[symbols[:, place], state]
            states[:, place] = state
        return tokens(symbols, states)


def _draw(config: Config, rng: np.random.Generator) -> NDArray[np.int64]:
    shape = (config.symbols, config.states)
    return (
        np.argsort(rng.random(shape), axis=1) if config.maps == "permutations" else rng.integers(shape[1], size=shape)
    )
