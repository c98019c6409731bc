"""PatchTST: a Transformer encoder over patches of one channel at a time.

Paper: "A Time Series is Worth 64 Words: Long-term Forecasting with Transformers" (2022, 2211.14730), section 3.1.

    x' = (x - mean) / std of the window                                                (1)
    x_p: patches of P rows, every S rows                                               (2)
    z = W_p x_p + W_pos                                                                (3)
    n times: z = BatchNorm(z + Attention(z)),  z = BatchNorm(z + MLP(z))               (4)
    y = W flatten(z) + b, back in units of the window                                  (5)

| code | paper |
|---|---|
| patch, stride | P = 16, S = 8 |
| d_model, heads, hidden | D = 16, H = 4, F = 128 for the small sets (128, 16, 256 for others) |

All channels share every weight. Deviates: where rows do not fit the strides, the oldest row is repeated in front (the
paper always repeats the newest S times behind), so that there may be one patch fewer; attention has no dropout, and
scores are not passed on between layers as in the authors' program.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear, parameter
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import (
    BatchNorm,
    EncoderLayer,
    WholeAttention,
    check_dropout,
    check_positive,
    patch_count,
    patched,
)
from runnel.windows.model import check_norm

PAPERS = {"A Time Series is Worth 64 Words: Long-term Forecasting with Transformers": "2211.14730"}


@dataclass(frozen=True)
class Config:
    """layers: n of (4). hidden: width of the MLP. dropout: after the embedding and in every layer."""

    patch: int = 16
    stride: int = 8
    d_model: int = 16
    heads: int = 4
    hidden: int = 128
    layers: int = 3
    dropout: float = 0.3
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "patchtst")
        check_positive("patchtst", self, "patch", "stride", "d_model", "hidden", "layers")
        check_dropout("patchtst", self.dropout)


class PatchTST(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        width, count = config.d_model, patch_count(shape.history, config.patch, config.stride)
        self.embed = linear(config.patch, width, bias=True)
        self.place = parameter(0.02 * torch.randn(count, width))
        self.layers = nn.Sequential(
            *(
                EncoderLayer(WholeAttention(width, config.heads), width, config.hidden, config.dropout, norm=BatchNorm)
                for _ in range(config.layers)
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(count * width, shape.horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        channels = window.history.transpose(1, 2)
        patches = patched(channels.flatten(0, 1), self.config.patch, self.config.stride)  # eq. (2)
        z = self.layers(self.dropout(self.embed(patches) + self.place))  # eq. (3), (4)
        y = self.out(z.flatten(1)).view(*channels.shape[:2], self.shape.horizon, self.shape.outputs)  # eq. (5)
        return y.transpose(1, 2)


def reference(model: PatchTST, x: Float[Tensor, "L"]) -> Float[Tensor, "H*K"]:
    """Equations (2) to (5) for one normalised channel, outside training."""
    patch, stride = model.config.patch, model.config.stride
    starts = list(range(len(x) - patch, -stride, -stride))[::-1]
    z = torch.stack(
        [
            model.embed.weight @ torch.stack([x[max(at + i, 0)] for i in range(patch)]) + model.embed.bias + place
            for at, place in zip(starts, model.place, strict=True)
        ]
    )
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer) and isinstance(layer.mix, WholeAttention)
        z = layer.mix_norm((z + layer.mix.reference(z))[None])[0]
        z = layer.mlp_norm((z + layer.mlp.reference(z[None])[0])[None])[0]
    return model.out.weight @ z.flatten() + model.out.bias
