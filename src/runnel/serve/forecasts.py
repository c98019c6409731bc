"""Forecasts: from the text of a CSV to what may come next, by a model that is solved in closed form and never kept."""

from __future__ import annotations

import io
import threading
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from runnel.serve.errors import Refused
from runnel.serve.jobs import Busy
from runnel.serve.wire import Asked

if TYPE_CHECKING:
    import pandas as pd

MOST_TEXT, MOST_VALUES, MOST_SERIES = 4 << 20, 200_000, 50
LONG = ("unique_id", "ds", "y")
"""The columns of a table with a row for each value."""


class ForecastRequest(Asked):
    """csv: with the columns unique_id, ds, y; or wide, with times in the first column and a series in each other."""

    csv: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
    h: int = Field(24, ge=1, le=1000, description="Steps ahead.")
    level: Annotated[list[Annotated[float, Field(gt=0, lt=100)]], Field(max_length=8)] = [50.0, 80.0, 95.0]
    freq: str | None = Field(None, max_length=16, description="Of the times, e.g. 'h'; told from them where left out.")
    season: int | None = Field(None, ge=1, le=1000, description="Rows of the main season.")
    backbone: Literal["ridge", "local_ridge", "joint_ridge", "seasonal_naive", "last_value"] = "ridge"
    history: int = Field(200, ge=1, le=5000, description="Rows of each series that are given back, the newest.")


def add_routes(app: FastAPI) -> None:
    alone = threading.Lock()

    def forecast(asked: ForecastRequest) -> dict[str, Any]:
        if not alone.acquire(blocking=False):
            raise Busy("another forecast is being made", 1)
        try:
            with warnings.catch_warnings(action="ignore"):  # they name what is in the table; the answer does so too
                return forecast_of(asked)
        finally:
            alone.release()

    @app.post("/v1/forecasts")
    async def forecasts(asked: ForecastRequest) -> dict[str, Any]:
        if find_spec("pandas") is None:
            raise Refused(501, "forecasting needs pandas on the server: pip install 'runnel[forecast]'", "server_error")
        return await run_in_threadpool(forecast, asked)


def forecast_of(asked: ForecastRequest) -> dict[str, Any]:
    """History, forecast and conformal intervals of every series. ValueError says what is wrong with the table."""
    from runnel.forecast import Forecaster

    frame = frame_of(asked.csv)
    try:
        forecaster = Forecaster(asked.h, asked.freq, asked.backbone, season=asked.season).fit(frame)
        ahead = forecaster.predict(level=asked.level)
    except (TypeError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"the table cannot be forecast: {error}") from error
    problems = forecaster.problems
    past, ahead = dict(list(frame.groupby("unique_id"))), dict(list(ahead.groupby("unique_id")))
    series = [
        {"id": str(name), "history": _table(past[name].sort_values("ds").tail(asked.history), {"y": "y"}),
         "forecast": _table(ahead[name], _columns(forecaster.name, asked.level))}
        for name in past if name not in problems
    ]  # fmt: skip
    told = {str(name): text for name, text in problems.items()}
    return {"object": "forecast", "model": forecaster.name, "h": asked.h, "series": series, "problems": told}


def frame_of(text: str) -> pd.DataFrame:
    """A long frame from either form of table. ValueError when it is none, or too large."""
    import pandas as pd

    try:
        table = pd.read_csv(io.StringIO(text), nrows=MOST_VALUES + 1)
    except ValueError as error:
        raise ValueError(f"csv must be a table: {error}") from None
    if not set(LONG) <= set(table.columns):
        table = _long(table)
    frame = table[list(LONG)].astype({"unique_id": str})
    frame["ds"] = frame["ds"] if pd.api.types.is_integer_dtype(frame["ds"]) else _times(frame["ds"])
    frame["y"] = pd.to_numeric(frame["y"], errors="coerce").astype(float)
    count = frame["unique_id"].nunique()
    if not 1 <= count <= MOST_SERIES or len(frame) > MOST_VALUES:
        most = f"at least 1 and at most {MOST_SERIES} series and {MOST_VALUES} values"
        raise ValueError(f"csv must have {most}; got {count} series")
    return frame


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """A wide table: the first column has times, unless it is the only one; every other of numbers is a series."""
    import pandas as pd

    if table.shape[1] == 1:
        table = table.rename_axis("ds").reset_index()
    times, *others = table.columns
    names = [name for name in others if table[name].dtype.kind in "if"]
    if not names or len(names) * len(table) > MOST_VALUES:
        raise ValueError(
            f"csv must have the columns {', '.join(LONG)}, or times and columns of numbers, at most {MOST_VALUES} "
            f"values; got {len(table)} rows of {', '.join(map(str, table.columns[:8]))}"
        )
    parts = [pd.DataFrame({"unique_id": str(name), "ds": table[times], "y": table[name]}) for name in names]
    return pd.concat(parts, ignore_index=True)


def _times(column: pd.Series[Any]) -> pd.Series[Any]:
    import pandas as pd

    try:
        return pd.to_datetime(column)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"times must be dates or whole numbers: {error}") from None


def _columns(name: str, levels: list[float]) -> dict[str, str]:
    """What the columns of a forecast are called here, and there."""
    bounds = {f"{side}-{level:g}": f"{name}-{side}-{level:g}" for level in levels for side in ("lo", "hi")}
    return {"mean": name, **bounds}


def _table(rows: pd.DataFrame, columns: dict[str, str]) -> dict[str, list[Any]]:
    """Columns as JSON can say them: times as text or whole numbers, what is missing as null."""
    whole = rows["ds"].dtype.kind in "iu"
    times = rows["ds"].tolist() if whole else [time.isoformat() for time in rows["ds"]]
    numbers = {
        ours: [value if abs(value) < float("inf") else None for value in rows[theirs].tolist()]
        for ours, theirs in columns.items()
    }
    return {"ds": times, **numbers}
