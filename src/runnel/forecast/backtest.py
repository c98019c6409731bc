"""Backtest: a forecaster beside the naive ones and ridge, from the same cutoffs of the same frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from runnel.forecast import metrics, panel
from runnel.forecast.forecaster import Forecaster
from runnel.storage import write_atomically

BESIDE = ("seasonal_naive", "last_value", "ridge")


@dataclass(frozen=True)
class Line:
    """One model. mase, rmsse: means over series and cutoffs. skill: against seasonal naive, by MAE of each series.

    coverage: of the interval of the level asked for. p: Diebold-Mariano against ridge over series and cutoffs.
    """

    model: str
    mae: float
    mase: float
    rmsse: float
    skill: float
    coverage: float
    p: float | None


def lines(
    forecaster: Forecaster,
    frame: pd.DataFrame,
    n_windows: int,
    level: float,
    progress: Callable[[float, str], None] = lambda done, text: None,
) -> list[Line]:
    """Cross-validate the forecaster and each that it is put beside, unless it is one of them. The first is its own."""
    named = {forecaster.name: forecaster}
    settings = {"h": forecaster.h, "freq": forecaster.freq, "season": forecaster.season, **_names(forecaster)}
    named.update({name: Forecaster(backbone=name, **settings) for name in BESIDE if name not in named})
    found: dict[str, pd.DataFrame] = {}
    for at, (name, model) in enumerate(named.items()):
        progress(at / len(named), f"backtest: {name}")
        found[name] = model.cross_validation(frame, n_windows, level=[level])
    season = forecaster.season or panel.make(frame, forecaster.columns, forecaster.freq).calendar.season
    scored = {name: _scores(out, name, level, frame, forecaster, season) for name, out in found.items()}
    return [_line(name, scored) for name in named]


def _scores(
    out: pd.DataFrame, name: str, level: float, frame: pd.DataFrame, forecaster: Forecaster, season: int
) -> pd.DataFrame:
    """A row for each series and cutoff: errors, and the share of values inside the interval."""
    columns = forecaster.columns
    history = {id: part.sort_values(columns.time) for id, part in frame.groupby(columns.id)}
    rows = []
    for (id, cutoff), part in out.groupby([columns.id, "cutoff"], sort=True):
        y, forecast = (part[column].to_numpy(float) for column in (columns.target, name))
        if np.isnan(y).all() or np.isnan(forecast).all():
            continue
        known = history[id]
        past: NDArray[Any] = known[known[columns.time] <= cutoff][columns.target].to_numpy(float)
        low, high = (part[f"{name}-{side}-{level:g}"].to_numpy(float) for side in ("lo", "hi"))
        scaled = metrics.mase(y, forecast, past, season), metrics.rmsse(y, forecast, past, season)
        inside = metrics.coverage(y, low, high)
        rows.append((id, cutoff, metrics.mae(y, forecast), metrics.mse(y, forecast), *scaled, inside))
    names = ["series", "cutoff", "mae", "mse", "mase", "rmsse", "coverage"]
    return pd.DataFrame(rows, columns=names)


def _line(name: str, scored: dict[str, pd.DataFrame]) -> Line:
    own, naive, rival = scored[name], scored["seasonal_naive"], scored["ridge"]
    errors = (table.groupby("series")["mae"].mean().tolist() for table in (own, naive))
    p = None
    if name != "ridge" and len(own) > 1:
        merged = own.merge(rival, on=["series", "cutoff"])
        p = metrics.diebold_mariano(merged["mse_x"].to_numpy(), merged["mse_y"].to_numpy()).p
    means = own[["mae", "mase", "rmsse", "coverage"]].mean()
    skill = metrics.skill(*errors)
    return Line(name, means["mae"], means["mase"], means["rmsse"], skill, means["coverage"], p)


def _names(forecaster: Forecaster) -> dict[str, str]:
    columns = forecaster.columns
    return {"id": columns.id, "time": columns.time, "target": columns.target}


def picture(
    frame: pd.DataFrame, forecast: pd.DataFrame, forecaster: Forecaster, level: float, path: Any, most: int
) -> Sequence[Any]:
    """A PNG of history, forecast and interval of the first `most` series; the series that are in it."""
    columns, name = forecaster.columns, forecaster.name
    ids = list(forecast[columns.id].drop_duplicates()[:most])
    figure = Figure(figsize=(9, 1 + 2.2 * len(ids)), layout="constrained")
    for axes, id in zip(np.ravel(figure.subplots(len(ids), 1)), ids, strict=True):
        past = frame[frame[columns.id] == id].sort_values(columns.time).tail(4 * forecaster.h)
        ahead = forecast[forecast[columns.id] == id]
        axes.plot(past[columns.time], past[columns.target], color="#555555", linewidth=1.0, label="history")
        axes.plot(ahead[columns.time], ahead[name], color="#D55E00", linewidth=1.6, label=name)
        low, high = (ahead[f"{name}-{side}-{level:g}"] for side in ("lo", "hi"))
        axes.fill_between(ahead[columns.time], low, high, color="#0072B2", alpha=0.25, label=f"{level:g}% interval")
        axes.set_title(str(id), loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper left", edgecolor="none", ncols=3)
    write_atomically(path, lambda target: figure.savefig(target, format="png", dpi=130))
    return ids
