"""Rows of T + 1 items cut from a stream: T inputs, and as targets the same shifted by one.

Training, epoch by epoch: the training part is a circle, cut from a random phase on into ceil(N / T) rows that overlap
by one item, and the rows are visited in a random order. So in every epoch every item is a target exactly once (what
the last row has too much is ignored), rows begin elsewhere in each epoch, and no item is lost at an end.

Held out: consecutive rows. The first held-out item is predicted from the last training item; every later row starts
from the zero state with the item before its first target.

Documents: the first item of a document is never a target (nothing in its own document precedes it), and `segments`
counts the documents begun so far in a row, so that no state and no target crosses a border.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from runnel.data._keyed import permute
from runnel.data.corpus.stream import Stream
from runnel.types import IGNORE, Batch


@dataclass(frozen=True)
class Row:
    """items: (T + 1,) int64. begins: (T + 1,) bool, where a document begins. n_targets: how many targets count."""

    items: NDArray[np.int64]
    begins: NDArray[np.bool_]
    n_targets: int


@dataclass(frozen=True)
class TrainRows:
    """Rows of the items [0, stop) of a stream, in an order without end; a row is a pure function of (seed, place)."""

    stream: Stream
    stop: int
    length: int
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        return -(-self.stop // self.length)

    def batch(self, index: int) -> Batch:
        """The index-th `batch_size` rows."""
        return to_batch(self.rows(index * self.batch_size, self.batch_size))

    def rows(self, first: int, count: int) -> list[Row]:
        """Rows [first, first + count) of the endless order; they may lie in several epochs."""
        epochs, places = np.divmod(np.arange(first, first + count), self.per_epoch)
        return [row for epoch in np.unique(epochs) for row in self._of_epoch(int(epoch), places[epochs == epoch])]

    def _of_epoch(self, epoch: int, places: NDArray[np.int64]) -> list[Row]:
        phase = int(np.random.default_rng([self.seed, epoch, 1]).integers(self.length))
        cuts = permute(places, self.per_epoch, self.seed, epoch)
        return [self._row(phase, int(cut) * self.length) for cut in cuts]

    def _row(self, phase: int, begin: int) -> Row:
        start = (phase + begin) % self.stop
        first = read_items(self.stream, start, min(start + self.length + 1, self.stop))
        missing = self.length + 1 - len(first[0])
        items, begins = _join(first, read_items(self.stream, 0, missing)) if missing else first
        return Row(items, begins, min(self.length, self.stop - begin))


def held_out_rows(stream: Stream, start: int, length: int, first: int, count: int) -> list[Row]:
    """Rows [first, first + count) of those that have the items from `start` (at least 1) to the end as targets."""
    begins = range(start - 1 + first * length, len(stream) - 1, length)[:count]
    return [_held_out_row(stream, begin, length) for begin in begins]


def to_batch(rows: list[Row]) -> Batch:
    """Stack rows to (B, T) tensors. segments is None when no document begins inside a row."""
    items = np.stack([row.items for row in rows])
    begins = np.stack([row.begins for row in rows])
    begins[:, 0] = False  # a document that begins with the row needs no border
    counted = np.arange(items.shape[1] - 1) < np.array([[row.n_targets] for row in rows])
    targets = np.where(begins[:, 1:] | ~counted, IGNORE, items[:, 1:])
    segments = torch.from_numpy(begins[:, :-1].cumsum(1)) if begins[:, :-1].any() else None
    return Batch(torch.from_numpy(items[:, :-1].copy()), torch.from_numpy(targets), segments)


def read_items(stream: Stream, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Items [start, stop) and where among them a document begins."""
    begins = np.zeros(stop - start, dtype=bool)
    begins[stream.borders(start, stop)] = True
    return stream.read(start, stop).astype(np.int64), begins


def _held_out_row(stream: Stream, begin: int, length: int) -> Row:
    items, begins = read_items(stream, begin, min(begin + length + 1, len(stream)))
    missing = length + 1 - len(items)
    return Row(np.pad(items, (0, missing)), np.pad(begins, (0, missing)), len(items) - 1)


def _join(
    first: tuple[NDArray[np.int64], NDArray[np.bool_]], second: tuple[NDArray[np.int64], NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
