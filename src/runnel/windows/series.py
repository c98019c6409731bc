"""Many series in one table, and windows of them that are cut when they are asked for, never all at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from runnel.windows.window import Window, WindowShape


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """Rows of all series, one series after the other.

    values: without missing values (filled from the past); missing: where they were. lengths: rows of each series.
    future: covariates known ahead; each series has `ahead` more rows of them than of values. static: a row a series.
    """

    values: Float[Tensor, "R C"]
    lengths: Int[Tensor, "S"]
    missing: Tensor | None = None
    past: Float[Tensor, "R P"] | None = None
    future: Float[Tensor, "R2 F"] | None = None
    static: Float[Tensor, "S N"] | None = None
    ahead: int = 0
    starts: Int[Tensor, "S"] = field(init=False)

    def __post_init__(self) -> None:
        assert int(self.lengths.sum()) == self.values.shape[0], "every row belongs to a series"
        object.__setattr__(self, "starts", self.lengths.cumsum(0) - self.lengths)

    @property
    def count(self) -> int:
        return self.lengths.shape[0]

    def windows(self, shape: WindowShape, low: Int[Tensor, "S"], high: Int[Tensor, "S"], stride: int = 1) -> WindowSet:
        """All windows whose targets lie in rows [low, high) of their series.

        A series with too few rows before them has its first row repeated in front.
        """
        counts = ((high - shape.horizon - low) // stride + 1).clamp(min=0)
        series = torch.repeat_interleave(torch.arange(self.count), counts)
        step = torch.arange(series.shape[0]) - (counts.cumsum(0) - counts)[series]
        return WindowSet(self, shape, series, low[series] + step * stride)

    def latest(self, shape: WindowShape) -> WindowSet:
        """One window a series, of what follows its last row."""
        return WindowSet(self, shape, torch.arange(self.count), self.lengths)


@dataclass(frozen=True, eq=False)
class WindowSet:
    """Windows by series and by the row that their forecast begins with."""

    table: SeriesTable
    shape: WindowShape
    series: Int[Tensor, "N"]
    first: Int[Tensor, "N"]

    def __len__(self) -> int:
        return self.series.shape[0]

    def take(self, index: Int[Tensor, "B"]) -> Window:
        """The windows at these places. The target is None where the series ends before it."""
        table, shape = self.table, self.shape
        series, first = self.series[index], self.first[index]
        start, length = table.starts[series][:, None], table.lengths[series][:, None]
        back = (first[:, None] + torch.arange(-shape.history, 0)).clamp(min=0) + start
        target = None
        ahead = first[:, None] + torch.arange(shape.horizon)
        if bool((ahead[:, -1:] < length).all()):
            target = table.values[start + ahead]
            if table.missing is not None:
                target = target.masked_fill(table.missing[start + ahead], torch.nan)
        future = None
        if table.future is not None:
            both = (first[:, None] + torch.arange(-shape.history, shape.horizon)).clamp(min=0)
            future = table.future[start + series[:, None] * table.ahead + both]
        past = None if table.past is None else table.past[back]
        static = None if table.static is None else table.static[series]
        return Window(table.values[back], target, past, future, static)

    def batches(self, size: int) -> Iterator[Window]:
        """All of them in order."""
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))

    def every(self, step: int) -> WindowSet:
        """Every `step`th window."""
        return replace(self, series=self.series[::step], first=self.first[::step])

    def between(self, low: float, high: float) -> WindowSet:
        """By time, in each series: windows whose targets all lie from one share of its rows to another.

        low, high: in [0, 1], of the rows up to the last target of the windows.
        """
        end = torch.zeros(self.table.count, dtype=torch.long)
        end = end.scatter_reduce(0, self.series, self.first + self.shape.horizon, "amax")
        begin, stop = (low * end).long(), (high * end).long()
        kept = (self.first >= begin[self.series]) & (self.first + self.shape.horizon <= stop[self.series])
        return replace(self, series=self.series[kept], first=self.first[kept])

    def seen_by(self, shape: WindowShape) -> WindowSet:
        """The same forecasts from another length of history."""
        assert shape.horizon == self.shape.horizon, "windows of one horizon"
        return replace(self, shape=shape)


def one_series(values: Float[Tensor, "R C"]) -> SeriesTable:
    """The table of a single series of C channels."""
    return SeriesTable(values, torch.tensor([values.shape[0]]))
