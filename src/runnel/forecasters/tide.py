"""TiDE: an encoder-decoder of residual perceptrons that reads a window and its covariates at one go.

Paper: "Long-term Forecasting with TiDE: Time-series Dense Encoder" (2023, 2304.08424), section 4.

    block(x) = LayerNorm(W2 relu(W1 x) + W_s x)                                        (1)
    x~_t = block(x_t) for the covariates of every row of history and horizon           (2)
    e = block...(y_{1:L}; x~_{1:L+H}; a),   a the static covariates                    (3)
    g = block...(e), D = g in H rows of p numbers                                      (4)
    y_{L+t} = block(d_t; x~_{L+t}) + (W y_{1:L})_t                                     (5)

| code | paper |
|---|---|
| hidden, encoder, decoder | hiddenSize, numEncoderLayers n_e, numDecoderLayers n_d |
| per_row | p, decoderOutputDim |
| temporal | temporalDecoderHidden |
| per_covariate | temporalWidth, r~ = 4 |

Channels are forecast one by one with shared weights. Covariates are those known ahead (`future`) and `static`; `past`
ones are not used. Dropout is before the residual sum of (1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from runnel.mixer import linear
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import check_dropout, check_positive
from runnel.windows.model import check_norm

PAPERS = {"Long-term Forecasting with TiDE: Time-series Dense Encoder": "2304.08424"}


@dataclass(frozen=True)
class Config:
    """hidden: width of all blocks but the temporal ones. encoder, decoder: blocks of (3) and (4)."""

    hidden: int = 256
    encoder: int = 2
    decoder: int = 2
    per_row: int = 8
    temporal: int = 128
    per_covariate: int = 4
    dropout: float = 0.3
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "tide")
        check_positive("tide", self, "hidden", "encoder", "decoder", "per_row", "temporal", "per_covariate")
        check_dropout("tide", self.dropout)


class TiDE(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        length, rows = shape.history, shape.history + shape.horizon
        beside = config.per_covariate if shape.future else 0
        self.project = Block(shape.future, config.hidden, beside, config.dropout) if shape.future else None
        hidden, dropout = config.hidden, config.dropout
        widths = [length + rows * beside + shape.static] + [hidden] * (config.encoder + config.decoder - 1)
        blocks = [Block(width, hidden, hidden, dropout) for width in widths]
        self.dense = nn.Sequential(*blocks, Block(hidden, hidden, shape.horizon * config.per_row, dropout))
        self.by_row = Block(config.per_row + beside, config.temporal, shape.outputs, dropout)
        self.straight = linear(length, shape.horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        series = window.history.transpose(1, 2)  # (B, C, L)
        parts, ahead = [series], None
        if self.project is not None:
            assert window.future is not None, "a model made for covariates is given them"
            covariates = self.project(window.future)  # eq. (2)
            ahead = covariates[:, None, -self.shape.horizon :].expand(-1, series.shape[1], -1, -1)
            parts.append(covariates.flatten(1)[:, None].expand(-1, series.shape[1], -1))
        if self.shape.static:
            assert window.static is not None, "a model made for covariates is given them"
            parts.append(window.static[:, None].expand(-1, series.shape[1], -1))
        decoded = self.dense(torch.cat(parts, -1)).unflatten(-1, (self.shape.horizon, -1))  # eq. (3), (4)
        y = self.by_row(decoded if ahead is None else torch.cat([decoded, ahead], -1))  # eq. (5)
        return (y + self.straight(series).view_as(y)).transpose(1, 2)


class Block(nn.Module):
    """Equation (1)."""

    def __init__(self, d_in: int, hidden: int, d_out: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = linear(d_in, hidden, bias=True), linear(hidden, d_out, bias=True)
        self.skip = linear(d_in, d_out, bias=True)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(d_out) if d_out > 1 else nn.Identity()  # the norm of a single number is nothing

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B E"]:
        return self.norm(self.dropout(self.down(relu(self.up(x)))) + self.skip(x))

    def reference(self, x: Float[Tensor, "D"]) -> Float[Tensor, "E"]:
        """Equation (1) for one vector, unit by unit."""
        hidden = [torch.clamp(w @ x + b, min=0) for w, b in zip(self.up.weight, self.up.bias, strict=True)]
        rows = zip(self.down.weight, self.down.bias, self.skip.weight, self.skip.bias, strict=True)
        return self.norm(torch.stack([w @ torch.stack(hidden) + b + s @ x + c for w, b, s, c in rows]))


def reference(
    model: TiDE, series: Float[Tensor, "L"], future: Float[Tensor, "L+H F"] | None, static: Float[Tensor, "S"] | None
) -> Float[Tensor, "H K"]:
    """Equations (2) to (5) for one normalised channel, outside training."""
    horizon, parts = model.shape.horizon, [series]
    covariates: list[Tensor] = []
    if model.project is not None and future is not None:
        covariates = [model.project.reference(x) for x in future]
    parts += covariates + ([] if static is None else [static])
    e = torch.cat(parts)
    for block in model.dense:
        assert isinstance(block, Block)
        e = block.reference(e)
    rows = e.view(horizon, -1)
    ahead = covariates[-horizon:]
    y = [model.by_row.reference(torch.cat([d, *ahead[t : t + 1]])) for t, d in enumerate(rows)]
    straight = model.straight.weight @ series + model.straight.bias
    return torch.stack(y) + straight.view(horizon, -1)
