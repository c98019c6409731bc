"""Shortest-pack-first: the longest documents first, each into the row with the most room, by histogram of lengths.

Paper: "Efficient Sequence Packing without Cross-contamination: Accelerating Large Language Models without Impacting
Performance" (2021, 2107.02027), algorithm SPFHP.

    for length l from the longest to the shortest, n documents of it:                                  (1)
        the rows with the least in them take one each, if l fits and they hold fewer than `most`       (2)
        what is left over fills new rows, one after the other                                          (3)

| code | paper |
|---|---|
| capacity | s_m, the largest sequence length |
| most | the packing depth: documents in a row at most |
| open | the tuples of strategies, by what they hold, with their repeat counts |

Rows of one fill are moved together, so the cost depends on the number of different lengths, not of documents. What
makes a packed row exact is elsewhere: `Lineage.packed` keeps every document's state and attention to itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from runnel.packings import Shape, check_lengths, rows_of

PAPERS = {
    "Efficient Sequence Packing without Cross-contamination: Accelerating Large Language Models without Impacting "
    "Performance": "2107.02027"
}


@dataclass(frozen=True)
class Config:
    """most: documents in a row at most; None: as many as fit."""

    most: int | None = None

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ValueError(f"shortest_pack_first needs most >= 1; got {self.most}")


def pack(lengths: Sequence[int], capacity: int, config: Config | None = None) -> list[list[int]]:
    """Rows of document indices; every document is in one row."""
    most, open_, full = (config or Config()).most, Counter[Shape](), Counter[Shape]()
    for length, count in sorted(check_lengths(lengths, capacity).items(), reverse=True):
        while count and open_:
            shape = min(open_, key=lambda shape: (sum(shape), shape))
            if sum(shape) + length > capacity:
                break
            taken = min(count, open_[shape])
            longer = (*shape, length)
            (full if len(longer) == most else open_)[longer] += taken  # eq. (2)
            open_[shape] -= taken
            open_, count = +open_, count - taken
        most_of_it = min(capacity // length, most or capacity)
        for size, rows in ((most_of_it, count // most_of_it), (count % most_of_it, 1)):  # eq. (3)
            if size and rows:
                (full if size == most else open_)[(length,) * size] += rows
    return rows_of((open_ + full).items(), lengths)


def reference(lengths: Sequence[int], capacity: int, most: int | None = None) -> list[list[int]]:
    """Document by document."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fits = [row for row in rows if sum(row) + length <= capacity and (most is None or len(row) < most)]
        if fits:
            min(fits, key=lambda row: (sum(row), row)).append(length)
        else:
            rows.append([length])
    return rows
