"""MambaMixer (TSM2): selective scans along time and along variates, every layer reading all layers before it.

Paper: "MambaMixer: Efficient Selective State Space Models with Dual Token and Channel Selection" (2024, 2403.19888);
TSM2 is its form for series.

    z_0: every variate as patches of P rows, W_e x_p + b_e                             (1)
    token mixer l:   u_l = S6 along time of sum_i alpha_li z_i + sum_i beta_li u_i      (2)
    channel mixer l: z_l = S6 along variates, both ways, of sum_i theta_li u_i + sum_i gamma_li z_i   (3)
    y = W flatten(LayerNorm(z_n)) + b for every variate                                (4)

| code | paper |
|---|---|
| averages | alpha, beta (over i < l) and theta, gamma (u_l among the u_i), one row of weights for each mixer |
| d_state, expand | of S6, Runnel's `mamba` |

Time is read forwards only, variates in both directions. Every mixer starts from the newest layer alone and has a norm
before it and the newest layer added after it. Deviates: tokens are patches, so that the model is no longer than it has
to be (the paper's are rows); auxiliary static and dated covariates, and the paper's optional two-dimensional norm, are
left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear, parameter
from runnel.mixers import mamba
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import BothWays, check_dropout, check_positive, patch_count, patched, run
from runnel.windows.model import check_norm

PAPERS = {"MambaMixer: Efficient Selective State Space Models with Dual Token and Channel Selection": "2403.19888"}


@dataclass(frozen=True)
class Config:
    """layers: pairs of (2) and (3). channels: without it there is no (3). dropout: after every mixer."""

    patch: int = 8
    d_model: int = 32
    layers: int = 2
    d_state: int = 16
    expand: int = 1
    channels: bool = True
    dropout: float = 0.1
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "mamba_mixer")
        check_positive("mamba_mixer", self, "patch", "d_model", "layers", "d_state", "expand")
        check_dropout("mamba_mixer", self.dropout)


class MambaMixer(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm, width = config, config.norm, config.d_model
        inner = mamba.Config(expand=config.expand, d_state=config.d_state)
        count = patch_count(shape.history, config.patch, config.patch)
        self.embed = linear(config.patch, width, bias=True)
        self.tokens = nn.ModuleList(mamba.Mamba(width, inner) for _ in range(config.layers))
        both = config.layers if config.channels else 0
        self.channels = nn.ModuleList(BothWays(lambda: mamba.Mamba(width, inner)) for _ in range(both))
        mixers = config.layers + both
        self.averages = nn.ParameterList(parameter(_newest(place)) for place in range(1, mixers + 1))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(mixers))
        self.norm_out, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.out = linear(count * width, shape.horizon * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        patches = patched(window.history.transpose(1, 2), self.config.patch, self.config.patch)
        outputs = [self.embed(patches)]  # eq. (1): (B, C, N, D); then u_1, z_1, u_2, ...
        for weights, norm in zip(self.averages, self.norms, strict=True):
            seen = norm(averaged(outputs, weights))
            place = len(outputs) - 1
            mixed = self._along_time(seen, place) if self._is_token(place) else self._along_variates(seen, place)
            outputs.append(outputs[-1] + self.dropout(mixed))
        y = self.out(self.norm_out(outputs[-1]).flatten(2))  # eq. (4)
        return y.unflatten(-1, (self.shape.horizon, self.shape.outputs)).transpose(1, 2)

    def _is_token(self, place: int) -> bool:
        return not self.config.channels or place % 2 == 0

    def _along_time(self, x: Float[Tensor, "B C N D"], place: int) -> Float[Tensor, "B C N D"]:
        """Equation (2)."""
        mixer = self.tokens[place // 2 if self.config.channels else place]
        assert isinstance(mixer, mamba.Mamba)
        return run(mixer, x.flatten(0, 1)).view_as(x)

    def _along_variates(self, x: Float[Tensor, "B C N D"], place: int) -> Float[Tensor, "B C N D"]:
        """Equation (3)."""
        turned = x.transpose(1, 2)
        return self.channels[place // 2](turned.flatten(0, 1)).view_as(turned).transpose(1, 2)


def averaged(outputs: Sequence[Float[Tensor, "B C N D"]], weights: Float[Tensor, "I"]) -> Float[Tensor, "B C N D"]:
    """The weighted sums of (2) and (3), over the outputs of all mixers so far."""
    return torch.einsum("i,i...->...", weights, torch.stack(list(outputs)))


def _newest(count: int) -> Float[Tensor, "I"]:
    weights = torch.zeros(count)
    weights[-1] = 1
    return weights


def reference(model: MambaMixer, history: Float[Tensor, "L C"]) -> Float[Tensor, "C H*K"]:
    """Equations (1) to (4) for one normalised window, outside training, a series and a patch at a time."""
    patches = patched(history.T, model.config.patch, model.config.patch)
    outputs = [torch.stack([torch.stack([model.embed(p) for p in variate]) for variate in patches])]
    for place, (weights, norm) in enumerate(zip(model.averages, model.norms, strict=True)):
        seen = norm(sum(w * z for w, z in zip(weights, outputs, strict=True)))
        if model.config.channels and place % 2:
            both = model.channels[place // 2]
            assert isinstance(both, BothWays)
            rows = [seen[:, n] for n in range(seen.shape[1])]
            mixed = [both.there.reference(r[None])[0] + both.back.reference(r.flip(0)[None])[0].flip(0) for r in rows]
            change = torch.stack(mixed, dim=1)
        else:
            mixer = model.tokens[place // 2 if model.config.channels else place]
            assert isinstance(mixer, mamba.Mamba)
            change = torch.cat([mixer.reference(variate[None]) for variate in seen])
        outputs.append(outputs[-1] + change)
    return torch.stack([model.out(variate.flatten()) for variate in model.norm_out(outputs[-1])])
