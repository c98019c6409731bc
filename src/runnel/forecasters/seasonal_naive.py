"""Seasonal naive: the last season again. The yardstick of MASE and of skill scores.

    y_{t+h} = x_{t+h-m ceil(h/m)}, m the season                                        (1)

Deviates: a season longer than the history is replaced by the history.
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
    """season: rows of a season; None takes that of the windows."""

    season: int | None = None

    def __post_init__(self) -> None:
        if self.season is not None and self.season < 1:
            raise ValueError(f"season of seasonal_naive must be at least 1; got {self.season}")


class SeasonalNaive(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.season = min(config.season or shape.season, shape.history)

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        phase = torch.arange(self.shape.horizon) % self.season
        return window.history[:, phase - self.season, :, None]  # eq. (1), counted from the end

    def fit(self, *_: object) -> FitReport:
        """Nothing to learn."""
        return FitReport(float("nan"), 0, 0.0)


def reference(history: list[float], horizon: int, season: int) -> list[float]:
    """The rule for one series: a value is the one a season before it, itself a forecast where need be."""
    known = list(history)
    for _ in range(horizon):
        known.append(known[-season])
    return known[len(history) :]
