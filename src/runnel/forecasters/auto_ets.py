"""AutoETS: exponential smoothing, its kind of error, trend and season chosen by information criterion.

Hyndman and Khandakar, "Automatic Time Series Forecasting: The forecast Package for R" (2008), section 2, as the package
statsforecast has it (`pip install 'runnel[statistics]'`). Every window is fitted when it is forecast: tens of
milliseconds a series. Fewer than 12 rows, or rows that do not move, are forecast by the last one.

| code | paper |
|---|---|
| model | three letters: error, trend, season, each of N, A, M or Z (chosen) |
| season | rows of a season; None takes that of the windows |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from runnel.windows import WindowShape
from runnel.windows.statistical import SeriesBySeries

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """model: e.g. "ZZZ" or "ANN". season: at least 1, or None."""

    model: str = "ZZZ"
    season: int | None = None

    def __post_init__(self) -> None:
        if len(self.model) != 3 or set(self.model) - set("NAMZ"):
            raise ValueError(f"model of auto_ets must be three letters of N, A, M and Z; got {self.model!r}")
        if self.season is not None and self.season < 1:
            raise ValueError(f"season of auto_ets must be at least 1; got {self.season}")


class AutoETS(SeriesBySeries):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.season = config, config.season or shape.season

    def make(self) -> Any:
        return self.package.AutoETS(season_length=self.season, model=self.config.model)
