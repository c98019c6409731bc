"""Local ridge: a regression for every channel, drawn towards that of all channels, in closed form.

Paper: "An Analysis of Linear Time Series Forecasting Models" (2024, 2403.14587), as `ridge`; the pull between one map
for all and one for each is an empirical-Bayes prior.

    G_c = X_c^T X_c + pull sum_j X_j^T X_j + penalty I                                 (1)
    W_c = G_c^-1 (X_c^T Y_c + pull sum_j X_j^T Y_j)                                    (2)
    forecast of c = W_c^T (x, 1)                                                       (3)

X_c are the normalised windows of channel c, each with a 1 after it; pull = 0 gives every channel its own map, a large
pull gives `ridge`. With norm = "none" the level of a window is one of its features, and forecasts may return to the
level of the series; with "last", "mean" and "revin" they move with the window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import FitConfig, FitReport, Window, WindowModel, WindowSet, WindowShape
from runnel.windows.fitting import validate
from runnel.windows.model import Progress, check_norm, normalised

PAPERS: dict[str, str] = {}

BATCH = 512


@dataclass(frozen=True)
class Config:
    """pull, penalty: see (1). norm: see `WindowModel`."""

    norm: str = "mean"
    pull: float = 0.2
    penalty: float = 1e3

    def __post_init__(self) -> None:
        check_norm(self.norm, "local_ridge")
        if self.pull < 0 or self.penalty <= 0:
            raise ValueError(
                f"local_ridge needs a pull of at least 0 and a positive penalty; got {self.pull} and {self.penalty}"
            )


class LocalRidge(WindowModel):
    points_only = True
    weight: Tensor

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        self.register_buffer("weight", torch.zeros(shape.channels, shape.history + 1, shape.horizon))

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        return torch.einsum("bcl,clh->bhc", _features(window.history), self.weight)[..., None]  # eq. (3)

    def fit(
        self,
        train: WindowSet,
        valid: WindowSet,
        config: FitConfig | None = None,
        progress: Progress = lambda done, text: None,
    ) -> FitReport:
        """Equations (1) and (2)."""
        started, size = time.perf_counter(), self.shape.history + 1
        gram = torch.zeros(self.shape.channels, size, size, dtype=torch.float64)
        cross = torch.zeros(self.shape.channels, size, self.shape.horizon, dtype=torch.float64)
        for window in train.batches(BATCH):
            x, y = self._rows(window)
            gram += (x.transpose(1, 2) @ x).double()
            cross += (x.transpose(1, 2) @ y).double()
        pull, penalty = self.config.pull, self.config.penalty * torch.eye(size, dtype=torch.float64)
        self.weight.copy_(torch.linalg.solve(gram + pull * gram.sum(0) + penalty, cross + pull * cross.sum(0)))
        return FitReport(validate(self, valid, config or FitConfig()), 0, time.perf_counter() - started)

    def _rows(self, window: Window) -> tuple[Float[Tensor, "C B F"], Float[Tensor, "C B H"]]:
        """Features and targets of a batch; a row of zeros in place of a window that lacks a target."""
        assert window.target is not None
        inside, loc, scale = normalised(window, self.norm)
        y = ((window.target - loc) / scale).permute(2, 0, 1)
        known = ~y.isnan().any(-1, keepdim=True)
        return _features(inside.history).transpose(0, 1) * known, y.nan_to_num() * known


def _features(history: Float[Tensor, "B L C"]) -> Float[Tensor, "B C F"]:
    return torch.cat([history.transpose(1, 2), torch.ones_like(history[:, :1].transpose(1, 2))], dim=-1)


def reference(
    xs: list[Float[Tensor, "N L"]], ys: list[Float[Tensor, "N H"]], pull: float, penalty: float
) -> list[Float[Tensor, "F H"]]:
    """W_c of every channel as least squares on stacked rows; xs, ys: a matrix per channel, already normalised."""
    rows = [torch.cat([x, torch.ones_like(x[:, :1])], dim=1) for x in xs]
    weights = []
    for own, target in zip(rows, ys, strict=True):
        size = own.shape[1]
        left = torch.cat([own, *[pull**0.5 * x for x in rows], penalty**0.5 * torch.eye(size, dtype=own.dtype)])
        right = torch.cat([target, *[pull**0.5 * y for y in ys], torch.zeros(size, target.shape[1], dtype=own.dtype)])
        weights.append(torch.linalg.lstsq(left, right).solution)
    return weights
