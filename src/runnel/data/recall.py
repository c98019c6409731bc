"""Multi-query associative recall: key-value pairs, then keys again; the answer is the value that came with the key.

Zoology: Measuring and Improving Recall in Efficient Language Models (Arora et al., 2023, arXiv 2312.04927).
It separates mixers by how much a state of given size remembers.

    row:     k_1 v_1 k_2 v_2 ... k_D v_D | filler with the keys k_1 .. k_D once each, in any order
    target:  the value of the key where it is asked, IGNORE elsewhere
    place of a query: 2D + 2g, g drawn without repetition with P(g) proportional to (g + 1)^(a - 1)   (power law)

| here | paper |
|---|---|
| pairs | D, number of key-value pairs |
| vocab | |C|; keys are its lower half, values its upper half |
| power | a (0.01 there as here: queries come soon after the pairs, with a long tail) |

Deviations: values of a row differ from one another, so that guessing among them costs exactly ln D; filler is drawn
from the values only, where the paper's may repeat a key: so nothing after the pairs looks like a second binding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._generated import Generated
from runnel.types import IGNORE, Batch

PAPERS: dict[str, str] = {"Zoology: Measuring and Improving Recall in Efficient Language Models": "2312.04927"}


@dataclass(frozen=True)
class Config:
    """pairs: key-value pairs of a row, each asked once. vocab: keys and values together. power: of the law of gaps."""

    pairs: int = 8
    vocab: int = 64
    power: float = 0.01
    valid_batches: int = 8

    def __post_init__(self) -> None:
        if self.pairs < 1 or self.vocab < 2 * self.pairs:
            raise ValueError(f"recall needs 1 <= pairs <= vocab / 2; got pairs={self.pairs}, vocab={self.vocab}")
        if not 0 < self.power <= 10:
            raise ValueError(f"power must be in (0, 10]; got {self.power}")


class Source(Generated):
    """Batches of recall rows. length: T, at least 4 * pairs."""

    def __init__(self, config: Config, length: int, batch_size: int, seed: int = 0) -> None:
        if length < 4 * config.pairs:
            raise ValueError(f"recall with pairs={config.pairs} needs length >= {4 * config.pairs}; got {length}")
        super().__init__(config, length, batch_size, seed)
        self.vocab_size = config.vocab
        self.facts = {"optimal_nats": 0.0, "guess_nats": log(config.pairs), "chance_nats": log(config.vocab // 2)}

    def draw_batch(self, rng: np.random.Generator) -> Batch:
        pairs, half = self.config.pairs, self.config.vocab // 2
        uniform = np.zeros(half)
        keys = _distinct(rng, uniform, self.batch_size, pairs)
        values = _distinct(rng, uniform, self.batch_size, pairs) + half
        slots = np.arange(1, (self.length - 2 * pairs) // 2 + 1)
        asked = 2 * pairs + 2 * _distinct(rng, (self.config.power - 1) * np.log(slots), self.batch_size, pairs)
        inputs = rng.integers(half, 2 * half, size=(self.batch_size, self.length))
        inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
        targets = np.full_like(inputs, IGNORE)
        np.put_along_axis(inputs, asked, keys, axis=1)
        np.put_along_axis(targets, asked, values, axis=1)
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))


def _distinct(rng: np.random.Generator, log_weights: NDArray[np.float64], rows: int, count: int) -> NDArray[np.int64]:
    """(rows, count) draws without repetition inside a row, by weight (Gumbel top-k), in the order drawn."""
    noisy = log_weights + rng.gumbel(size=(rows, len(log_weights)))
    return np.argsort(-noisy, axis=1)[:, :count]
