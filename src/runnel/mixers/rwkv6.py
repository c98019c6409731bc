"""RWKV-6 time mixing (Finch): a matrix state whose channels decay at rates read from the input, one token late.

Paper: "Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence" (2024, 2404.05892).

    lerp(a, b, mu) = a + (b - a) * mu:  token shift between x_t and its parent x_p
    x^s = lerp(x_t, x_p, lambda_s + tanh(lerp(x_t, x_p, mu_x) A_s) B_s),  s in r, w, k, v, g  (1)
    w_t = exp(-exp(omega + tanh(x^w A_w) B_w))                                       (2)
    o_t = (S_p + Diag(u) k_t v_t^T)^T r_t                                            (3)
    S_t = Diag(w_t) S_p + k_t v_t^T                                                  (4)
    y_t = W_o (silu(W_g x^g) * GroupNorm(o_t))                                       (5)

| code | paper |
|---|---|
| memory (B, H, K, V) | s, read before the token decays it |
| bonus | u: the weight of the token's own write |
| rank | width of A_s; 2 rank is that of A_w. Without it (0) mixing and decay are constants: Eagle, RWKV-5 |

Deviates: channel mixing is the block's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops import conv
from runnel.ops.outer import outer_scan_before

PAPERS = {"Eagle and Finch: RWKV with Matrix-Valued States and Dynamic Recurrence": "2404.05892"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    rank: int = 32

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"rwkv6 needs rank >= 0; got {self.rank}")


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)
    memory: Tensor  # (B, H, K, K)


class RWKV6(Mixer):
    variants = ({"rank": 0}, {"head_dim": 2})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.rank = head_width(d_model, config.head_dim), config.rank
        self.heads = d_model // self.width
        channel = torch.arange(d_model) / d_model
        self.mu_x = parameter(1 - channel)
        self.mu = parameter((1 - channel) ** torch.tensor([[0.5], [1.0], [1.0], [0.7], [0.5]]))  # of r, w, k, v, g
        self.omega = parameter(-6 + 5 * channel**0.7)  # from almost no forgetting to fast, over the channels
        self.shrink = parameter(torch.randn(d_model, 5 * self.rank) * d_model**-0.5)
        self.widen = parameter(torch.zeros(5, self.rank, d_model))
        self.slow = parameter(torch.randn(d_model, 2 * self.rank) * d_model**-0.5)
        self.decay = parameter(torch.zeros(2 * self.rank, d_model))
        self.r, self.k, self.v, self.gate = [linear(d_model, d_model) for _ in range(4)]
        self.bonus = parameter(torch.full((self.heads, self.width), 0.5))
        self.norm = nn.GroupNorm(self.heads, d_model, eps=1e-5 * self.width)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        memory = self.zeros(batch_size, self.heads, self.width, self.width)
        return State(self.zeros(batch_size, 1, self.heads * self.width), memory)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        before, tail = conv.shift(x, state.tail, lineage)
        r, k, v, log_decay, gate = self._project(x, before)
        y, memory = outer_scan_before(r, k, v, log_decay, state.memory, lineage)
        own = (r * self.bonus * k).sum(-1, keepdim=True) * v
        return self._output(y + own, gate), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        r, k, v, log_decay, gate = self._project(x, before)
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            write = k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((r[:, t, :, :, None] * (s + self.bonus[..., None] * write)).sum(-2))
            s = log_decay[:, t].exp()[..., None] * s + write
        return self._output(torch.stack(outputs, dim=1), gate)

    def _project(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """r, k, v, log w, each (B, T, H, K), and the output gate (B, T, D)."""
        xr, xw, xk, xv, xg = self._mix(x, before)
        log_decay = -torch.exp(self.omega + (xw @ self.slow).tanh() @ self.decay)
        parts = (self.r(xr), self.k(xk), self.v(xv), log_decay)
        r, k, v, log_decay = [z.unflatten(-1, (self.heads, self.width)) for z in parts]
        return r, k, v, log_decay, silu(self.gate(xg))

    def _mix(self, x: Tensor, before: Tensor) -> tuple[Tensor, ...]:
        """x^s for every s, each (B, T, D)."""
        low = (torch.lerp(x, before, self.mu_x.to(x.dtype)) @ self.shrink).tanh().unflatten(-1, (5, self.rank))
        mu = self.mu + torch.einsum("btsr,srd->btsd", low, self.widen)
        return torch.lerp(x[..., None, :], before[..., None, :], mu.to(x.dtype)).unbind(-2)

    def _output(self, y: Tensor, gate: Tensor) -> Tensor:
        flat = y.flatten(-2)
        return self.out(self.norm(flat.flatten(0, 1)).view_as(flat) * gate)
