"""Calendar: the grid that the times of a series lie on: whole numbers, fixed steps, or the calendar's own (months)."""

from __future__ import annotations

import itertools
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int
from numpy.typing import NDArray

Array = NDArray[Any]
SEASONS = {"min": 60, "h": 24, "D": 7, "B": 5, "W": 52, "MS": 12, "ME": 12, "QS": 4, "QE": 4, "YS": 1, "YE": 1}
TRIED = 50
"""Series from whose times a frequency is guessed."""


@dataclass(frozen=True)
class Calendar:
    """freq: a pandas offset, or a whole number where times are numbers."""

    freq: str | int

    @staticmethod
    def of(stamps: Array, codes: Int[Array, "R"], freq: Any) -> Calendar:
        """The calendar of `freq`, or, when that is None, of most of the series."""
        numbers = np.issubdtype(stamps.dtype, np.number)
        if freq is None:
            return Calendar(_commonest_step(stamps, codes) if numbers else _guessed(stamps, codes))
        if numbers != isinstance(freq, int | np.integer):
            kind = "numbers, so freq must be a whole number" if numbers else "dates, so freq must be a pandas offset"
            raise ValueError(f"times are {kind}; got {freq!r}")
        if numbers:
            if freq < 1:
                raise ValueError(f"freq must be at least 1; got {freq}")
            return Calendar(int(freq))
        try:
            return Calendar(pd.tseries.frequencies.to_offset(freq).freqstr)
        except ValueError:
            raise ValueError(f'freq must be a pandas offset such as "h", "D" or "MS"; got {freq!r}') from None

    @property
    def season(self) -> int:
        """Rows of the usual main season: a day of hours, a week of days, a year of months; 1 for numbers."""
        if isinstance(self.freq, int):
            return 1
        offset = pd.tseries.frequencies.to_offset(self.freq)
        if isinstance(offset, pd.offsets.Tick) and (step := pd.Timedelta(offset)) < pd.Timedelta(days=1):
            return max(1, round(pd.Timedelta(days=1) / step)) if step >= pd.Timedelta(minutes=5) else 60
        return SEASONS.get(offset.rule_code.partition("-")[0], 1) if offset.n == 1 else 1

    def places(self, stamps: Array, codes: Int[Array, "R"]) -> tuple[Int[Array, "R"], Bool[Array, "R"]]:
        """The row of every time on the grid that begins with its series, and whether it lies on the grid.

        codes: the series of each row, sorted; times are sorted within a series.
        """
        if len(stamps) == 0:
            return np.zeros(0, int), np.zeros(0, bool)
        starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
        first = np.repeat(starts, np.diff(np.r_[starts, len(codes)]))
        step = self._fixed_step(stamps.dtype)
        if step is not None:
            steps, rest = np.divmod(stamps - stamps[first], step)
            return steps.astype(int), rest == rest.dtype.type(0)
        grid = pd.date_range(stamps.min(), stamps.max(), freq=str(self.freq)).to_numpy()
        at = np.searchsorted(grid, stamps)
        on_grid = (at < len(grid)) & (grid[np.minimum(at, len(grid) - 1)] == stamps) if len(grid) else at < 0
        return at - at[first], on_grid

    def shift(self, stamps: Array, steps: Int[Array, "S"]) -> Array:
        """Every time moved on by its number of steps."""
        step = self._fixed_step(stamps.dtype)
        if step is not None:
            return stamps + steps * step
        offset = pd.tseries.frequencies.to_offset(self.freq)
        pairs = list(zip(stamps, steps.tolist(), strict=True))
        moved = {(stamp, count): pd.Timestamp(stamp) + count * offset for stamp, count in set(pairs)}
        return np.array([moved[pair].to_datetime64() for pair in pairs]).astype(stamps.dtype)

    def after(self, last: Array, horizon: int) -> Array:
        """(S, H): the times that follow."""
        unique, back = np.unique(last, return_inverse=True)
        ahead = np.stack([self.shift(unique, np.full(len(unique), k)) for k in range(1, horizon + 1)], axis=1)
        return ahead[back]

    def _fixed_step(self, dtype: Any) -> Any:
        """The step in the units of the times; None where it depends on the date."""
        if isinstance(self.freq, int):
            return self.freq
        offset = pd.tseries.frequencies.to_offset(self.freq)
        if isinstance(offset, pd.offsets.Tick | pd.offsets.Day):
            return (
                pd.Timedelta(f"{offset.n}D" if isinstance(offset, pd.offsets.Day) else offset)
                .to_numpy()
                .astype(f"timedelta64[{np.datetime_data(dtype)[0]}]")
            )
        return None


def _commonest_step(stamps: Array, codes: Int[Array, "R"]) -> int:
    steps = (stamps[1:] - stamps[:-1])[codes[1:] == codes[:-1]]
    steps = steps[steps > 0]
    return int(_commonest(steps)) if len(steps) else 1


def _guessed(stamps: Array, codes: Int[Array, "R"]) -> str:
    """The frequency of most of the first series, or the commonest step where none is regular."""
    bounds = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]]) if len(codes) else np.zeros(0, int)
    bounds = np.r_[bounds, len(codes)]
    found: Counter[str] = Counter()
    for low, high in itertools.pairwise(bounds[: TRIED + 1]):
        freq = _regular(stamps[low:high])
        if freq is not None:
            found[freq] += 1
    if found:
        return found.most_common(1)[0][0]
    steps = (stamps[1:] - stamps[:-1])[codes[1:] == codes[:-1]]
    steps = steps[steps > np.timedelta64(0)]
    if len(steps) == 0:
        raise ValueError('freq cannot be told from times that are alone: give freq, e.g. freq="h"')
    return str(pd.tseries.frequencies.to_offset(pd.Timedelta(_commonest(steps))).freqstr)


def _regular(stamps: Array) -> str | None:
    """The frequency of regular times; None where there is none, or fewer than three times."""
    if len(stamps) < 3:
        return None
    with warnings.catch_warnings():  # pandas 3 says that a later version gives the offset itself
        warnings.simplefilter("ignore")
        freq = pd.infer_freq(pd.DatetimeIndex(stamps))
    return None if freq is None else str(pd.tseries.frequencies.to_offset(freq).freqstr)


def _commonest(steps: Array) -> Any:
    values, counts = np.unique(steps, return_counts=True)
    return values[counts.argmax()]
