"""Joint ridge: every channel from the latest rows of all channels, in closed form: a vector autoregression, direct.

    f = (x_{L-l+1} - x_L, ..., x_{L-1} - x_L, x_L, 1), all channels side by side       (1)
    y_h - x_L = W_h^T f                                                                (2)
    W = (F^T F + penalty I)^-1 F^T (Y - x_L)                                           (3)

l = `rows` is short: there are C l + 1 features for every one of the H C values. Vector autoregressions are Sims'
("Macroeconomics and Reality", 1980); direct ones regress each step on the same features, none on another forecast.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import FitConfig, FitReport, Window, WindowModel, WindowSet, WindowShape
from runnel.windows.fitting import validate
from runnel.windows.model import Progress

PAPERS: dict[str, str] = {}

BATCH = 512


@dataclass(frozen=True)
class Config:
    """rows: l. penalty: see (3)."""

    rows: int = 24
    penalty: float = 3e3

    def __post_init__(self) -> None:
        if self.rows < 1 or self.penalty <= 0:
            raise ValueError(f"joint_ridge needs rows and a positive penalty; got {self.rows} and {self.penalty}")


class JointRidge(WindowModel):
    points_only = True
    weight: Tensor

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config = config
        self.rows = min(config.rows, shape.history)
        self.register_buffer("weight", torch.zeros(shape.channels * self.rows + 1, shape.horizon * shape.channels))

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        change = (self.features(window) @ self.weight).unflatten(-1, (self.shape.horizon, self.shape.channels))
        return (change + window.history[:, -1:])[..., None]  # eq. (2)

    def features(self, window: Window) -> Float[Tensor, "B F"]:
        """Equation (1)."""
        last = window.history[:, -1:]
        before = window.history[:, -self.rows : -1] - last
        return torch.cat([before.flatten(1), last.flatten(1), torch.ones_like(last[:, 0, :1])], dim=1)

    def fit(
        self,
        train: WindowSet,
        valid: WindowSet,
        config: FitConfig | None = None,
        progress: Progress = lambda done, text: None,
    ) -> FitReport:
        """Equation (3); windows that lack a target are left out."""
        started, (size, width) = time.perf_counter(), self.weight.shape
        gram = torch.zeros(size, size, dtype=torch.float64)
        cross = torch.zeros(size, width, dtype=torch.float64)
        for window in train.batches(BATCH):
            assert window.target is not None
            known = ~window.target.isnan().flatten(1).any(1)
            f, y = self.features(window)[known], (window.target - window.history[:, -1:])[known].flatten(1)
            gram += (f.T @ f).double()
            cross += (f.T @ y).double()
        self.weight.copy_(torch.linalg.solve(gram + self.config.penalty * torch.eye(size, dtype=torch.float64), cross))
        return FitReport(validate(self, valid, config or FitConfig()), 0, time.perf_counter() - started)


def reference(
    histories: Float[Tensor, "N L C"], targets: Float[Tensor, "N H C"], penalty: float, new: Float[Tensor, "L C"]
) -> Float[Tensor, "H C"]:
    """The forecast of `new`, by least squares on stacked rows, one window after the other; l = L."""

    def row(history: Tensor) -> Tensor:
        return torch.cat([*(x - history[-1] for x in history[:-1]), history[-1], history.new_ones(1)])

    left = torch.stack([row(history) for history in histories])
    right = torch.stack([(y - x[-1]).flatten() for x, y in zip(histories, targets, strict=True)])
    size = left.shape[1]
    left = torch.cat([left, penalty**0.5 * torch.eye(size, dtype=left.dtype)])
    right = torch.cat([right, torch.zeros(size, right.shape[1], dtype=right.dtype)])
    weight = torch.linalg.lstsq(left, right).solution
    return (row(new) @ weight).view(targets.shape[1:]) + new[-1]
