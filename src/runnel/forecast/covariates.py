"""Covariates: one value a series, and values that are known ahead; asked for, checked, standardised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from runnel.forecast import panel, scaling
from runnel.forecast.panel import Columns, Panel
from runnel.forecast.scaling import Scales


def static_table(static_df: Any, columns: Columns, found: Panel) -> pd.DataFrame | None:
    """One row a series, standardised over the series of the panel; None where there are no such covariates."""
    names = list(columns.static)
    if not names:
        return None
    if static_df is None:
        raise ValueError(f"static covariates {names} need static_df, a row a series")
    table = panel.to_pandas(static_df)
    if missing := [name for name in (columns.id, *names) if name not in table.columns]:
        raise ValueError(f"static_df must have the columns {[columns.id, *names]}; it lacks {missing}")
    values = table.set_index(columns.id)[names].astype(float)
    kept = values[values.index.isin(found.ids)]
    return ((values - kept.mean()) / kept.std(ddof=0).replace(0.0, 1.0).fillna(1.0)).fillna(0.0)


def ahead(
    futr_df: Any, columns: Columns, found: Panel, scales: Scales, horizon: int
) -> Float[NDArray[np.float64], "R F"] | None:
    """Covariates known ahead, standardised: the rows of each series, and `horizon` more; None where there are none.

    ValueError names the first step of the first series that lacks a finite value.
    """
    names, keys = list(columns.future), [columns.id, columns.time]
    if not names:
        return None
    if futr_df is None:
        raise ValueError(f"covariates {names} need futr_df: their values at the next {horizon} times of each series")
    frame = panel.to_pandas(futr_df)
    if missing := [name for name in (*keys, *names) if name not in frame.columns]:
        raise ValueError(f"futr_df must have the columns {[*keys, *names]}; it lacks {missing}")
    frame = frame.assign(**{keys[1]: panel.times_of(frame[keys[1]])})
    times = found.calendar.after(found.last_times(), horizon)
    wanted = pd.DataFrame({keys[0]: np.repeat(found.ids, horizon), keys[1]: times.ravel()})
    given = wanted.merge(frame[[*keys, *names]].drop_duplicates(keys), on=keys, how="left")[names].to_numpy(float)
    lacking = ~np.isfinite(given).all(1)
    if lacking.any():
        row, count = wanted.iloc[int(lacking.argmax())], int(lacking.sum())
        first = f"the first is {row[keys[0]]!r} at {row[keys[1]]}"
        raise ValueError(f"futr_df must have finite values at every step; {count} are missing, {first}")
    past = len(columns.past)
    loc, scale = scales.covariate_loc[past:], scales.covariate_scale[past:]
    history = (scaling.filled(found.covariates, found.lengths)[:, past:] - loc) / scale
    parts = np.split(history, found.lengths.cumsum()[:-1])
    beyond = ((given - loc) / scale).reshape(len(found.ids), horizon, -1)
    return np.concatenate([rows for pair in zip(parts, beyond, strict=True) for rows in pair])
