"""The protocol of the standard table of long-horizon forecasting (Informer, 2020, 2012.07436), on ETT-like files.

Rows [0, a) train, [a, b) validate and [b, c) test, a, b, c = 8,640, 11,520 and 14,400 hours; every channel is
standardised by its mean and (population) standard deviation over the train rows. Histories may reach back over a
boundary, targets may not. Windows have stride 1 and none is dropped: 2,785 test windows at horizon 96, 2,161 at 720.
MSE and MAE are means over all windows, steps and channels of the standardised values.
"""

from __future__ import annotations

import csv
import math
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import SeriesTable, Window, WindowModel, WindowSet, WindowShape, one_series

HOURS = (8640, 11520, 14400)
"""Ends of train, validation and test: 12, 4 and 4 months of 30 days."""
BATCH = 128
TIMEOUT = 30.0


@dataclass(frozen=True)
class Score:
    """mse, mae: over windows, steps and channels. losses: (N,) squared error of each window, in order of time."""

    mse: float
    mae: float
    losses: Float[Tensor, "N"]

    @property
    def windows(self) -> int:
        return len(self.losses)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """One file under the protocol. table: standardised; loc, scale: what takes it back; ends: of the three parts.

    calendar: hour, weekday, day of the month and of the year of each row, in [-0.5, 0.5]; None without dates.
    """

    name: str
    columns: tuple[str, ...]
    table: SeriesTable
    loc: Float[Tensor, "C"]
    scale: Float[Tensor, "C"]
    ends: tuple[int, int, int]
    season: int
    calendar: Float[Tensor, "R 4"] | None = None

    def shape(self, history: int, horizon: int) -> WindowShape:
        known = 0 if self.table.future is None else self.table.future.shape[1]
        return WindowShape(history, horizon, len(self.columns), future=known, season=self.season)

    def with_calendar(self) -> Benchmark:
        """The same, its calendar being covariates that are known ahead. ValueError where there are no dates."""
        if self.calendar is None:
            raise ValueError(f"{self.name} must have dates in its first column; they cannot be read")
        return replace(self, table=replace(self.table, future=self.calendar))

    def train(self, shape: WindowShape) -> WindowSet:
        return self._windows(shape, shape.history, self.ends[0])

    def valid(self, shape: WindowShape) -> WindowSet:
        return self._windows(shape, self.ends[0], self.ends[1])

    def test(self, shape: WindowShape) -> WindowSet:
        return self._windows(shape, self.ends[1], self.ends[2])

    def _windows(self, shape: WindowShape, low: int, high: int) -> WindowSet:
        if low < shape.history:
            raise ValueError(f"history must be at most {low} rows, those before the first target; got {shape.history}")
        windows = self.table.windows(shape, torch.tensor([low]), torch.tensor([high]))
        if len(windows) == 0:
            size = f"{shape.history} + {shape.horizon} rows"
            raise ValueError(f"{self.name} must have windows of {size} before row {high}; it has none")
        return windows


def read(path: str | Path) -> Benchmark:
    """A CSV file or URL of one: a first column of dates, one numeric column a channel.

    Steps are hours, or a whole fraction of one: the parts then have as many more rows (34,560 and so on for quarters).
    A file that is too short for the standard parts is cut at 60%, 80% and 100% of its rows.
    """
    lines = _lines(str(path))
    header, rows = next(lines), list(lines)
    try:
        values = torch.tensor([[float(cell) for cell in row[1:]] for row in rows], dtype=torch.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold a date and numbers in every row: {error}") from None
    if values.dim() != 2 or not bool(values.isfinite().all()):
        raise ValueError(f"{path} must hold finite numbers, as many in every row")
    per_hour = _rows_per_hour([row[0] for row in rows[:2]])
    ends = tuple(hours * per_hour for hours in HOURS)
    if len(values) < ends[2]:
        ends = tuple(len(values) * share // 10 for share in (6, 8, 10))
    train = values[: ends[0]]
    loc, scale = train.mean(0), train.std(0, unbiased=False)
    standard = (values - loc) / torch.where(scale > 0, scale, 1.0)
    name = Path(str(path)).stem
    first, second, third = ends
    table = one_series(standard[:third].float())
    calendar = _calendar([row[0] for row in rows[:third]])
    return Benchmark(name, tuple(header[1:]), table, loc, scale, (first, second, third), 24 * per_hour, calendar)


@torch.no_grad()
def evaluate(model: WindowModel | Sequence[WindowModel], windows: WindowSet) -> Score:
    """Errors of a model (the mean forecast of several) on windows, summed in float64."""
    models = [model] if isinstance(model, WindowModel) else model
    squares, absolutes, count, losses = 0.0, 0.0, 0, []
    for window in windows.batches(BATCH):
        assert window.target is not None
        error = (_mean(models, window) - window.target).double()
        squares += float(error.square().sum())
        absolutes += float(error.abs().sum())
        count += error.numel()
        losses.append(error.square().mean((1, 2)))
    if not math.isfinite(squares):
        raise ValueError("forecasts must be finite; the model gave NaN or infinity")
    return Score(squares / count, absolutes / count, torch.cat(losses))


def _mean(models: Sequence[WindowModel], window: Window) -> Tensor:
    return torch.stack([m.point(window.recent(m.shape.history)) for m in models]).mean(0)


def _lines(path: str) -> Iterator[list[str]]:
    """The rows of a CSV file, cells as they stand."""
    if path.startswith(("http://", "https://")):
        with urllib.request.urlopen(path, timeout=TIMEOUT) as reply:
            text = reply.read().decode("utf-8")
    else:
        text = Path(path).read_text(encoding="utf-8")
    return iter([row for row in csv.reader(text.splitlines()) if row])


def _rows_per_hour(dates: Sequence[str]) -> int:
    """From the first two dates; 1 where they are an hour or more apart, or no dates."""
    try:
        first, second = map(datetime.fromisoformat, dates)
    except ValueError:
        return 1
    seconds = (second - first).total_seconds()
    return max(1, round(3600 / seconds)) if seconds > 0 else 1


def _calendar(dates: Sequence[str]) -> Float[Tensor, "R 4"] | None:
    try:
        times = [datetime.fromisoformat(date) for date in dates]
    except ValueError:
        return None
    places = [(t.hour / 23, t.weekday() / 6, (t.day - 1) / 30, (t.timetuple().tm_yday - 1) / 365) for t in times]
    return torch.tensor(places) - 0.5
