"""Packings: how documents of many lengths become rows with little padding. One page an algorithm.

A page has a `Config`, `pack` or `batches`, and `reference`, the same thing document by document.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from runnel.types import IGNORE, Batch

Shape = tuple[int, ...]
"""The lengths of the documents of a row, longest first."""


def rows_of(shapes: Iterable[tuple[Shape, int]], lengths: Sequence[int]) -> list[list[int]]:
    """Rows of document indices, every document once, from how often a row of each shape is made.

    A place for which no document is left stays empty; AssertionError when a document finds no place.
    """
    waiting = defaultdict(list)
    for index in reversed(range(len(lengths))):
        waiting[lengths[index]].append(index)
    rows = []
    for shape, count in shapes:
        for _ in range(count):
            rows.append([waiting[length].pop() for length in shape if waiting[length]])
    assert not any(waiting.values()), "a packing places every document"
    return [row for row in rows if row]


def fill(rows: Sequence[Sequence[int]], lengths: Sequence[int], capacity: int) -> float:
    """Share of all columns that hold a document's token."""
    return sum(lengths[index] for row in rows for index in row) / (capacity * len(rows))


def check_lengths(lengths: Sequence[int], capacity: int) -> Counter[int]:
    """How many documents there are of each length. ValueError when one is empty or longer than a row."""
    for index, length in enumerate(lengths):
        if not 1 <= length <= capacity:
            raise ValueError(f"documents must have 1 to {capacity} tokens; document {index} has {length}")
    return Counter(lengths)


def to_batch(documents: Sequence[Tensor], row_plan: Sequence[Sequence[int]], capacity: int) -> Batch:
    """Rows of whole documents: no token of one precedes another's, and the first of each is never a target."""
    inputs = torch.zeros(len(row_plan), capacity, dtype=torch.long)
    targets, segments = torch.full_like(inputs, IGNORE), torch.full_like(inputs, -1)
    for row, plan in enumerate(row_plan):
        at = 0
        for place, index in enumerate(plan):
            end = at + len(documents[index])
            inputs[row, at:end], segments[row, at:end] = documents[index], place
            targets[row, at : end - 1] = documents[index][1:]
            at = end
    return Batch(inputs, targets, segments)
