"""Informer: attention in which only the queries that have something to say are answered one by one.

Paper: "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting" (2020, 2012.07436), section 3.

    M(q) = max_j q . k_j / sqrt(d) - mean_j q . k_j / sqrt(d), over c ln L sampled keys j  (1)
    the c ln L queries of the largest M: softmax attention over all keys               (2, ProbSparse)
    every other query: the mean of the values (causal: their sum up to the query)      (3)
    between encoder layers: X = maxpool(elu(BatchNorm(conv(X)))), half as many rows    (4, distilling)
    decoder: the last rows of history, then zeros; all rows of the horizon at once     (5)

| code | paper |
|---|---|
| factor | c = 5 |
| label | L_token, rows that the decoder is begun with; None: half of the history |
| encoder, decoder | 2 and 1 layers |

Deviates: which keys are sampled in (1) is drawn once for every length, so that a forecast does not change from call to
call. (1) to (3), and their literal loop, are in `runnel.ops.prob_sparse`. Calendar features are whatever covariates are
known ahead (`future`); places are sinusoids.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import elu, max_pool1d, pad

from runnel.mixer import linear
from runnel.ops.prob_sparse import prob_sparse
from runnel.windows import Window, WindowModel, WindowShape
from runnel.windows.layers import (
    BatchNorm,
    EncoderLayer,
    RowConv,
    WholeAttention,
    check_dropout,
    check_heads,
    check_positive,
    sinusoids,
    split_heads,
)
from runnel.windows.model import check_norm

PAPERS = {"Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting": "2012.07436"}


@dataclass(frozen=True)
class Config:
    """hidden: width of the perceptrons. dropout: after the embeddings and in every layer."""

    d_model: int = 512
    heads: int = 8
    hidden: int = 2048
    encoder: int = 2
    decoder: int = 1
    factor: float = 5.0
    label: int | None = None
    dropout: float = 0.05
    norm: str = "none"

    def __post_init__(self) -> None:
        check_norm(self.norm, "informer")
        check_positive("informer", self, "d_model", "hidden", "encoder", "decoder")
        check_heads(self.d_model, self.heads)
        check_dropout("informer", self.dropout)
        if self.factor <= 0 or (self.label is not None and self.label < 1):
            raise ValueError(f"factor and label of informer must be positive; got {self.factor} and {self.label}")


class Informer(WindowModel):
    def __init__(self, shape: WindowShape, config: Config) -> None:
        super().__init__(shape)
        self.config, self.norm, width = config, config.norm, config.d_model
        self.label = min(config.label or max(1, shape.history // 2), shape.history)
        self.embed, self.embed_ahead = (RowConv(shape.channels, shape.future, width) for _ in range(2))
        self.encoder = nn.ModuleList(self._layer(causal=False) for _ in range(config.encoder))
        self.distil = nn.ModuleList(Distil(width) for _ in range(config.encoder - 1))
        self.decoder = nn.ModuleList(DecoderLayer(config, self._layer(causal=True)) for _ in range(config.decoder))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.out = linear(width, shape.channels * shape.outputs, bias=True)

    def forward(self, window: Window) -> Float[Tensor, "B H C K"]:
        x, marks = window.history, window.future
        read = self._placed(self.embed(x, None if marks is None else marks[:, : x.shape[1]]))
        for at, layer in enumerate(self.encoder):
            read = layer(read if at == 0 else self.distil[at - 1](read))
        read = self.encoder_norm(read)
        begun = pad(x[:, -self.label :], (0, 0, 0, self.shape.horizon))  # eq. (5)
        y = self._placed(self.embed_ahead(begun, None if marks is None else marks[:, x.shape[1] - self.label :]))
        for layer in self.decoder:
            y = layer(y, read)
        return self.out(self.decoder_norm(y)[:, -self.shape.horizon :]).unflatten(-1, (-1, self.shape.outputs))

    def _layer(self, causal: bool) -> EncoderLayer:
        mix = ProbSparse(self.config.d_model, self.config.heads, self.config.factor, causal)
        return EncoderLayer(mix, self.config.d_model, self.config.hidden, self.config.dropout)

    def _placed(self, x: Tensor) -> Tensor:
        return self.dropout(x + sinusoids(x.shape[1], x.shape[2]).to(x))


class DecoderLayer(nn.Module):
    """Self-attention, then attention to the encoder, then the perceptron, a norm after each."""

    def __init__(self, config: Config, own: EncoderLayer) -> None:
        super().__init__()
        self.own, self.other = own, WholeAttention(config.d_model, config.heads)
        self.norm, self.dropout = nn.LayerNorm(config.d_model), nn.Dropout(config.dropout)

    def forward(self, y: Float[Tensor, "B T D"], read: Float[Tensor, "B S D"]) -> Float[Tensor, "B T D"]:
        y = self.own.mix_norm(y + self.dropout(self.own.mix(y)))
        y = self.norm(y + self.dropout(self.other(y, read)))
        return self.own.mlp_norm(y + self.dropout(self.own.mlp(y)))


class Distil(nn.Module):
    """Equation (4)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.conv, self.norm = RowConv(d_model, 0, d_model), BatchNorm(d_model)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B S D"]:
        return max_pool1d(elu(self.norm(self.conv(x))).transpose(1, 2), 3, 2, 1).transpose(1, 2)


class ProbSparse(nn.Module):
    """Equations (1) to (3) by head."""

    def __init__(self, d_model: int, heads: int, factor: float, causal: bool) -> None:
        super().__init__()
        self.heads, self.factor, self.causal = heads, factor, causal
        self.q, self.k, self.v, self.out = (linear(d_model, d_model, bias=True) for _ in range(4))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = (split_heads(part(x), self.heads) for part in (self.q, self.k, self.v))
        return self.out(prob_sparse(q, k, v, self.factor, self.causal).transpose(1, 2).flatten(-2))
