"""iTransformer: attention across variates, each of them one token that holds its whole history.

Paper: "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting" (2023, 2310.06625), section 3.

    h_n = W_e x_n + b_e for the history x_n of every variate n                         (1)
    l times: H = LayerNorm(H + Attention(H)),  H = LayerNorm(H + MLP(H))               (2)
    y_n = W_p LayerNorm(h_n) + b_p                                                     (3)

| code | paper |
|---|---|
| d_model, hidden | D, and the width of the feed-forward network: 256 each for ETTh1 at H = 96 |
| layers | L = 2 |

Tokens have no place: variates may be permuted, and others may be given than those of training. Covariates over the
history (`past`, and `future` up to now) are further tokens without a forecast, as calendar features are in the authors'
program; those of the horizon are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.windows import WindowShape
from runnel.windows.layers import EncoderLayer, VariateEncoder, WholeAttention, check_dropout, check_positive
from runnel.windows.model import check_norm

PAPERS = {"iTransformer: Inverted Transformers Are Effective for Time Series Forecasting": "2310.06625"}


@dataclass(frozen=True)
class Config:
    """layers: of (2). hidden: width of the MLP. dropout: after the embedding and in every layer."""

    d_model: int = 256
    heads: int = 8
    hidden: int = 256
    layers: int = 2
    dropout: float = 0.1
    norm: str = "revin"

    def __post_init__(self) -> None:
        check_norm(self.norm, "itransformer")
        check_positive("itransformer", self, "d_model", "hidden", "layers")
        check_dropout("itransformer", self.dropout)


class ITransformer(VariateEncoder):
    """Equation (1) embeds, (2) are the layers, (3) reads out."""

    def __init__(self, shape: WindowShape, config: Config) -> None:
        mix = partial(WholeAttention, config.d_model, config.heads)
        super().__init__(shape, config.d_model, config.hidden, config.layers, config.dropout, mix)
        self.config, self.norm = config, config.norm


def reference(model: ITransformer, series: Float[Tensor, "C L"]) -> Float[Tensor, "C H*K"]:
    """Equations (1) to (3) for one normalised window, outside training."""
    h = torch.stack([model.embed.weight @ x + model.embed.bias for x in series])
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer) and isinstance(layer.mix, WholeAttention)
        h = layer.mix_norm(h + layer.mix.reference(h))
        h = layer.mlp_norm(h + layer.mlp.reference(h[None])[0])
    return torch.stack([model.out.weight @ x + model.out.bias for x in model.norm_out(h)])
