"""Gated linear attention: a matrix state whose every key channel forgets at its own, input-dependent rate.

Paper: "Gated Linear Attention Transformers with Hardware-Efficient Training" (2023, 2312.06635).

    a_t = sigmoid(W2 W1 x_t + b)^(1/tau),  tau = 16                                  (section 4.4)
    S_t = Diag(a_t) S_p + k_t v_t^T,   o_t = S_t^T q_t                               (eq. 3)
    y_t = W_o (silu(W_r x_t) * RMSNorm(o_t))                                         (section 4.4)

| code | paper |
|---|---|
| expand_k, expand_v | d_k / d = 1/2 and d_v / d = 1 |
| gate_rank | rank of W2 W1, 16 |
| temperature | tau |

Deviates: the norm over a head is RMS, as in the authors' code (the paper writes LayerNorm).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear
from runnel.ops.outer import outer_scan

PAPERS = {"Gated Linear Attention Transformers with Hardware-Efficient Training": "2312.06635"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    expand_k: float = 0.5
    gate_rank: int = 16
    temperature: float = 16.0
    norm_eps: float = 1e-6


class State(NamedTuple):
    memory: Tensor  # (B, H, K, V)


class GatedLinearAttention(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.value_width = head_width(d_model, config.head_dim, target=64)
        self.heads = d_model // self.value_width
        self.key_width = max(1, int(self.value_width * config.expand_k))
        self.temperature = config.temperature
        keys = self.heads * self.key_width
        self.qk = linear(d_model, 2 * keys)
        self.v = linear(d_model, d_model)
        self.gate = nn.Sequential(linear(d_model, config.gate_rank), linear(config.gate_rank, keys, bias=True))
        self.r = linear(d_model, d_model)
        self.norm = RMSNorm(self.value_width, config.norm_eps)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.key_width, self.value_width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, log_decay = self._project(x)
        y, memory = outer_scan(q, k, v, log_decay, state.memory, lineage)
        return self._output(y, x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v, log_decay = self._project(x)
        s, outputs = x.new_zeros(()), []
        for t in range(x.shape[1]):
            s = log_decay[:, t].exp()[..., None] * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), x)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q, k = self.qk(x).unflatten(-1, (2, self.heads, self.key_width)).unbind(-3)  # (B, T, H, K)
        log_decay = logsigmoid(self.gate(x)) / self.temperature
        v = self.v(x).unflatten(-1, (self.heads, self.value_width))
        return q * self.key_width**-0.5, k, v, log_decay.unflatten(-1, (self.heads, self.key_width))

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * silu(self.r(x)))
