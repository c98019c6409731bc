"""Ridge: linear regression from window to horizon in closed form, the reference that a deep model has to beat.

Paper: "An Analysis of Linear Time Series Forecasting Models" (2024, 2403.14587), section 4: DLinear, NLinear, RLinear
and their kin are regressions on a window that is shifted by a value of its own, and have a closed-form optimum.

    o = a . x, a = (0 ... 0 1) (last value) or (1/L ... 1/L) (mean)                    (1)
    W = argmin sum |(y - o) - W^T (x - o)|^2 + lambda |W|^2
      = (X^T X + lambda I)^-1 X^T Y                                                    (2)
    forecast = W^T (x - o) + o                                                         (3)

| code | paper |
|---|---|
| anchor | a; "last" is NLinear's, "mean" is RLinear's without its scale |
| penalty | lambda, of sums over all windows and channels |

One W serves all channels. One pass over the windows takes the sums that every anchor and penalty needs
(`windows/regression.py`), so that nothing but (L, L) and (L, H) matrices is kept.
Which anchor and which penalty is decided on validation, where several are given, from the sums of its windows.

A missing target takes its window out of the sums of that channel. Covariates are not used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import FitConfig, FitReport, Window, WindowModel, WindowSet, WindowShape
from runnel.windows.model import Progress
from runnel.windows.regression import anchored, squared_error, sums

PAPERS = {"An Analysis of Linear Time Series Forecasting Models": "2403.14587"}


@dataclass(frozen=True)
class Config:
    """anchors: of "last" and "mean"; penalties: lambda. Validation chooses where there are several."""

    anchors: tuple[str, ...] = ("last", "mean")
    penalties: tuple[float, ...] = (1e2, 1e3, 1e4)

    def __post_init__(self) -> None:
        if not self.anchors or set(self.anchors) - {"last", "mean"}:
            raise ValueError(f'anchors of ridge must be "last", "mean" or both; got {self.anchors}')
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"penalties of ridge must be positive; got {self.penalties}")


class Ridge(WindowModel):
    points_only = True
    anchor: Tensor
    weight: Tensor

    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config = config
        self.register_buffer("anchor", _anchor(config.anchors[0], shape.history))
        self.register_buffer("weight", torch.zeros(shape.history, shape.horizon))

    def forward(self, window: Window) -> Float[Tensor, "B H C 1"]:
        return apply(window.history, self.anchor, self.weight)[..., None]

    def fit(
        self,
        train: WindowSet,
        valid: WindowSet,
        config: FitConfig | None = None,
        progress: Progress = lambda done, text: None,
    ) -> FitReport:
        """Equation (2) for every anchor and penalty; the pair with the least squared error on validation stays."""
        started, best = time.perf_counter(), float("inf")
        progress(0.0, f"sums of {len(train):,} windows")
        learned, held = sums(train), sums(valid)
        for name in self.config.anchors:
            anchor = _anchor(name, self.shape.history).double()
            gram, cross, _ = anchored(learned, anchor)
            judged = anchored(held, anchor)
            for penalty in self.config.penalties:
                weight = torch.linalg.solve(gram + penalty * torch.eye(len(gram)), cross)
                error = squared_error(judged, weight) / max(held.targets, 1)
                if error < best:
                    best = error
                    self.anchor.copy_(anchor)
                    self.weight.copy_(weight)
        return FitReport(best, 0, time.perf_counter() - started)


def apply(
    history: Float[Tensor, "B L C"], anchor: Float[Tensor, "L"], weight: Float[Tensor, "L H"]
) -> Float[Tensor, "B H C"]:
    """Equations (1) and (3)."""
    x = history.transpose(1, 2)
    level = (x @ anchor)[..., None]
    return ((x - level) @ weight + level).transpose(1, 2)


def _anchor(name: str, length: int) -> Float[Tensor, "L"]:
    if name == "mean":
        return torch.full((length,), 1 / length)
    return torch.nn.functional.one_hot(torch.tensor(length - 1), length).float()


def reference(
    x: Float[Tensor, "N L"], y: Float[Tensor, "N H"], penalty: float, new: Float[Tensor, "L"]
) -> Float[Tensor, "H"]:
    """Equation (2) as least squares on stacked rows, windows shifted by their last values; the forecast of `new`."""
    shifted, targets = x - x[:, -1:], y - x[:, -1:]
    rows = torch.cat([shifted, penalty**0.5 * torch.eye(x.shape[1], dtype=x.dtype)])
    zeros = torch.zeros(x.shape[1], y.shape[1], dtype=x.dtype)
    weight = torch.linalg.lstsq(rows, torch.cat([targets, zeros]), driver="gelsd").solution
    return (new - new[-1]) @ weight + new[-1]
