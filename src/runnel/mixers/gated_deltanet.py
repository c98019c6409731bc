"""Gated DeltaNet: a matrix state that decays, and that overwrites what it holds under a key instead of adding to it.

Paper: "Gated Delta Networks: Improving Mamba2 with Delta Rule" (2024, 2412.06464).
"Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues" (2024, 2411.12537) for beta_max = 2.

    q, k, v = silu(conv(W x));   q, k of unit length                                 (section 3.3, figure 1)
    a_t = exp(-exp(log_a) softplus(W_a x_t + b_a)),   beta_t = beta_max sigmoid(W_b x_t)
    S_t = a_t S_p (I - beta_t k_t k_t^T) + beta_t v_t k_t^T,   o_t = S_t q_t         (eq. 10)
    y_t = W_o (RMSNorm(o_t) * silu(W_g x_t))

| code | paper |
|---|---|
| memory (B, H, K, V) | S transposed |
| beta_max | 1; with 2 the transition has eigenvalues down to -1, which parity needs |
| expand_v | width of the values / width of the keys |
| heads, value_heads | of queries and keys, and of values: where there are more, each key serves several |
| key_eps | added to the squared length that q and k are divided by |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.mixers import check_beta_max
from runnel.ops import conv
from runnel.ops.delta import delta_scan

PAPERS = {
    "Gated Delta Networks: Improving Mamba2 with Delta Rule": "2412.06464",
    "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues": "2411.12537",
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    expand_v: float = 1
    conv: int = 4
    beta_max: float = 1.0
    heads: int | None = None
    value_heads: int | None = None
    key_eps: float = 0.0
    norm_eps: float = 1e-6


class State(NamedTuple):
    tail: Tensor  # (B, W-1, 2HK + HV)
    memory: Tensor  # (B, H, K, V), H the heads of the values


class GatedDeltaNet(Mixer):
    variants = (
        {"beta_max": 2.0},
        {"expand_v": 2},
        {"heads": 2, "value_heads": 4, "head_dim": 3, "expand_v": 4 / 3, "key_eps": 0.1},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        check_beta_max("gated_deltanet", config.beta_max)
        self.key_width = head_width(d_model, config.head_dim) if config.heads is None else config.head_dim or 64
        self.key_heads = config.heads or d_model // self.key_width
        self.heads = config.value_heads or self.key_heads
        if self.heads % self.key_heads:
            raise ValueError(
                f"gated_deltanet needs a multiple of its {self.key_heads} heads as value_heads; got {self.heads}"
            )
        self.config, self.value_width = config, round(config.expand_v * self.key_width)
        keys, values = self.key_heads * self.key_width, self.heads * self.value_width
        self.sizes = [keys, keys, values]
        self.qkv = linear(d_model, sum(self.sizes))
        self.conv_weight = parameter(conv.initial_filters(sum(self.sizes), config.conv))
        self.gate = linear(d_model, values)
        self.rates = linear(d_model, 2 * self.heads)  # to softplus of the decay, and to beta
        self.decay_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.norm = RMSNorm(self.value_width, config.norm_eps)
        self.out = linear(values, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, sum(self.sizes))
        return State(tail, self.zeros(batch_size, self.heads, self.key_width, self.value_width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        mixed, tail = conv.causal_conv_silu(self.qkv(x), self.conv_weight, None, state.tail, lineage)
        q, k, v = self._split(mixed)
        beta, log_decay = self._rates(x)
        y, memory = delta_scan(q, k, v, beta, log_decay, state.memory, lineage)
        return self._output(y, x), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        zero = self.init_state(x.shape[0])
        q, k, v = self._split(silu(conv.reference(self.qkv(x), self.conv_weight, None, zero.tail)[0]))
        beta, log_decay = self._rates(x)
        s, outputs = zero.memory.mT, []  # (B, H, V, K), as the paper writes it
        eye = torch.eye(self.key_width, dtype=x.dtype)
        for t in range(x.shape[1]):
            a, b, key = log_decay[:, t].exp()[..., None, None], beta[:, t, :, None, None], k[:, t, :, :, None]
            s = a * s @ (eye - b * key @ key.mT) + b * v[:, t, :, :, None] @ key.mT
            outputs.append((s @ q[:, t, :, :, None])[..., 0])
        return self._output(torch.stack(outputs, dim=1), x)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k (B, T, H, K) of unit length, v (B, T, H, V)."""
        counts = (self.key_heads, self.key_heads, self.heads)
        q, k, v = [
            y.unflatten(-1, (count, -1)) for y, count in zip(mixed.split(self.sizes, dim=-1), counts, strict=True)
        ]
        q, k = [self._unit(y).repeat_interleave(self.heads // self.key_heads, dim=-2) for y in (q, k)]
        return q * self.key_width**-0.5, k, v

    def _unit(self, x: Tensor) -> Tensor:
        eps = self.config.key_eps
        return x * (x.square().sum(-1, keepdim=True) + eps).rsqrt() if eps else normalize(x, dim=-1)

    def _rates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """beta and log a, each (B, T, H)."""
        decay, beta = self.rates(x).chunk(2, dim=-1)
        return self.config.beta_max * beta.sigmoid(), -self.log_a.exp() * softplus(decay + self.decay_bias)

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * silu(self.gate(x)))
