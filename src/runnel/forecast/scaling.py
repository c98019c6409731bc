"""From a panel to a table that models read: filled from the past, standardised per series. Nothing looks ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from runnel.forecast.panel import Panel
from runnel.windows import SeriesTable

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Scales:
    """What is taken off and divided by: per series and channel, and per covariate over all series."""

    loc: Float[Array, "S C"]
    scale: Float[Array, "S C"]
    covariate_loc: Float[Array, "X"]
    covariate_scale: Float[Array, "X"]


def filled(values: Float[Array, "R X"], lengths: Int[Array, "S"]) -> Float[Array, "R X"]:
    """Missing values as the last known one of the same series and column; zero where there is none yet."""
    rows = np.arange(len(values))[:, None]
    starts = np.repeat(lengths.cumsum() - lengths, lengths)[:, None]
    known = np.where(np.isnan(values), -1, rows)
    last = np.maximum.accumulate(known, axis=0) if len(values) else known
    found = last >= starts
    columns = np.arange(values.shape[1])
    return np.where(found, values[np.maximum(last, 0), columns], 0.0)


def statistics(
    values: Float[Array, "R C"], lengths: Int[Array, "S"], upto: Int[Array, "S"]
) -> tuple[Float[Array, "S C"], Float[Array, "S C"]]:
    """Mean and standard deviation of the known values among the first `upto` rows of every series.

    A scale of zero (a constant series, or a single row) is one.
    """
    series = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(values)) - np.repeat(lengths.cumsum() - lengths, lengths)
    inside = (place < upto[series])[:, None] & ~np.isnan(values)
    count = np.maximum(_sums(inside.astype(float), series, len(lengths)), 1)
    loc = _sums(np.where(inside, values, 0.0), series, len(lengths)) / count
    squares = _sums(np.where(inside, values - loc[series], 0.0) ** 2, series, len(lengths)) / count
    scale = np.sqrt(squares)
    flat = scale <= 1e-9 * np.abs(loc)
    return loc, np.where(flat | (scale == 0), 1.0, scale)


def before(panel: Panel, held: Int[Array, "S"], together: bool) -> Scales:
    """Statistics of the rows before the held-out ones."""
    values, lengths = arranged(panel, together)
    loc, scale = statistics(values, lengths, lengths - held)
    if together:
        return Scales(loc, scale, np.zeros(0), np.ones(0))
    place = np.arange(len(values)) - np.repeat(panel.first_rows, lengths)
    keep = place < np.repeat(lengths - held, lengths)
    return Scales(loc, scale, *covariate_statistics(panel.covariates, keep))


def table(
    panel: Panel, scales: Scales, past: int, together: bool, ahead: Float[Array, "R2 F"] | None, static: Tensor | None
) -> SeriesTable:
    """The standardised table. ahead: covariates known over history and horizon, where they are given."""
    values, lengths = arranged(panel, together)
    series = np.repeat(np.arange(len(lengths)), lengths)
    missing = np.isnan(values)
    standard = (filled(values, lengths) - scales.loc[series]) / scales.scale[series]
    covariates = (filled(panel.covariates, panel.lengths) - scales.covariate_loc) / scales.covariate_scale
    known_ahead = covariates[:, past:] if ahead is None else ahead
    horizon = 0 if ahead is None or len(lengths) == 0 else (len(ahead) - len(covariates)) // len(lengths)
    return SeriesTable(
        torch.from_numpy(standard).float(),
        torch.from_numpy(lengths.astype(np.int64)),
        torch.from_numpy(missing) if missing.any() else None,
        torch.from_numpy(covariates[:, :past]).float() if past else None,
        torch.from_numpy(known_ahead).float() if known_ahead.shape[1] else None,
        static,
        horizon,
    )


def arranged(panel: Panel, together: bool) -> tuple[Float[Array, "R C"], Int[Array, "S"]]:
    """Values and lengths: a series a channel of one table, or series one after the other.

    ValueError when series that are to be channels do not begin and end together.
    """
    if not together:
        return panel.values[:, None], panel.lengths
    if len(np.unique(panel.starts_at)) > 1 or len(np.unique(panel.lengths)) > 1:
        raise ValueError("series that are forecast together must all have the same first and last time")
    count = len(panel.ids)
    return panel.values.reshape(count, -1).T.copy(), panel.lengths[:1]


def covariate_statistics(
    covariates: Float[Array, "R X"], keep: Bool[Array, "R"]
) -> tuple[Float[Array, "X"], Float[Array, "X"]]:
    """Mean and standard deviation of covariates over the rows to keep, of all series together."""
    if covariates.shape[1] == 0:
        return np.zeros(0), np.ones(0)
    kept = pd.DataFrame(covariates[keep])
    loc, scale = kept.mean().fillna(0.0).to_numpy(), kept.std(ddof=0).to_numpy()
    return loc, np.where(np.nan_to_num(scale) > 0, scale, 1.0)


def _sums(values: Float[Array, "R C"], series: Int[Array, "R"], count: int) -> Float[Array, "S C"]:
    columns = [np.bincount(series, column, minlength=count) for column in values.T]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))
