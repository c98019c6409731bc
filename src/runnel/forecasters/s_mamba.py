"""S-Mamba: a Mamba in each direction across variates, each of them one token that holds its whole history.

Paper: "Is Mamba Effective for Time Series Forecasting?" (2024, 2403.11144).

    U = W_e x + b_e for the history x of every variate                                 (1)
    l times: U' = LayerNorm(U + Mamba(U) + flip(Mamba'(flip(U)))),
             U = LayerNorm(U' + MLP(U'))                                               (2)
    y = W_p LayerNorm(U) + b_p                                                         (3)

| code | paper |
|---|---|
| d_model, hidden | D, and the width of the feed-forward network: 256 each for ETTh1 at H = 96 |
| d_state, conv, expand | of Mamba: 2, 2 and 1 in the authors' scripts for ETT |

Unlike attention's, (2) depends on the order of the variates. Covariates over the history are further tokens behind
them, as in `itransformer`, of which this is the same frame with another mixer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.mixers import mamba
from runnel.windows import WindowShape
from runnel.windows.layers import BothWays, EncoderLayer, VariateEncoder, check_dropout, check_positive
from runnel.windows.model import check_norm

PAPERS = {"Is Mamba Effective for Time Series Forecasting?": "2403.11144"}


@dataclass(frozen=True)
class Config:
    """layers: of (2). hidden: width of the MLP. dropout: after the embedding and in every layer."""

    d_model: int = 256
    hidden: int = 256
    layers: int = 2
    d_state: int = 2
    conv: int = 2
    expand: int = 1
    dropout: float = 0.1
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "s_mamba")
        check_positive("s_mamba", self, "d_model", "hidden", "layers", "d_state", "conv", "expand")
        check_dropout("s_mamba", self.dropout)


class SMamba(VariateEncoder):
    """Equation (1) embeds, (2) are the layers, (3) reads out."""

    def __init__(self, shape: WindowShape, config: Config) -> None:
        inner = mamba.Config(expand=config.expand, d_state=config.d_state, conv=config.conv)
        mix = partial(BothWays, partial(mamba.Mamba, config.d_model, inner))
        super().__init__(shape, config.d_model, config.hidden, config.layers, config.dropout, mix)
        self.config, self.norm = config, config.norm


def reference(model: SMamba, series: Float[Tensor, "C L"]) -> Float[Tensor, "C H*K"]:
    """Equations (1) to (3) for one normalised window, outside training, by Mamba's own loop."""
    u = torch.stack([model.embed.weight @ x + model.embed.bias for x in series])
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer) and isinstance(layer.mix, BothWays)
        there, back = layer.mix.there.reference(u[None])[0], layer.mix.back.reference(u.flip(0)[None])[0]
        u = layer.mix_norm(u + there + back.flip(0))
        u = layer.mlp_norm(u + layer.mlp.reference(u[None])[0])
    return torch.stack([model.out.weight @ x + model.out.bias for x in model.norm_out(u)])
