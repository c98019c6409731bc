"""DLinear and NLinear: one linear map from window to horizon, of the trend and of the rest, or after the last value.

Paper: "Are Transformers Effective for Time Series Forecasting?" (2022, 2205.13504), section 4.

    trend = moving average of x over k rows, the ends repeated;  rest = x - trend      (1)
    DLinear: y = W_t trend + W_r rest + b                                              (2)
    NLinear: y = W (x - x_L) + b + x_L                                                 (3)

| code | paper |
|---|---|
| kernel | k = 25; None: no decomposition, which with norm="last" is NLinear |
| share | False: every channel has its own maps (DLinear-I) |

(2) and (3) are trained by gradients; without biases `ridge` is their optimum in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.forecasters import moving_average
from runnel.mixer import parameter
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.model import check_norm

PAPERS = {"Are Transformers Effective for Time Series Forecasting?": "2205.13504"}


@dataclass(frozen=True)
class Config:
    """kernel: rows of the moving average, or None. share: one map for all channels. norm: see `WindowModel`."""

    kernel: int | None = 25
    share: bool = True
    norm: str = "none"

    def __post_init__(self) -> None:
        check_norm(self.norm, "dlinear")
        if self.kernel is not None and self.kernel < 1:
            raise ValueError(f"kernel of dlinear must be at least 1; got {self.kernel}")


class DLinear(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        parts = 1 if config.kernel is None else 2
        maps = 1 if config.share else shape.channels
        width = shape.horizon * shape.outputs
        mean = torch.full((parts, maps, shape.history, width), 1 / shape.history)  # as in the authors' program
        self.weight = nn.Parameter(mean)
        self.bias = parameter(torch.zeros(maps, width))

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        x = window.history
        parts = [x]
        if self.config.kernel is not None:
            trend = moving_average(x, self.config.kernel)  # eq. (1)
            parts = [trend, x - trend]
        rows = torch.stack(parts).permute(0, 3, 1, 2)  # (parts, C, B, L)
        rows = rows.unflatten(1, (self.weight.shape[1], -1)).flatten(2, 3)  # a map and all the rows that it is for
        mapped = (rows @ self.weight).sum(0) + self.bias[:, None]  # eq. (2)
        y = mapped.unflatten(1, (-1, len(x))).flatten(0, 1).transpose(0, 1)  # (B, C, HK)
        return y.unflatten(-1, (self.shape.horizon, self.shape.outputs)).transpose(1, 2)


def reference(
    x: Sequence[float], trend_map: Sequence[Sequence[float]], rest_map: Sequence[Sequence[float]], kernel: int
) -> list[float]:
    """Equations (1) and (2) for one channel without a bias; maps: a row of H numbers per row of history."""
    last = len(x) - 1
    around = range(-((kernel - 1) // 2), kernel // 2 + 1)
    trend = [sum(x[min(max(i + j, 0), last)] for j in around) / kernel for i in range(len(x))]
    horizon = range(len(trend_map[0]))
    return [
        sum(trend[i] * trend_map[i][h] + (x[i] - trend[i]) * rest_map[i][h] for i in range(len(x))) for h in horizon
    ]
