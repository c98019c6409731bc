"""Models of statistics, from the package statsforecast: fitted anew to the history of every channel of every window."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from runnel import catalog
from runnel.windows.fitting import FitReport
from runnel.windows.model import WindowModel
from runnel.windows.window import Window, WindowShape

LEAST_ROWS = 12
"""Histories that are shorter, or that do not move, are forecast by their last value."""


class SeriesBySeries(WindowModel):
    """A page says which model of `statsforecast.models` it is. Nothing is learned from the windows of `fit`."""

    points_only = True

    def __init__(self, shape: WindowShape) -> None:
        super().__init__(shape)
        self.package = _models(catalog.page_name(self))

    @abstractmethod
    def make(self) -> Any:
        """A fresh model of the package."""

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        series = window.history.transpose(1, 2).flatten(0, 1).double().numpy()
        rows = np.stack([self._forecast(y) for y in series])
        y = torch.from_numpy(rows).to(window.history.dtype)
        return y.unflatten(0, (window.batch_size, -1)).transpose(1, 2)[..., None]

    def fit(self, *_: object) -> FitReport:
        """Nothing to learn: every window is fitted when it is forecast."""
        return FitReport(float("nan"), 0, 0.0)

    def _forecast(self, y: Any) -> Any:
        if len(y) < LEAST_ROWS or np.ptp(y) == 0:
            return np.full(self.shape.horizon, y[-1])
        return self.make().forecast(y=y, h=self.shape.horizon)["mean"]


def _models(page: str) -> Any:
    """The package's models. ValueError when it is not there."""
    try:
        from statsforecast import models
    except ImportError:
        raise ValueError(f"{page} needs the package statsforecast: pip install 'runnel[statistics]'") from None
    return models
