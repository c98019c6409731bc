"""Mamba: a selective state-space layer, whose step size, input and output maps depend on the token.

Paper: "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023, 2312.00752).

    x, z = W_in u;   x = silu(conv(x))                                               (figure 3)
    dt_t = softplus(W_dt x_t + b_dt),   B_t = W_B x_t,   C_t = W_C x_t               (algorithm 2)
    h_t = exp(dt_t A) h_p + dt_t B_t x_t,   y_t = C_t h_t + D x_t                    (eq. 2, 4)
    u' = W_out (y * silu(z))

| code | paper |
|---|---|
| expand | E = 2 |
| d_state | N = 16 |
| inner | E d, where it is not a multiple of d |
| rank | rank of the projection to dt, d / 16 |
| log_a | log(-A), A = -(1..N) at the start (S4D-Real, section 3.6) |

select_norm: dt, B and C of the projection are normalised by their root mean square before they are used: "plain" as in
Falcon Mamba, "scaled" with learned scales as in Jamba.

As in the authors' code, A is taken by zero-order hold and B by Euler's rule (the paper writes zero-order hold for
both).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, linear, log_uniform_inverse_softplus, parameter
from runnel.ops import conv
from runnel.ops.selective import gated_selective_scan

PAPERS = {"Mamba: Linear-Time Sequence Modeling with Selective State Spaces": "2312.00752"}


@dataclass(frozen=True)
class Config:
    expand: int = 2
    d_state: int = 16
    conv: int = 4
    rank: int | None = None
    inner: int | None = None
    bias: bool = False
    conv_bias: bool = True
    select_norm: str | None = None
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.select_norm not in (None, "plain", "scaled"):
            raise ValueError(f"select_norm of mamba must be None, plain or scaled; got {self.select_norm!r}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E)
    memory: Tensor  # (B, E, N)


class Mamba(Mixer):
    variants = ({"bias": True, "conv_bias": False, "select_norm": "plain"}, {"inner": 12, "select_norm": "scaled"})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.inner, self.d_state = config.inner or config.expand * d_model, config.d_state
        self.rank = config.rank or max(1, -(-d_model // 16))
        self.input = linear(d_model, 2 * self.inner, config.bias)
        self.conv_weight = parameter(conv.initial_filters(self.inner, config.conv))
        self.conv_bias = parameter(torch.zeros(self.inner)) if config.conv_bias else None
        self.select = linear(self.inner, self.rank + 2 * self.d_state)
        if config.select_norm == "scaled":
            sizes = (self.rank, self.d_state, self.d_state)
            self.select_norms = nn.ModuleList(RMSNorm(size, config.norm_eps) for size in sizes)
        self.dt = linear(self.rank, self.inner)
        self.dt_bias = parameter(log_uniform_inverse_softplus(self.inner, 1e-3, 1e-1))
        self.log_a = parameter(torch.arange(1, self.d_state + 1).float().log().repeat(self.inner, 1))
        self.skip = parameter(torch.ones(self.inner))
        self.out = linear(self.inner, d_model, config.bias)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.inner)
        return State(tail, self.zeros(batch_size, self.inner, self.d_state))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, z = self.input(x).chunk(2, dim=-1)  # (B, T, E)
        x, tail = conv.causal_conv_silu(x, self.conv_weight, self.conv_bias, state.tail, lineage)
        rank, b, c = self._select(x)
        a, w = -self.log_a.exp(), self.dt.weight
        y, memory = gated_selective_scan(x, rank, w, self.dt_bias, a, b, c, self.skip, z, state.memory, lineage)
        return self.out(y), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x, z = self.input(x).chunk(2, dim=-1)
        zero = self.init_state(x.shape[0])
        x = silu(conv.reference(x, self.conv_weight, self.conv_bias, zero.tail)[0])
        rank, b, c = self._select(x)
        dt = softplus(self.dt(rank) + self.dt_bias)
        a, h, outputs = -self.log_a.exp(), zero.memory, []
        for t in range(x.shape[1]):
            h = (dt[:, t, :, None] * a).exp() * h + dt[:, t, :, None] * b[:, t, None, :] * x[:, t, :, None]
            outputs.append((h * c[:, t, None, :]).sum(-1) + self.skip * x[:, t])
        return self.out(torch.stack(outputs, dim=1) * silu(z))

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rank, b, c = self.select(x).split([self.rank, self.d_state, self.d_state], dim=-1)
        return self._normed(0, rank), self._normed(1, b), self._normed(2, c)

    def _normed(self, part: int, x: Tensor) -> Tensor:
        if self.config.select_norm is None:
            return x
        if self.config.select_norm == "plain":
            return rms_norm(x, x.shape[-1:], eps=self.config.norm_eps)
        return self.select_norms[part](x)
