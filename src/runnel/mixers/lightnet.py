"""LightNet: linear attention that forgets additively; every key channel keeps the softmax-weighted mean of the past.

Paper: "You Only Scan Once: Efficient Multi-dimension Sequential Modeling with LightNet" (2024, 2405.21022).

    n_t = n_p + exp(k_t)                             the additive recurrence         (1)
    S_t = (n_p / n_t) S_p + (exp(k_t) / n_t) v_t^T   so that row c of S_t is sum_j exp(k_jc) v_j / sum_j exp(k_jc)  (2)
    y_t = W_o (RMSNorm(S_t^T silu(q_t)) * silu(W_g2 W_g1 x_t))                       (3)

| code | paper |
|---|---|
| memory (B, H, K, V) | S, times n / exp(running maximum) |
| level | n, as its maximum and the sum relative to it, so that it cannot overflow |
| gate_rank | width of W_g1 |

Decays that add instead of multiply need no second scan for the backward direction, which is the paper's point for grids
of several dimensions. Deviates: this is the causal form over one dimension; the paper's positions for grids (MD-TPE,
MD-LRPE) and its global form, which sees every token, have no place in a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear
from runnel.ops.outer import outer_scan
from runnel.ops.stable import Level, weigh

PAPERS = {
    "You Only Scan Once: Efficient Multi-dimension Sequential Modeling with LightNet": "2405.21022",
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    gate_rank: int = 16


class State(NamedTuple):
    level: Level  # both (B, H, K)
    memory: Tensor  # (B, H, K, K)


class LightNet(Mixer):
    variants = ({"head_dim": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.qkv = linear(d_model, 3 * d_model)
        self.gate = nn.Sequential(linear(d_model, config.gate_rank), linear(config.gate_rank, d_model))
        self.norm = RMSNorm(d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, self.heads, self.width) for _ in Level._fields])
        return State(level, self.zeros(batch_size, self.heads, self.width, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        channel, level = weigh(k, torch.zeros_like(k), state.level, lineage)
        y, memory = outer_scan(q / channel.total, channel.write, v, channel.log_keep, state.memory, lineage)
        return self._output(y, x), State(level, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            weights = k[:, : t + 1].softmax(1)[..., None]  # (B, t+1, H, K, 1)
            s = (weights * v[:, : t + 1, :, None, :]).sum(1)
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), x)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)  # each (B, T, H, K)
        return silu(q), k, v

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y.flatten(-2)) * silu(self.gate(x)))
