"""Cross-validation: what would have been forecast from earlier cutoffs, beside what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from jaxtyping import Bool, Int

from runnel.forecast import panel
from runnel.forecast.panel import Array, Columns, Panel
from runnel.windows.model import Progress

if TYPE_CHECKING:
    from runnel.forecast.forecaster import Forecaster


def run(
    forecaster: Forecaster,
    df: Any,
    n_windows: int,
    step: int,
    refit: bool,
    level: Sequence[float] | None,
    static_df: Any,
    progress: Progress,
) -> Any:
    """As `Forecaster.cross_validation`, which says what everything means. step: rows between cutoffs."""
    if n_windows < 1 or step < 1:
        raise ValueError(f"n_windows and step_size must be at least 1; got {n_windows} and {step}")
    frame, columns = panel.to_pandas(df), forecaster.columns
    whole = panel.make(frame, columns, forecaster.freq)
    back = whole.lengths - forecaster.h - (n_windows - 1) * step
    kept = _long_enough(whole, back)
    other, parts = forecaster._copy(), []
    for number in range(n_windows):
        progress(number / n_windows, f"cutoff {number + 1} of {n_windows}")
        times = whole.calendar.shift(whole.starts_at[kept], back[kept] - 1 + number * step)
        cutoff = pd.Series(times, index=whole.ids[kept])
        before = _until(frame, columns, cutoff)
        if number == 0 or refit:
            other.fit(frame[before], static_df)
        ahead = frame[~before] if columns.future else None
        forecast = panel.to_pandas(other.predict(frame[before], level=level, futr_df=ahead))
        forecast.insert(2, "cutoff", cutoff.reindex(forecast[columns.id]).to_numpy())
        parts.append(forecast)
    progress(1.0, "done")
    return panel.like(_with_truth(pd.concat(parts, ignore_index=True), frame, columns), df)


def _long_enough(whole: Panel, back: Int[Array, "S"]) -> Bool[Array, "S"]:
    """The series that have a row before the first cutoff; the others are named. ValueError when there is none."""
    kept = back >= 1
    if not kept.all():
        needed = int(whole.lengths.max() - back.max()) + 1
        panel.say(dict.fromkeys(whole.ids[~kept], f"has fewer than {needed} rows"), int(kept.sum()))
    return kept


def _until(frame: pd.DataFrame, columns: Columns, cutoff: pd.Series) -> Any:
    """Which rows are of a known series and not after its cutoff."""
    limits = frame[columns.id].map(pd.to_numeric(cutoff))
    return (limits.notna() & (pd.to_numeric(frame[columns.time]) <= limits)).to_numpy()


def _with_truth(forecasts: pd.DataFrame, frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """The forecasts, with what came in the column after the cutoff."""
    keys = [columns.id, columns.time]
    truth = frame[[*keys, columns.target]].assign(**{columns.time: panel.times_of(frame[columns.time])})
    merged = forecasts.merge(truth, on=keys, how="left")
    merged.insert(3, columns.target, merged.pop(columns.target))
    return merged
