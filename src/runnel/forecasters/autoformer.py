"""Autoformer: trend and season are taken apart in every layer, and whole stretches are matched instead of rows.

Paper: "Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series Forecasting"
(2021, 2106.13008), section 3.

    trend = moving average of x over k rows, season = x - trend                        (1)
    decoder: the season of the last rows, then zeros; their trend, then the mean       (2)
    encoder layer: S = season(AC(S) + S),  S = season(MLP(S) + S)                      (3)
    decoder layer: S, T1 = parts(AC(S) + S),  S, T2 = parts(AC(S, encoder) + S),
                   S, T3 = parts(MLP(S) + S),  trend = trend + W (T1 + T2 + T3)        (4)
    R(tau) = sum_t q_{t+tau} . k_t, by FFT, indices round the window                   (5)
    AC_t = sum over the k = c log L best tau of softmax(R(tau)) v_{t+tau}              (6, 7)

| code | paper |
|---|---|
| kernel | k of (1) = 25 |
| factor | c of (6) = 3 |
| label | rows that the decoder is begun with; None: half of the history |
| encoder, decoder | N, M = 2, 1 layers |

Delays are chosen per window, also in training (the authors' program shares them over the batch there); R is averaged
over heads. (5) to (7), and their literal sums, are in `runnel.ops.auto_correlation`. Calendar features are whatever
covariates are known ahead (`future`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from runnel.blocks import mlp
from runnel.forecasters import moving_average
from runnel.mixer import linear
from runnel.ops.auto_correlation import aggregated, delays
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import RowConv, check_dropout, check_positive
from runnel.windows.model import check_norm

PAPERS = {"Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series Forecasting": "2106.13008"}


@dataclass(frozen=True)
class Config:
    """hidden: width of the perceptrons. dropout: after the embeddings and in every layer."""

    d_model: int = 512
    hidden: int = 2048
    encoder: int = 2
    decoder: int = 1
    kernel: int = 25
    factor: float = 3.0
    label: int | None = None
    dropout: float = 0.05
    norm: str = "none"

    def __post_init__(self) -> None:
        check_norm(self.norm, "autoformer")
        check_positive("autoformer", self, "d_model", "hidden", "encoder", "decoder", "kernel")
        check_dropout("autoformer", self.dropout)
        if self.factor <= 0 or (self.label is not None and self.label < 1):
            raise ValueError(f"factor and label of autoformer must be positive; got {self.factor} and {self.label}")


class Autoformer(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        self.label = min(config.label or max(1, shape.history // 2), shape.history)
        self.embed, self.embed_ahead = (RowConv(shape.channels, shape.future, config.d_model) for _ in range(2))
        self.encoder = nn.ModuleList(Layer(config, False) for _ in range(config.encoder))
        self.decoder = nn.ModuleList(Layer(config, True) for _ in range(config.decoder))
        self.trends = nn.ModuleList(RowConv(config.d_model, 0, shape.channels) for _ in range(config.decoder))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(config.d_model), nn.LayerNorm(config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(config.d_model, shape.channels * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        x, marks = window.history, window.future
        length, horizon = x.shape[1], self.shape.horizon
        read = self.dropout(self.embed(x, None if marks is None else marks[:, :length]))
        for layer in self.encoder:
            read, _ = layer(read, read)  # eq. (3)
        read = _centred(self.encoder_norm(read))
        trend = moving_average(x, self.config.kernel)[:, -self.label :]  # eq. (1)
        season = pad(x[:, -self.label :] - trend, (0, 0, 0, horizon))  # eq. (2)
        trend = torch.cat([trend, x.mean(1, keepdim=True).expand(-1, horizon, -1)], dim=1)
        late = None if marks is None else marks[:, length - self.label :]
        s = self.dropout(self.embed_ahead(season, late))
        for layer, weigh in zip(self.decoder, self.trends, strict=True):
            s, change = layer(s, read)  # eq. (4)
            trend = trend + weigh(change)
        y = self.out(_centred(self.decoder_norm(s))).unflatten(-1, (-1, self.shape.outputs)) + trend[..., None]
        return y[:, -horizon:]


class Layer(nn.Module):
    """Equation (3), or (4) where it reads an encoder; returns the season and the sum of the trends."""

    def __init__(self, config: Config, reads: bool) -> None:
        super().__init__()
        self.kernel = config.kernel
        self.own = AutoCorrelation(config.d_model, config.factor)
        self.other = AutoCorrelation(config.d_model, config.factor) if reads else None
        self.mlp = mlp.MLP(config.d_model, mlp.Config(hidden=config.hidden, bias=False))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, s: Float[Tensor, "B T D"], read: Float[Tensor, "B S D"]) -> tuple[Tensor, Tensor]:
        changes: list[Callable[[Tensor], Tensor]] = [lambda s: self.own(s, s), self.mlp]
        if self.other is not None:
            other = self.other
            changes.insert(1, lambda s: other(s, read))
        trends = torch.zeros_like(s)
        for change in changes:
            s = s + self.dropout(change(s))
            trend = moving_average(s, self.kernel)
            s, trends = s - trend, trends + trend
        return s, trends


class AutoCorrelation(nn.Module):
    def __init__(self, d_model: int, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.q, self.k, self.v, self.out = (linear(d_model, d_model, bias=True) for _ in range(4))

    def forward(self, x: Float[Tensor, "B T D"], other: Float[Tensor, "B S D"]) -> Float[Tensor, "B T D"]:
        length = x.shape[1]
        k, v = (pad(part(other), (0, 0, 0, length - other.shape[1])) for part in (self.k, self.v))  # or cut
        return self.out(aggregated(self.q(x), k, v, delays(length, self.factor)))


def _centred(x: Tensor) -> Tensor:
    """Without the mean over time, so that no level is left in a season."""
    return x - x.mean(1, keepdim=True)
