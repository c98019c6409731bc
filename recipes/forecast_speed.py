"""How fast forecasting is on this machine: `python recipes/forecast_speed.py`.

Fit and predict of many series with the default model, predict of more of them, and one row of a stream. The page is
docs/results/forecast_speed.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from runnel.forecast import Forecaster, streaming
from runnel.forecasters import backbone
from runnel.windows import FitConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "forecast_speed.md"


def frame(series: int, rows: int) -> pd.DataFrame:
    """Hourly series with a daily season and levels of their own."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=rows, freq="h")
    angle = 2 * np.pi * np.arange(rows) / 24
    y = np.sin(angle + rng.random((series, 1))) + 10 * rng.random((series, 1)) + 0.2 * rng.normal(size=(series, rows))
    ids = np.repeat(np.arange(series), rows)
    return pd.DataFrame({"unique_id": ids, "ds": np.tile(times, series), "y": y.ravel()})


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def fit_and_predict() -> float:
    """Seconds for 1,000 series of 500 rows with the default model."""
    data = frame(1000, 500)
    return timed(lambda: Forecaster(h=24, freq="h").fit(data).predict(level=[90]))[0]


def predict() -> float:
    """Seconds for 10,000 series of 200 rows that the model was not fitted on."""
    fitted, many = Forecaster(h=24, freq="h").fit(frame(100, 500)), frame(10_000, 200)
    return timed(lambda: fitted.predict(many, level=[90]))[0]


def update() -> float:
    """Seconds for one row of a stream: the median of 500."""
    config = backbone.Config("mingru*2", "value", d_model=32, norm="none")
    fitted = Forecaster(h=24, freq="h", backbone=config, fit=FitConfig(steps=2, valid_every=2)).fit(frame(1, 500))
    stream, seconds = streaming.begin(fitted), []
    for _ in range(500):
        spent, stream = timed(lambda stream=stream: streaming.update(fitted, stream, [1.0]))  # type: ignore[misc]
        seconds.append(spent)
    return median(seconds)


ASKED = (
    ("fit and predict, 1,000 series of 500 rows, the default", fit_and_predict, 60.0),
    ("predict, 10,000 series of 200 rows, the default", predict, 10.0),
    ('one row of a stream, `mingru*2`, `embed="value"`', update, 1e-3),
)


def main() -> None:
    rows = ["| what | seconds | wanted under | |", "|---|---|---|---|"]
    for what, measure, wanted in ASKED:
        found = measure()
        rows.append(f"| {what} | {found:.3g} | {wanted:g} | {'met' if found < wanted else '**missed**'} |")
    text = "\n".join(rows)
    print(text)
    cores = f"{torch.get_num_threads()} threads of a machine with {os.cpu_count()} cores"
    PAGE.write_text(f"# How fast forecasting is\n\nMade by `python recipes/forecast_speed.py`, {cores}.\n\n{text}\n")


if __name__ == "__main__":
    main()
