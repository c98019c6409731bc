"""What every source that is drawn rather than read has: batches as pure functions of (seed, index)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._keyed import TRAIN, VALID, generator
from runnel.types import IGNORE, Batch


class Generated(ABC):
    """A page sets `vocab_size` and `facts`, and draws."""

    vocab_size: int
    facts: dict[str, Any]

    def __init__(self, config: Any, length: int, batch_size: int, seed: int = 0) -> None:
        self.config, self.length, self.batch_size, self.seed = config, length, batch_size, seed

    def batch(self, index: int) -> Batch:
        """Inputs and targets (B, T), a pure function of (seed, index)."""
        return self.draw_batch(generator(self.seed, TRAIN, index))

    def valid(self) -> Iterator[Batch]:
        """The same few batches each time, from other random numbers than training."""
        for index in range(self.config.valid_batches):
            yield self.draw_batch(generator(self.seed, VALID, index))

    @abstractmethod
    def draw_batch(self, rng: np.random.Generator) -> Batch:
        """One batch out of these random numbers."""


def tokens(inputs: NDArray[np.int64], targets: NDArray[np.int64]) -> Batch:
    return Batch(torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(targets)))


def no_targets(inputs: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many targets as inputs, none of which carries a loss yet."""
    return np.full_like(inputs, IGNORE)


def distinct(rng: np.random.Generator, rows: int, count: int, kinds: int) -> NDArray[np.int64]:
    """(rows, count) draws from range(kinds) without repetition inside a row, in any order."""
    return np.argsort(rng.random((rows, kinds)), axis=1)[:, :count]


def need(name: str, length: int, least: int) -> None:
    """ValueError when rows are too short for a source."""
    if length < least:
        raise ValueError(f"{name} with these options needs length >= {least}; got {length}")
