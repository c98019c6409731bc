"""Forecasting: any model of windows over frames of series, with its protocol and its metrics.

    from runnel.forecast import Forecaster, load, save
    Forecaster(h=24, freq="h", backbone="ridge").fit(frame).predict(level=[90])

Models by name are the pages of `runnel.forecasters`. It needs pandas: pip install 'runnel[forecast]'.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("pandas") is None:
    raise ModuleNotFoundError("forecasting needs pandas: pip install 'runnel[forecast]'", name="pandas")

from runnel.forecast.files import load, save
from runnel.forecast.forecaster import Forecaster

__all__ = ["Forecaster", "load", "save"]
