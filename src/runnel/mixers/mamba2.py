"""Mamba-2: a selective state-space layer with one decay per head, computed as masked matrix products.

Paper: "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality"
(2024, 2405.21060).

    z, x, B, C, dt = W_in u;   x, B, C = silu(conv(x, B, C))                         (section 7.1)
    dt_t = softplus(dt_t + b_dt),   a_t = exp(dt_t A),  A = -exp(log_a) one per head
    h_t = a_t h_p + dt_t B_t x_t^T,   y_t = h_t^T C_t + D x_t                        (eq. 1, 2 of section 2, SSD)
    u' = W_out RMSNorm(y * silu(z))

| code | paper |
|---|---|
| head_dim | P = 64 |
| d_state | N; B and C are shared by all heads (multi-value, section 7.2) |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.ops import conv
from runnel.ops.outer import outer_scan

PAPERS = {
    "Transformers are SSMs: Generalized Models and Efficient Algorithms Through Structured State Space Duality": (
        "2405.21060"
    )
}


@dataclass(frozen=True)
class Config:
    expand: int = 2
    d_state: int = 64
    head_dim: int | None = None
    conv: int = 4


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E + 2N)
    memory: Tensor  # (B, H, N, P)


class Mamba2(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.inner, self.d_state = config.expand * d_model, config.d_state
        self.width = head_width(self.inner, config.head_dim)
        self.heads = self.inner // self.width
        self.mixed = self.inner + 2 * self.d_state
        self.input = linear(d_model, self.inner + self.mixed + self.heads)
        self.conv_weight = parameter(conv.initial_filters(self.mixed, config.conv))
        self.conv_bias = parameter(torch.zeros(self.mixed))
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.skip = parameter(torch.ones(self.heads, 1))
        self.norm = RMSNorm(self.inner)
        self.out = linear(self.inner, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.mixed)
        return State(tail, self.zeros(batch_size, self.heads, self.d_state, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        z, mixed, dt = self._input(x)
        mixed, tail = conv.causal_conv_silu(mixed, self.conv_weight, self.conv_bias, state.tail, lineage)
        x, b, c = self._split(mixed)
        y, memory = outer_scan(c, b, dt[..., None] * x, -dt * self.log_a.exp(), state.memory, lineage)
        return self._output(y + self.skip * x, z), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        z, mixed, dt = self._input(x)
        zero = self.init_state(x.shape[0])
        x, b, c = self._split(silu(conv.reference(mixed, self.conv_weight, self.conv_bias, zero.tail)[0]))
        a, h, outputs = -self.log_a.exp(), zero.memory, []
        for t in range(x.shape[1]):
            write = b[:, t, :, :, None] * (dt[:, t, :, None] * x[:, t])[:, :, None, :]
            h = (dt[:, t] * a).exp()[..., None, None] * h + write
            outputs.append((c[:, t, :, :, None] * h).sum(-2) + self.skip * x[:, t])
        return self._output(torch.stack(outputs, dim=1), z)

    def _input(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, mixed, dt = self.input(u).split([self.inner, self.mixed, self.heads], dim=-1)
        return z, mixed, softplus(dt + self.dt_bias)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, H, P), B and C (B, T, 1, N)."""
        x, b, c = mixed.split([self.inner, self.d_state, self.d_state], dim=-1)
        return x.unflatten(-1, (self.heads, self.width)), b[:, :, None], c[:, :, None]

    def _output(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out(self.norm(y.flatten(-2) * silu(z)))
