"""xLSTMTime: a linear forecast of trend and rest, reworked by a stack of xLSTM cells over the variates.

Paper: "xLSTMTime : Long-term Time Series Forecasting With xLSTM" (2024, 2407.10240).

    trend = moving average of x over k rows;  rest = x - trend                         (1)
    s = W_t trend + W_r rest + b, H numbers for every variate                          (2)
    z = W_1 s + b_1;  z = xLSTM blocks over the variates of z                          (3)
    y = W_2 LayerNorm(z) + b_2                                                         (4)

| code | paper |
|---|---|
| kernel | k = 25 |
| d_model | n2 = 256, the width of the embedding |
| cells | the mixer of every block: "slstm" for small sets, "mlstm" for large ones; 3 blocks |

As in the authors' program a token is a variate, so that the recurrence runs across variates and not over time: no
state is carried from row to row. Blocks are x + mixer(norm(x)) without channel blocks; the up and down projections of
xLSTM's own blocks, and its convolution's width, are those of Runnel's pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel import patterns
from runnel.forecasters import moving_average
from runnel.mixer import linear
from runnel.model import Layer, layers_of
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import Trunk, check_positive
from runnel.windows.model import check_norm

PAPERS = {"xLSTMTime : Long-term Time Series Forecasting With xLSTM": "2407.10240"}


@dataclass(frozen=True)
class Config:
    """kernel: rows of the moving average. cells: a pattern of mixers (see `runnel.patterns`)."""

    kernel: int = 25
    d_model: int = 256
    cells: str = "slstm, mlstm*2"
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "xlstmtime")
        check_positive("xlstmtime", self, "kernel", "d_model")


class XLSTMTime(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        width, horizon = config.d_model, shape.horizon
        self.trend, self.rest = linear(shape.history, horizon, bias=True), linear(shape.history, horizon)
        for part in (self.trend, self.rest):
            nn.init.constant_(part.weight, 1 / shape.history)
        self.embed = linear(horizon, width, bias=True)
        self.cells = Trunk(layers_of(patterns.parse(config.cells, None), width), nn.LayerNorm(width))
        self.out = linear(width, horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        x = window.history
        trend = moving_average(x, self.config.kernel)  # eq. (1)
        forecast = self.trend(trend.transpose(1, 2)) + self.rest((x - trend).transpose(1, 2))  # eq. (2): (B, C, H)
        z, _ = self.cells(self.embed(forecast))  # eq. (3)
        return self.out(z).unflatten(-1, (self.shape.horizon, -1)).transpose(1, 2)  # eq. (4)


def reference(model: XLSTMTime, history: Float[Tensor, "L C"]) -> Float[Tensor, "C H*K"]:
    """Equations (1) to (4) for one normalised window, by the cells' own loops."""
    kernel, last, tokens = model.config.kernel, len(history) - 1, []
    around = range(-((kernel - 1) // 2), kernel // 2 + 1)
    for x in history.T:
        rows = [torch.stack([x[min(max(i + j, 0), last)] for j in around]).mean() for i in range(len(x))]
        trend = torch.stack(rows)
        s = model.trend.weight @ trend + model.trend.bias + model.rest.weight @ (x - trend)
        tokens.append(model.embed.weight @ s + model.embed.bias)
    z = torch.stack(tokens)
    for layer in model.cells.layers:
        assert isinstance(layer, Layer)
        z = z + layer.mixer.reference(layer.mixer_norm(z)[None])[0]
    return torch.stack([model.out.weight @ token + model.out.bias for token in model.cells.norm(z)])
