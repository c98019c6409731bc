"""AutoARIMA: a seasonal ARIMA whose orders are chosen step by step by information criterion.

Hyndman and Khandakar, "Automatic Time Series Forecasting: The forecast Package for R" (2008), section 3, as the package
statsforecast has it (`pip install 'runnel[statistics]'`). Every window is fitted when it is forecast: seconds a
series where there is a season. Fewer than 12 rows, or rows that do not move, are forecast by the last one.

| code | paper |
|---|---|
| season | m; None takes that of the windows, 1 leaves seasonal orders out |
| largest | the largest p and q that are tried |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runnel.windows import WindowShape
from runnel.windows.statistical import SeriesBySeries

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """season: at least 1, or None. largest: at least 1."""

    season: int | None = None
    largest: int = 5

    def __post_init__(self) -> None:
        if (self.season is not None and self.season < 1) or self.largest < 1:
            raise ValueError(f"auto_arima needs season and largest >= 1; got {self.season} and {self.largest}")


class AutoARIMA(SeriesBySeries):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.season = config, config.season or shape.season

    def make(self) -> Any:
        largest = self.config.largest
        return self.package.AutoARIMA(season_length=self.season, max_p=largest, max_q=largest)
