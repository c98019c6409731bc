"""Seasonal naive: the last season again, or the mean of the last few. The yardstick of MASE and of skill scores.

    y_{t+h} = mean of x_{t+h-m ceil(h/m)-m i} over i = 0 ... n-1, m the season, n = 1 the naive one        (1)

Deviates: a season longer than the history is replaced by the history, and n by as many seasons as there are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import FitReport, Window, WindowModel, WindowShape

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """season: rows of a season; None takes that of the windows. seasons: how many of them are averaged."""

    season: int | None = None
    seasons: int = 1

    def __post_init__(self) -> None:
        for name in ("season", "seasons"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} of seasonal_naive must be at least 1; got {value}")


class SeasonalNaive(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.season = min(config.season or shape.season, shape.history)
        self.seasons = min(config.seasons, shape.history // self.season)

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        recent = window.history[:, -self.seasons * self.season :].unflatten(1, (self.seasons, self.season)).mean(1)
        return recent[:, torch.arange(self.shape.horizon) % self.season, :, None]  # eq. (1)

    def fit(self, *_: object) -> FitReport:
        """Nothing to learn."""
        return FitReport(float("nan"), 0, 0.0)


def reference(history: list[float], horizon: int, season: int, seasons: int = 1) -> list[float]:
    """The rule for one series, step by step."""
    forecast = []
    for h in range(1, horizon + 1):
        back = season * -(-h // season) - h  # rows before the last one, within the last season
        forecast.append(sum(history[-1 - back - season * i] for i in range(seasons)) / seasons)
    return forecast
