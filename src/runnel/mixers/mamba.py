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

eigen_range: "signed" has decays 2 exp(dt_t A) - 1 in (-1, 1), which can follow parity (2411.12537, section 4).
polarize: the first of the N decays is one and the last zero, whatever the token (2501.00658, section 5), against
recency and over-smoothing, which `probe.recency` measures.

As in the authors' code, A is taken by zero-order hold and B by Euler's rule (the paper: zero-order hold for both).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, linear, log_uniform_inverse_softplus, matrix_of, parameter
from runnel.ops import conv
from runnel.ops.selective import gated_selective_scan, signed_selective_scan

PAPERS = {
    "Mamba: Linear-Time Sequence Modeling with Selective State Spaces": "2312.00752",
    "Unlocking State-Tracking in Linear RNNs Through Negative Eigenvalues": "2411.12537",
    "Understanding and Mitigating Bottlenecks of State Space Models through the Lens of Recency and "
    "Over-smoothing": "2501.00658",
}
NEVER = -1e8
"""A rate so negative that exp(dt A) is zero for every dt that softplus makes of an ordinary number."""


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
    eigen_range: str = "positive"
    polarize: bool = False

    def __post_init__(self) -> None:
        if self.select_norm not in (None, "plain", "scaled"):
            raise ValueError(f"select_norm of mamba must be None, plain or scaled; got {self.select_norm!r}")
        if self.eigen_range not in ("positive", "signed"):
            raise ValueError(f"eigen_range of mamba must be positive or signed; got {self.eigen_range!r}")
        if self.polarize and (self.d_state < 2 or self.eigen_range == "signed"):
            raise ValueError("polarize of mamba needs d_state >= 2 and eigen_range='positive'")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E)
    memory: Tensor  # (B, E, N)


class Mamba(Mixer):
    variants = (
        {"bias": True, "conv_bias": False, "select_norm": "plain"},
        {"inner": 12, "select_norm": "scaled"},
        {"eigen_range": "signed"},
        {"polarize": True},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.scan = signed_selective_scan if config.eigen_range == "signed" else gated_selective_scan
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
        a, w = self._rates(), matrix_of(self.dt)
        y, memory = self.scan(x, rank, w, self.dt_bias, a, b, c, self.skip, z, state.memory, lineage)
        return self.out(y), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x, z = self.input(x).chunk(2, dim=-1)
        zero = self.init_state(x.shape[0])
        x = silu(conv.reference(x, self.conv_weight, self.conv_bias, zero.tail)[0])
        rank, b, c = self._select(x)
        dt = softplus(self.dt(rank) + self.dt_bias)
        a, h, outputs = self._rates(), zero.memory, []
        for t in range(x.shape[1]):
            decay = (dt[:, t, :, None] * a).exp()
            decay = 2 * decay - 1 if self.config.eigen_range == "signed" else decay
            h = decay * h + dt[:, t, :, None] * b[:, t, None, :] * x[:, t, :, None]
            outputs.append((h * c[:, t, None, :]).sum(-1) + self.skip * x[:, t])
        return self.out(torch.stack(outputs, dim=1) * silu(z))

    def _rates(self) -> Tensor:
        """A (E, N), at most zero."""
        a = -self.log_a.exp()
        ends = [torch.zeros_like(a[:, :1]), torch.full_like(a[:, :1], NEVER)]
        return torch.cat([ends[0], a[:, 1:-1], ends[1]], dim=1) if self.config.polarize else a

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rank, b, c = self.select(x).split([self.rank, self.d_state, self.d_state], dim=-1)
        return self._normed(0, rank), self._normed(1, b), self._normed(2, c)

    def _normed(self, part: int, x: Tensor) -> Tensor:
        if self.config.select_norm is None:
            return x
        plain = self.config.select_norm == "plain"
        return rms_norm(x, x.shape[-1:], eps=self.config.norm_eps) if plain else self.select_norms[part](x)
