"""Windows of numeric series, and what every model over them is: `forecasters/` has one such model a page."""

from runnel.windows.fitting import FitConfig, FitReport, minimise
from runnel.windows.model import Law, WindowModel, build
from runnel.windows.series import SeriesTable, WindowSet, one_series
from runnel.windows.window import Window, WindowShape

__all__ = [
    "FitConfig",
    "FitReport",
    "Law",
    "SeriesTable",
    "Window",
    "WindowModel",
    "WindowSet",
    "WindowShape",
    "build",
    "minimise",
    "one_series",
]
