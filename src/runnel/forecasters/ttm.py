"""TTM: a patch mixer whose patches are short and many in its first layers and long and few in its last ones.

Paper: "Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced Zero/Few-Shot Forecasting of Multivariate Time
Series" (2024, 2401.03955), section 3.

    x_p: patches of P rows, none in two;  z = W_e x_p + b_e, n patches of hf features  (1)
    levels i = 1 .. M, K_i = 2^(M - i):
        z as n K_i patches of hf / K_i features; TSMixer layers; z as before           (2, adaptive patching)
    decoder: z = W_d z + b_d; TSMixer layers, also along channels where mixed          (3)
    y = W flatten(z) + b                                                               (4)

| code | paper |
|---|---|
| patch | pl = 64 for 512 rows; n is the number of patches |
| d_model, levels, per_level | hf; M levels of 2 layers each |
| decoder, d_decoder | 2 layers of the decoder, and their hf |
| mix_channels | the decoder's channel mixing, used when tuning on one set |
| resolution | the prefix: a learned patch for the season of the windows, of `seasons` known ones |

(2) has the layers of `tsmixer` (`GatedMixer`). Pretraining on many sets is fitting on windows of a table of many
series; the weights are a state_dict like any other's. Left out: the head that mixes in exogenous channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear, parameter
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import GatedMixer, check_dropout, check_positive, patch_count, patched
from runnel.windows.model import check_norm

PAPERS = {
    "Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced Zero/Few-Shot Forecasting of Multivariate Time "
    "Series": "2401.03955"
}


@dataclass(frozen=True)
class Config:
    """d_model: a multiple of 2^(levels - 1). seasons: those that a prefix is learned for; (): no prefix."""

    patch: int = 16
    d_model: int = 64
    levels: int = 3
    per_level: int = 2
    decoder: int = 2
    d_decoder: int = 32
    expand: int = 2
    mix_channels: bool = False
    seasons: tuple[int, ...] = ()
    dropout: float = 0.2
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "ttm")
        check_positive("ttm", self, "patch", "d_model", "levels", "per_level", "decoder", "d_decoder", "expand")
        check_dropout("ttm", self.dropout)
        if self.d_model % 2 ** (self.levels - 1):
            raise ValueError(f"d_model of ttm must be a multiple of {2 ** (self.levels - 1)}; got {self.d_model}")


class TTM(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        if config.seasons and shape.season not in config.seasons:
            raise ValueError(f"the season of ttm's windows must be one of {config.seasons}; got {shape.season}")
        width, dropout = config.d_model, config.dropout
        count = patch_count(shape.history, config.patch, config.patch) + bool(config.seasons)
        self.embed = linear(config.patch, width, bias=True)
        self.prefix = parameter(0.02 * torch.randn(len(config.seasons), width))
        self.levels = nn.ModuleList(
            nn.Sequential(*(mixers(count * k, width // k, config, dropout) for _ in range(config.per_level)))
            for k in (2 ** (config.levels - 1 - i) for i in range(config.levels))
        )
        self.shrink = linear(width, config.d_decoder, bias=True)
        channels = shape.channels if config.mix_channels else None
        self.decoder = nn.Sequential(
            *(mixers(count, config.d_decoder, config, dropout, channels) for _ in range(config.decoder))
        )
        self.dropout = nn.Dropout(dropout)
        self.out = linear(count * config.d_decoder, shape.horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        z = self.embed(patched(window.history.transpose(1, 2), self.config.patch, self.config.patch))  # eq. (1)
        if self.config.seasons:
            prefix = self.prefix[self.config.seasons.index(self.shape.season)]
            z = torch.cat([prefix.expand(*z.shape[:2], 1, -1), z], dim=2)
        for i, level in enumerate(self.levels):
            z = adapted(z, 2 ** (self.config.levels - 1 - i), level)  # eq. (2)
        z = self.decoder(self.shrink(z))  # eq. (3)
        y = self.out(self.dropout(z.flatten(2)))  # eq. (4)
        return y.unflatten(-1, (self.shape.horizon, self.shape.outputs)).transpose(1, 2)


def mixers(count: int, width: int, config: Config, dropout: float, channels: int | None = None) -> nn.Sequential:
    """One layer of TSMixer over (B, C, count, width)."""
    axes = {-2: count, -1: width} if channels is None else {-2: count, -1: width, -3: channels}
    return nn.Sequential(*(GatedMixer(axis, size, width, config.expand, dropout) for axis, size in axes.items()))


def adapted(z: Float[Tensor, "B C N D"], k: int, level: nn.Module) -> Float[Tensor, "B C N D"]:
    """Equation (2) for one level: every patch cut into k."""
    shape = z.shape
    return level(z.reshape(*shape[:2], shape[2] * k, shape[3] // k)).reshape(shape)


def reference(z: Float[Tensor, "N D"], k: int, level: nn.Module) -> Float[Tensor, "N D"]:
    """Equation (2) for one channel, feature by feature."""
    count, width = z.shape
    cut = torch.zeros(count * k, width // k, dtype=z.dtype)
    for patch in range(count):
        for feature in range(width):
            cut[patch * k + feature // (width // k), feature % (width // k)] = z[patch, feature]
    mixed, y = level(cut[None, None])[0, 0], torch.zeros_like(z)
    for patch in range(count):
        for feature in range(width):
            y[patch, feature] = mixed[patch * k + feature // (width // k), feature % (width // k)]
    return y
