"""Longhorn: a state space whose update solves an online regression, and so supplies its own forgetting.

Paper: "Longhorn: State Space Models are Amortized Online Learners" (2024, 2407.14207).

    s_t = argmin_s |s - s_p|^2 + beta_t (s . k_t - x_t)^2       for every channel    (1)
        = s_p + delta_t (x_t - s_p . k_t) k_t,   delta_t = beta_t / (1 + beta_t |k_t|^2)  (2)
       ~= (1 - delta_t k_t^2) * s_p + delta_t x_t k_t           keeping the diagonal of k k^T  (3)
    y_t = s_t . q_t + D x_t,   u' = W_o (y * silu(z))                                (4)

| code | paper |
|---|---|
| expand, d_state, conv, rank | as in the page Mamba, whose block this is |
| beta (B, T, E) | sigmoid(W_beta x_t + b), how much an error weighs |
| memory (B, E, N) | S, one regression per channel |

The diagonal approximation is what makes it a scan; `implicit_update` is the update before it. Its decay differs from
channel to channel and from key to key at once, so the states of a call are written out over time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv
from runnel.ops.scan import diagonal_scan

PAPERS = {"Longhorn: State Space Models are Amortized Online Learners": "2407.14207"}


@dataclass(frozen=True)
class Config:
    expand: int = 2
    d_state: int = 16
    conv: int = 4
    rank: int | None = None


class State(NamedTuple):
    tail: Tensor  # (B, W-1, E)
    memory: Tensor  # (B, E, N)


def implicit_update(
    s: Float[Tensor, "*B N"], k: Float[Tensor, "*B N"], x: Float[Tensor, "*B 1"], beta: Float[Tensor, "*B 1"]
) -> Float[Tensor, "*B N"]:
    """The minimiser of |s' - s|^2 + beta (s' . k - x)^2."""
    delta = beta / (1 + beta * k.square().sum(-1, keepdim=True))
    return s + delta * (x - (s * k).sum(-1, keepdim=True)) * k


class Longhorn(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.inner, self.d_state = config.expand * d_model, config.d_state
        self.rank = config.rank or max(1, -(-d_model // 16))
        self.input = linear(d_model, 2 * self.inner)
        self.conv_weight = parameter(conv.initial_filters(self.inner, config.conv))
        self.conv_bias = parameter(torch.zeros(self.inner))
        self.select = linear(self.inner, self.rank + 2 * self.d_state)
        self.beta = linear(self.rank, self.inner, bias=True)
        self.skip = parameter(torch.ones(self.inner))
        self.out = linear(self.inner, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.inner)
        return State(tail, self.zeros(batch_size, self.inner, self.d_state))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, z = self.input(x).chunk(2, dim=-1)  # (B, T, E)
        x, tail = conv.causal_conv(x, self.conv_weight, self.conv_bias, state.tail, lineage)
        x = silu(x)
        beta, k, q = self._select(x)
        delta = beta / (1 + beta * k.square().sum(-1, keepdim=True))
        keep = 1 - delta[..., None] * k.square()[..., None, :]  # (B, T, E, N)
        s, memory = diagonal_scan(keep, (delta * x)[..., None] * k[..., None, :], state.memory, lineage)
        y = (s @ q.to(s.dtype)[..., None])[..., 0].to(x.dtype)
        return self.out((y + self.skip * x) * silu(z)), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x, z = self.input(x).chunk(2, dim=-1)
        zero = self.init_state(x.shape[0])
        x = silu(conv.reference(x, self.conv_weight, self.conv_bias, zero.tail)[0])
        beta, k, q = self._select(x)
        s, outputs = zero.memory, []
        for t in range(x.shape[1]):
            delta = beta[:, t, :, None] / (1 + beta[:, t, :, None] * (k[:, t] ** 2).sum(-1)[:, None, None])
            s = (1 - delta * k[:, t, None] ** 2) * s + delta * x[:, t, :, None] * k[:, t, None]
            outputs.append((s * q[:, t, None]).sum(-1) + self.skip * x[:, t])
        return self.out(torch.stack(outputs, dim=1) * silu(z))

    def _select(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rank, k, q = self.select(x).split([self.rank, self.d_state, self.d_state], dim=-1)
        return self.beta(rank).sigmoid(), k, q
