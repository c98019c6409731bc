"""Kimi delta attention: the gated delta rule whose every key channel forgets at a rate of its own.

Paper: "Kimi Linear: An Expressive, Efficient Attention Architecture" (2025, 2510.26692).

    q, k, v = silu(conv(W x));   q, k of unit length;   beta_t = beta_max sigmoid(W_b x_t)      (section 4)
    a_t = exp(-exp(log_a) softplus(W_up W_down x_t + b))     per channel                         (section 4)
    S_t = (I - beta_t k_t k_t^T) Diag(a_t) S_p + beta_t k_t v_t^T,   o_t = S_t^T q_t             (eq. 1)
    y_t = W_o (sigmoid(W_g,up W_g,down x_t) * RMSNorm(o_t))                                      (eq. 10)

| code | paper |
|---|---|
| rank | of both low-rank maps; None: the width of a head |
| beta_max | 1; with 2 the transition has eigenvalues down to -1 |
| heads | number of heads, where it is not d / head_dim |
| key_eps | added to the squared length of q and k; 0 for the exact length |
| gate_bias | the output gate has a bias |

Three such layers to one of attention without positions make Kimi Linear: "(kda*3, latent_attention(rope_base=None))".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import RMSNorm, head_width, linear
from runnel.mixers import ChannelDecay, DeltaHeads, DeltaMixer, DeltaState, check_beta_max
from runnel.ops.delta import delta_scan

PAPERS = {"Kimi Linear: An Expressive, Efficient Attention Architecture": "2510.26692"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    rank: int | None = None
    conv: int = 4
    beta_max: float = 1.0
    heads: int | None = None
    key_eps: float = 0.0
    norm_eps: float = 1e-6
    gate_bias: bool = True

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"kda needs rank >= 1; got {self.rank}")
        check_beta_max("kda", self.beta_max)


class KimiDeltaAttention(DeltaMixer):
    variants = (
        {"beta_max": 2.0, "head_dim": 4},
        {"heads": 3, "head_dim": 2, "key_eps": 0.1, "gate_bias": False},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim) if config.heads is None else config.head_dim or 64
        self.heads, self.beta_max = config.heads or d_model // self.width, config.beta_max
        inner, rank = self.heads * self.width, config.rank or self.width
        self.inputs = DeltaHeads(d_model, self.heads, self.width, self.width, config.conv, eps=config.key_eps)
        self.beta = linear(d_model, self.heads)
        self.decay = ChannelDecay(d_model, self.heads, self.width, rank)
        self.gate = nn.Sequential(linear(d_model, rank), linear(rank, inner, config.gate_bias))
        self.norm = RMSNorm(self.width, config.norm_eps)
        self.out = linear(inner, d_model)

    def forward(
        self, x: Float[Tensor, "B T D"], state: DeltaState, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], DeltaState]:
        q, k, v, tail = self.inputs(x, state.tail, lineage)
        y, memory = delta_scan(q, k, v, *self._rates(x), state.memory, lineage)
        return self._output(y, x), DeltaState(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self.inputs.reference(x)
        beta, log_decay = self._rates(x)
        s, outputs = self.init_state(x.shape[0]).memory, []
        eye = torch.eye(self.width, dtype=x.dtype)
        for t in range(x.shape[1]):
            b, key, value = beta[:, t, :, None, None], k[:, t, :, :, None], v[:, t, :, None, :]
            s = (eye - b * key @ key.mT) @ torch.diag_embed(log_decay[:, t].exp()) @ s + b * key @ value
            outputs.append((s.mT @ q[:, t, :, :, None])[..., 0])
        return self._output(torch.stack(outputs, dim=1), x)

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """beta (B, T, H) and log a (B, T, H, K)."""
        return self.beta_max * self.beta(x).sigmoid(), self.decay(x)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * self.gate(x).sigmoid())
