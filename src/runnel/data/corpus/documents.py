"""Rows of whole documents, arranged by a page of `runnel.packings`: packed, several a row, or one a row in buckets.

A document longer than a row is cut into pieces that overlap by one token, so that every token but the first of a
document is a target exactly once an epoch. Which documents share a row is decided once; the order of rows (or the
members and the order of batches) is drawn anew in each epoch. A batch is a pure function of (text, seed, index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runnel import catalog
from runnel.data._keyed import permute
from runnel.data.corpus.stream import Stream
from runnel.packings import fill, to_batch
from runnel.packings.buckets import Config, batches, padding
from runnel.types import Batch

Plan = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Pieces:
    """begins: (D,) int64, first item of every document, or piece of one, in a stream. lengths: (D,), at least 2."""

    stream: Stream
    begins: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(stream: Stream, stop: int, longest: int) -> Pieces:
        """Those of the items [0, stop)."""
        borders = np.append(stream.documents[stream.documents < stop], stop).tolist()
        found = [
            (begin, min(begin + longest, end) - begin)
            for start, end in pairwise(borders)
            for begin in range(start, end - 1, max(1, longest - 1))
        ]
        if longest < 2 or not found:
            raise ValueError(f"rows of documents need documents and rows of 2 tokens or more; rows have {longest}")
        begins, lengths = np.array(found, dtype=np.int64).T
        return Pieces(stream, begins, lengths)

    def read(self, plan: Plan) -> tuple[list[Tensor], Plan]:
        """The documents of some rows, and the rows counted in them."""
        indices = [index for row in plan for index in row]
        places = iter(range(len(indices)))
        return [self._read(index) for index in indices], [[next(places) for _ in row] for row in plan]

    def _read(self, index: int) -> Tensor:
        begin = int(self.begins[index])
        return torch.from_numpy(self.stream.read(begin, begin + int(self.lengths[index])).astype(np.int64))


class Packed:
    """`batch_size` rows of `length` columns, each with as many documents as a packing puts there."""

    def __init__(self, pieces: Pieces, length: int, batch_size: int, seed: int, packing: str) -> None:
        self.pieces, self.length, self.batch_size, self.seed = pieces, length, batch_size, seed
        lengths = pieces.lengths.tolist()
        self.rows: Plan = catalog.page("packings", packing).pack(lengths, length)
        alone = [[index] for index in range(len(lengths))]
        self.padding, self.padding_before = [1 - fill(rows, lengths, length) for rows in (self.rows, alone)]
        self.per_epoch = len(self.rows)

    def batch(self, index: int) -> Batch:
        """The index-th of a sequence without end."""
        first = index * self.batch_size
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.per_epoch)
        chosen = [
            int(row)
            for epoch in np.unique(epochs)
            for row in permute(places[epochs == epoch], self.per_epoch, self.seed, int(epoch))
        ]
        return to_batch(*self.pieces.read([self.rows[row] for row in chosen]), self.length)


class Bucketed:
    """One document a row, batches of documents of about one length: at most batch_size * length columns each."""

    def __init__(self, pieces: Pieces, length: int, batch_size: int, seed: int) -> None:
        self.pieces, self.config, self.columns = pieces, Config(outputs=1, seed=seed), batch_size * length
        self.lengths = [(size, size) for size in pieces.lengths.tolist()]
        self.per_epoch = len(self.lengths)
        self.plan = lru_cache(1)(self._plan)
        self.count = len(self.plan(0))  # the same in every epoch: only the members of a batch change
        everything = list(range(self.per_epoch))
        before = [everything[at : at + batch_size] for at in range(0, self.per_epoch, batch_size)]
        self.padding, self.padding_before = [padding(self.lengths, plan) for plan in (self.plan(0), before)]

    def batch(self, index: int) -> Batch:
        """The index-th of a sequence without end."""
        epoch, place = divmod(index, self.count)
        documents, rows = self.pieces.read([[piece] for piece in self.plan(epoch)[place]])
        found = to_batch(documents, rows, max(map(len, documents)))
        return replace(found, segments=None)  # what is empty comes after a document, so it changes nothing

    def _plan(self, epoch: int) -> list[list[int]]:
        return batches(self.lengths, self._fits, self.config, epoch)

    def _fits(self, count: int, longest: int, _: int) -> bool:
        return count * longest <= self.columns


def arrange(stream: Stream, stop: int, length: int, batch_size: int, seed: int, packing: str) -> Packed | Bucketed:
    """Batches of the items [0, stop) as a page of `packings` arranges them. ValueError when there is none such."""
    pieces = Pieces.of(stream, stop, length)
    if hasattr(catalog.page("packings", packing), "pack"):
        return Packed(pieces, length, batch_size, seed, packing)
    return Bucketed(pieces, length, batch_size, seed)
