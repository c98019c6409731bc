"""Frames for tests of forecasting."""

import numpy as np
import pandas as pd


def frame(series=3, rows=200, season=24, noise=0.1, seed=0, freq="h"):
    """Series with a daily season, levels and scales of their own."""
    rng = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=rows, freq=freq)
    parts = []
    for number in range(series):
        angle = 2 * np.pi * np.arange(rows) / season + number
        y = 10 * number + (1 + number) * (np.sin(angle) + noise * rng.normal(size=rows))
        parts.append(pd.DataFrame({"unique_id": f"s{number}", "ds": times, "y": y}))
    return pd.concat(parts, ignore_index=True)


def wave(id, times, level=0.0):
    """The season without noise, at these times."""
    number = int(id[1:])
    hours = (pd.DatetimeIndex(times) - pd.Timestamp("2024-01-01")) / pd.Timedelta("1h")
    return 10 * number + (1 + number) * np.sin(2 * np.pi * np.asarray(hours) / 24 + number) + level
