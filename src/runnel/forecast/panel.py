"""Panel: many series on regular grids, made from a long frame; what is wrong with a series is said, not raised.

A series with a problem (times twice, off the grid, infinite values, no value at all) is left out of fitting and its
forecasts are NaN; `problems` says why. Gaps are filled with missing values and named in `gaps`. Rows may come in any
order. Everything is done on whole columns: there is no loop over series.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from runnel.forecast.calendar import Calendar

Array = NDArray[Any]
SHOWN = 3
"""Names of series in a message."""
SPARSE = 50
"""A series whose grid has more rows than so many times its own (and 10,000) is taken for a mistake in freq."""


@dataclass(frozen=True)
class Columns:
    """Names of columns: of the series, its times, its values, and covariates by kind."""

    id: str = "unique_id"
    time: str = "ds"
    target: str = "y"
    past: tuple[str, ...] = ()
    future: tuple[str, ...] = ()
    static: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Panel:
    """Series with names `ids`, one after the other in `values` (NaN where missing), `lengths` rows each.

    starts_at: the first time of each series. covariates: (R, past + future). problems: series left out, and why.
    gaps: a row per gap: series, the last time before it, the first after it, how many rows are missing.
    """

    ids: Array
    calendar: Calendar
    starts_at: Array
    lengths: Int[Array, "S"]
    values: Float[Array, "R"]
    covariates: Float[Array, "R X"]
    problems: Mapping[Any, str]
    gaps: pd.DataFrame

    @property
    def first_rows(self) -> Int[Array, "S"]:
        return self.lengths.cumsum() - self.lengths

    def last_times(self) -> Array:
        return self.calendar.shift(self.starts_at, self.lengths - 1)


def to_pandas(frame: Any) -> pd.DataFrame:
    """A pandas frame from a pandas or polars frame, or the path of a CSV or Parquet file."""
    if isinstance(frame, pd.DataFrame):
        return frame
    if isinstance(frame, str | Path):
        return read(frame)
    if hasattr(frame, "to_numpy") and hasattr(frame, "columns"):  # polars, which may lack what its own to_pandas needs
        return pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})
    raise ValueError(f"a frame must be of pandas or polars, or a path; got {type(frame).__name__}")


def like(frame: pd.DataFrame, given: Any) -> Any:
    """The frame as one of the kind that was given."""
    if type(given).__module__.partition(".")[0] != "polars":
        return frame
    import polars

    return polars.DataFrame({name: frame[name].to_numpy() for name in frame.columns})


def read(path: str | Path) -> pd.DataFrame:
    """A CSV or Parquet file; a wide one (a column of times, a numeric column a series) is turned into a long one."""
    if str(path).endswith((".parquet", ".pq")):
        return pd.read_parquet(path)
    frame = pd.read_csv(path)
    if {"unique_id", "ds", "y"} <= set(frame.columns):
        return frame.assign(ds=times_of(frame["ds"]))
    return long(frame)


def long(frame: pd.DataFrame) -> pd.DataFrame:
    """A wide frame as a long one. ValueError when its columns after the first are not numbers."""
    time, *series = frame.columns
    if not series:
        raise ValueError(f"a wide table must have a column of times and one a series; got {list(frame.columns)}")
    for name in series:
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ValueError(f"columns of a wide table must be numbers after the first; {name!r} is not")
    melted = frame.rename(columns={time: "ds"}).melt("ds", var_name="unique_id", value_name="y")
    return melted.assign(ds=times_of(melted["ds"]))[["unique_id", "ds", "y"]]


def times_of(column: pd.Series) -> pd.Series:
    if pd.api.types.is_numeric_dtype(column):
        return column
    try:
        return pd.to_datetime(column)
    except (ValueError, TypeError):
        pass
    try:
        return pd.to_datetime(column, format="ISO8601")  # dates, and times of days among them
    except (ValueError, TypeError) as error:
        raise ValueError(f"the column of times must hold dates or numbers: {error}") from None


def make(frame: pd.DataFrame, columns: Columns, freq: Any = None) -> Panel:
    """The panel of a long frame. ValueError when columns are missing, no series is usable or freq cannot be told."""
    _check(frame, columns)
    times = times_of(frame[columns.time])
    if times.isna().any():
        raise ValueError(f"{columns.time} must have a time in every row; row {int(times.isna().argmax())} has none")
    codes, ids = pd.factorize(frame[columns.id], sort=True)
    stamps, y = times.to_numpy(), frame[columns.target].to_numpy(dtype=float, na_value=np.nan)
    extra = frame[[*columns.past, *columns.future]].to_numpy(dtype=float, na_value=np.nan)
    order = np.lexsort((stamps, codes))
    codes, stamps, y, extra = codes[order], stamps[order], y[order], extra[order]
    problems: dict[int, str] = {}
    _note(problems, codes[np.isinf(y)], "has infinite values")
    _note(problems, codes[np.isinf(extra).any(1)], "has infinite covariates")
    _note(problems, codes[1:][(codes[1:] == codes[:-1]) & (stamps[1:] == stamps[:-1])], "has a time twice")
    known = np.bincount(codes[~np.isnan(y)], minlength=len(ids))
    _note(problems, np.flatnonzero(known == 0), "has no value")
    begun = _begun(codes, ~np.isnan(y))  # rows before the first value say nothing
    codes, stamps, y, extra = codes[begun], stamps[begun], y[begun], extra[begun]
    usable = ~np.isin(codes, list(problems))
    if not usable.any():
        say({ids[code]: text for code, text in problems.items()}, 0)
    calendar = Calendar.of(stamps[usable], codes[usable], freq)
    places, on_grid = calendar.places(stamps, codes)
    _note(problems, codes[~on_grid], f"has times off the grid of {calendar.freq!r}")
    rows = np.bincount(codes, minlength=len(ids))
    ends = np.flatnonzero(np.r_[codes[1:] != codes[:-1], True]) if len(codes) else np.zeros(0, int)
    spans = np.zeros(len(ids), int)
    spans[codes[ends]] = places[ends] + 1
    _note(problems, np.flatnonzero(spans > SPARSE * rows + 10_000), f"is far too sparse for freq {calendar.freq!r}")
    good = np.setdiff1d(np.arange(len(ids)), list(problems))
    named = {ids[code]: text for code, text in sorted(problems.items())}
    say(named, len(good))
    return _laid_out(ids, good, codes, stamps, places, spans, y, extra, calendar, named)


def joined(found: Panel, columns: Columns, new: pd.DataFrame) -> pd.DataFrame:
    """The rows of a panel and further ones; a new row of a known time takes the place of the old one."""
    steps = np.arange(len(found.values)) - np.repeat(found.first_rows, found.lengths)
    times = found.calendar.shift(np.repeat(found.starts_at, found.lengths), steps)
    keys = [columns.id, columns.time]
    old = pd.DataFrame({keys[0]: np.repeat(found.ids, found.lengths), keys[1]: times})
    old[columns.target] = found.values
    for at, name in enumerate((*columns.past, *columns.future)):
        old[name] = found.covariates[:, at]
    new = new.assign(**{keys[1]: times_of(new[keys[1]]).astype(old[keys[1]].dtype)})
    return pd.concat([old, new[old.columns]], ignore_index=True).drop_duplicates(keys, keep="last")


def _laid_out(
    ids: Any,
    good: Int[Array, "S"],
    codes: Int[Array, "R"],
    stamps: Array,
    places: Int[Array, "R"],
    spans: Int[Array, "S2"],
    y: Float[Array, "R"],
    extra: Float[Array, "R X"],
    calendar: Calendar,
    problems: Mapping[Any, str],
) -> Panel:
    """Rows of the good series at their places of the grid, NaN between them."""
    keep = np.isin(codes, good)
    codes, stamps, places, y, extra = codes[keep], stamps[keep], places[keep], y[keep], extra[keep]
    number = np.zeros(len(ids), int)
    number[good] = np.arange(len(good))
    series, lengths = number[codes], spans[good]
    rows = (lengths.cumsum() - lengths)[series] + places
    values, covariates = np.full(lengths.sum(), np.nan), np.full((lengths.sum(), extra.shape[1]), np.nan)
    values[rows], covariates[rows] = y, extra
    inside = np.flatnonzero((series[1:] == series[:-1]) & (places[1:] - places[:-1] > 1))
    gaps = pd.DataFrame(
        {
            "unique_id": np.asarray(ids)[good][series[inside]],
            "after": stamps[inside],
            "before": stamps[inside + 1],
            "missing": places[inside + 1] - places[inside] - 1,
        }
    )
    starts = stamps[np.r_[True, series[1:] != series[:-1]]]
    return Panel(np.asarray(ids)[good], calendar, starts, lengths, values, covariates, problems, gaps)


def _check(frame: pd.DataFrame, columns: Columns) -> None:
    needed = [columns.id, columns.time, columns.target, *columns.past, *columns.future]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame must have the columns {needed}; it lacks {missing}, it has {list(frame.columns)}")
    if len(frame) == 0:
        raise ValueError("the frame must have at least one row; it has none")
    for name in (columns.target, *columns.past, *columns.future):
        if not pd.api.types.is_numeric_dtype(frame[name]):
            raise ValueError(f"column {name!r} must hold numbers; got {frame[name].dtype}")


def _begun(codes: Int[Array, "R"], known: Bool[Array, "R"]) -> Bool[Array, "R"]:
    """Rows at or after the first known value of their series."""
    seen = known.cumsum()
    first = np.r_[True, codes[1:] != codes[:-1]]
    before = np.maximum.accumulate(np.where(first, seen - known, 0))
    return seen > before


def _note(problems: dict[int, str], codes: Sequence[int] | Array, text: str) -> None:
    for code in np.unique(codes):
        problems.setdefault(int(code), text)


def say(problems: Mapping[Any, str], usable: int) -> None:
    """Warn of series that are left out. ValueError when none is usable."""
    if not problems:
        return
    shown = "; ".join(f"{name} {text}" for name, text in list(problems.items())[:SHOWN])
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    if usable == 0:
        raise ValueError(f"at least one series must be usable; none is: {shown}{more}")
    warnings.warn(f"{len(problems)} series left out: {shown}{more}", stacklevel=4)
