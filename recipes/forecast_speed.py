"""How fast forecasting is on this machine: `python recipes/forecast_speed.py`.

Fit and predict of many series with the default model, predict of more of them, and one row of a stream.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

from runnel.forecast import Forecaster, streaming
from runnel.forecasters import backbone
from runnel.windows import FitConfig


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


def main() -> None:
    print(f"{torch.get_num_threads()} threads")
    data = frame(1000, 500)
    fit_seconds, f = timed(lambda: Forecaster(h=24, freq="h").fit(data))
    predict_seconds, _ = timed(lambda: f.predict(level=[90]))
    print(f"fit of 1,000 series of 500 rows: {fit_seconds:.1f} s; predict: {predict_seconds:.1f} s")
    many = frame(10_000, 200)
    print(f"predict of 10,000 series of 200 rows: {timed(lambda: f.predict(many, level=[90]))[0]:.1f} s")
    config = backbone.Config("mingru*2", "value", d_model=32, norm="none")
    quick = FitConfig(steps=2, valid_every=2)
    g = Forecaster(h=24, freq="h", backbone=config, fit=quick).fit(data[data["unique_id"] == 0])
    stream, seconds = streaming.begin(g), []
    for _ in range(500):
        spent, stream = timed(lambda stream=stream: streaming.update(g, stream, [1.0]))  # type: ignore[misc]
        seconds.append(spent)
    print(f"one row of a stream: {1e3 * median(seconds):.2f} ms (median of {len(seconds)})")


if __name__ == "__main__":
    main()
