"""TSMixer: perceptrons over patches, their features and, if asked, channels, each with a gate; no attention.

Paper: "TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series Forecasting" (2023, 2306.09364), section 3.

    x_p: patches of P rows, every S rows;  z = W_e x_p + b_e                           (1)
    n times, along patches, then features, then channels (where mixed):
        z = z + gate(mlp(LayerNorm(z))),  gate(a) = a * softmax(W a + b)               (2)
    y = W flatten(z) + b                                                               (3)
    reconciled: y_c = y_c + gate(mlp(what all channels forecast around that row))      (4)

| code | paper |
|---|---|
| patch, stride | pl, s = 16, 16 |
| d_model, expand, layers | hf, ef = 2, nl = 8 |
| mix_channels | False: CI, channel independent; True: IC, with inter-channel mixers |
| reconcile | cl, rows on either side in the cross-channel head (4), CI-TSMixer(G, CC); None: without |

Layers (2) are `GatedMixer`s of `runnel.windows.layers`. Left out: the head that reconciles sums over patches (H), and
pretraining on masked patches. Deviates: in (4) a row beyond the ends is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from runnel.mixer import linear
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import GatedMixer, check_dropout, check_positive, patch_count, patched
from runnel.windows.model import check_norm

PAPERS = {"TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series Forecasting": "2306.09364"}


@dataclass(frozen=True)
class Config:
    """layers: of (2). gated: without it, (2) has no gates. dropout: in the mixers and before the output."""

    patch: int = 16
    stride: int = 16
    d_model: int = 32
    layers: int = 8
    expand: int = 2
    gated: bool = True
    mix_channels: bool = False
    reconcile: int | None = None
    dropout: float = 0.5
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "tsmixer")
        check_positive("tsmixer", self, "patch", "stride", "d_model", "layers", "expand")
        check_dropout("tsmixer", self.dropout)
        if self.reconcile is not None and self.reconcile < 0:
            raise ValueError(f"reconcile of tsmixer must be None or at least 0 rows; got {self.reconcile}")


class TSMixer(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm = config, config.norm
        width, count = config.d_model, patch_count(shape.history, config.patch, config.stride)
        axes = {-2: count, -1: width, -3: shape.channels}
        if not config.mix_channels:
            del axes[-3]
        self.embed = linear(config.patch, width, bias=True)
        self.layers = nn.Sequential(
            *(
                GatedMixer(axis, size, width, config.expand, config.dropout, config.gated)
                for _ in range(config.layers)
                for axis, size in axes.items()
            )
        )
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(count * width, shape.horizon * shape.outputs, bias=True)
        self.reconciled = None
        if config.reconcile is not None:
            self.reconciled = Reconciled(shape.channels * (2 * config.reconcile + 1), shape.channels)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        patches = patched(window.history.transpose(1, 2), self.config.patch, self.config.stride)  # (B, C, N, P)
        z = self.layers(self.embed(patches))  # eq. (1), (2)
        y = self.out(self.dropout(z.flatten(2))).unflatten(-1, (self.shape.horizon, self.shape.outputs))  # eq. (3)
        y = y.transpose(1, 2)
        return y if self.reconciled is None else self.reconciled(y)


class Reconciled(nn.Module):
    """Equation (4): every row of a forecast is corrected by what all channels forecast around it."""

    def __init__(self, around: int, channels: int) -> None:
        super().__init__()
        self.reach = (around // channels - 1) // 2
        self.gate = linear(around, around, bias=True)
        self.up, self.down = linear(around, around, bias=True), linear(around, channels, bias=True)
        nn.init.zeros_(self.down.weight)  # starts as the forecast of every channel for itself

    def forward(self, y: Float[Tensor, "B H C K"]) -> Float[Tensor, "B H C K"]:
        ends = (self.reach, self.reach)
        rows = pad(y.permute(0, 3, 2, 1), ends).unfold(-1, 2 * self.reach + 1, 1)  # (B, K, C, H, 2 cl + 1)
        around = rows.transpose(2, 3).flatten(-2)
        around = around * self.gate(around).softmax(-1)
        return y + self.down(gelu(self.up(around))).permute(0, 2, 3, 1)


def reference(model: TSMixer, history: Float[Tensor, "L C"]) -> Float[Tensor, "H C K"]:
    """Equations (1) to (3) for one normalised window, outside training: every fibre of a mixer's axis by itself."""
    patch, stride = model.config.patch, model.config.stride
    starts = list(range(len(history) - patch, -stride, -stride))[::-1]
    rows = [[torch.stack([x[max(at + i, 0)] for i in range(patch)]) for at in starts] for x in history.T]
    z = torch.stack([torch.stack([model.embed.weight @ p + model.embed.bias for p in channel]) for channel in rows])
    for layer in model.layers:
        assert isinstance(layer, GatedMixer)
        normed, change = layer.norm(z).movedim(layer.axis, -1), torch.empty_like(z.movedim(layer.axis, -1))
        for at in torch.cartesian_prod(*[torch.arange(n) for n in change.shape[:-1]]):
            place = tuple(at.tolist())
            a = layer.down.weight @ gelu(layer.up.weight @ normed[place] + layer.up.bias) + layer.down.bias
            if layer.gate is not None:
                a = a * (layer.gate.weight @ a + layer.gate.bias).softmax(0)
            change[place] = a
        z = z + change.movedim(-1, layer.axis)
    y = torch.stack([model.out.weight @ channel.flatten() + model.out.bias for channel in z])
    return y.unflatten(-1, (model.shape.horizon, model.shape.outputs)).transpose(0, 1)
