"""Least squares: how often to use each shape of row, so that the shapes use up the histogram of lengths.

Paper: "Efficient Sequence Packing without Cross-contamination: Accelerating Large Language Models without Impacting
Performance" (2021, 2107.02027), algorithm NNLSHP.

    A: one column a shape, row l counts how often the shape holds length l; shapes fill a row exactly    (1)
    min || w (A x - b) ||  over x >= 0, b the histogram; w small for short lengths                        (2)
    x is rounded; shapes take what is there, and what is left over goes into further rows                 (3)

| code | paper |
|---|---|
| depth | the packing depth, at most 3 in the paper too |
| short, light | lengths up to 8 get the weight 0.09: they can be left over, since they fit anywhere |

Deviates: what is left over after rounding is packed longest first into the first row with room, where the paper leaves
one document a row; the shapes of three are all of them, so a capacity of some thousands is too much for this page (the
shapes grow with its square), as it is for the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runnel.packings import Shape, check_lengths, rows_of

PAPERS = {
    "Efficient Sequence Packing without Cross-contamination: Accelerating Large Language Models without Impacting "
    "Performance": "2107.02027"
}


@dataclass(frozen=True)
class Config:
    """depth: documents in a planned row at most, 1 to 3."""

    depth: int = 3
    short: int = 8
    light: float = 0.09

    def __post_init__(self) -> None:
        if self.depth not in (1, 2, 3) or not 0 < self.light <= 1:
            raise ValueError(f"least_squares needs depth 1, 2 or 3, 0 < light <= 1; got {self.depth}, {self.light}")


def pack(lengths: Sequence[int], capacity: int, config: Config | None = None) -> list[list[int]]:
    """Rows of document indices; every document is in one row."""
    config, counts = config or Config(), check_lengths(lengths, capacity)
    histogram = np.array([counts[length] for length in range(1, capacity + 1)], dtype=np.float64)
    shapes = [shape for shape in exact_shapes(capacity, config.depth) if all(counts[length] for length in shape)]
    planned = solve(shapes, histogram, config) if shapes else np.zeros(0)
    used: list[tuple[Shape, int]] = []
    for at in np.argsort(-planned):
        times = min(round(planned[at]), *[counts[x] // shapes[at].count(x) for x in shapes[at]])
        counts.subtract({length: times * shapes[at].count(length) for length in set(shapes[at])})
        used.append((shapes[at], times))
    left = sorted(counts.elements(), reverse=True)
    return rows_of([*used, *[(row, 1) for row in first_fit(left, capacity)]], lengths)  # eq. (3)


def solve(shapes: Sequence[Shape], histogram: NDArray[np.float64], config: Config) -> NDArray[np.float64]:
    """x of eq. (2)."""
    from scipy.optimize import nnls

    weights = np.where(np.arange(1, len(histogram) + 1) <= config.short, config.light, 1.0)
    uses = np.zeros((len(histogram), len(shapes)))
    for column, shape in enumerate(shapes):
        for length in shape:
            uses[length - 1, column] += 1
    return np.asarray(nnls(weights[:, None] * uses, weights * histogram)[0])


def exact_shapes(capacity: int, depth: int) -> list[Shape]:
    """All shapes of at most `depth` documents that fill a row, eq. (1)."""
    ones: list[Shape] = [(capacity,)]
    twos: list[Shape] = [(a, capacity - a) for a in range(1, capacity) if a >= capacity - a]
    threes: list[Shape] = [
        (a, b, capacity - a - b)
        for a in range(1, capacity - 1)
        for b in range(1, min(a, capacity - a - 1) + 1)
        if b >= capacity - a - b
    ]
    return [shape for group in (ones, twos, threes)[:depth] for shape in group]


def first_fit(lengths: Sequence[int], capacity: int) -> list[Shape]:
    """Each length into the first row with room for it."""
    rows: list[Shape] = []
    for length in lengths:
        at = next((i for i, row in enumerate(rows) if sum(row) + length <= capacity), None)
        if at is None:
            rows.append((length,))
        else:
            rows[at] = (*rows[at], length)
    return rows


def reference(lengths: Sequence[int], capacity: int) -> int:
    """The fewest rows there can be, by trying every placement: for a handful of documents."""
    best = len(lengths)

    def place(index: int, rows: tuple[int, ...]) -> None:
        nonlocal best
        if len(rows) >= best:
            return
        if index == len(lengths):
            best = len(rows)
            return
        for at in range(len(rows)):
            if rows[at] + lengths[index] <= capacity:
                place(index + 1, (*rows[:at], rows[at] + lengths[index], *rows[at + 1 :]))
        place(index + 1, (*rows, lengths[index]))

    place(0, ())
    return best
