"""Last value: tomorrow is like today. The forecast that every other one has to beat on a random walk.

y_{t+h} = x_t for all h                                                            (1)
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from runnel.windows import FitReport, Window, WindowModel, WindowShape

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """There is nothing to set."""


class LastValue(WindowModel):
    points_only = True

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        return window.history[:, -1:].expand(-1, self.shape.horizon, -1)[..., None]  # eq. (1)

    def fit(self, *_: object) -> FitReport:
        """Nothing to learn."""
        return FitReport(float("nan"), 0, 0.0)


def reference(history: list[float], horizon: int) -> list[float]:
    """The rule for one series."""
    return [history[-1] for _ in range(horizon)]
