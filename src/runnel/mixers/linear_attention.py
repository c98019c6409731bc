"""Linear attention: softmax replaced by a positive feature map, so that the past is one matrix and one normaliser.

Paper: "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention" (2020, 2006.16236).

    S_t = S_p + phi(k_t) v_t^T,   z_t = z_p + phi(k_t),   phi(x) = elu(x) + 1        (eq. 18, 19, 7)
    y_t = S_t^T phi(q_t) / (z_t . phi(q_t))                                          (eq. 20)

| code | paper |
|---|---|
| memory (B, H, K, V+1) | s and z: the normaliser is one more value column, of ones |

Deviates: no positions are added to the input (the paper's models learn absolute ones); put it beside attention or a
convolution where order matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import elu, pad

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.outer import outer_scan

PAPERS = {"Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention": "2006.16236"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None


class State(NamedTuple):
    memory: Tensor  # (B, H, K, V+1)


class LinearAttention(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim, target=32)
        self.heads = d_model // self.width
        self.qkv = linear(d_model, 3 * d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width + 1))

    def forward(self, x: Tensor, state: State, lineage: Lineage) -> tuple[Tensor, State]:
        q, k, v = self._project(x)
        y, memory = outer_scan(q, k, pad(v, (0, 1), value=1.0), x.new_zeros(*x.shape[:2], 1), state.memory, lineage)
        normaliser = y[..., -1:].clamp(min=torch.finfo(y.dtype).tiny)  # zero only at padding that nothing precedes
        return self.out((y[..., :-1] / normaliser).flatten(-2)), State(memory)

    def reference(self, x: Tensor) -> Tensor:
        q, k, v = self._project(x)
        s, z, outputs = x.new_zeros(()), x.new_zeros(()), []
        for t in range(x.shape[1]):
            s = s + k[:, t, :, :, None] * v[:, t, :, None, :]
            z = z + k[:, t]
            outputs.append((q[:, t, :, :, None] * s).sum(-2) / (q[:, t] * z).sum(-1, keepdim=True))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)  # each (B, T, H, K)
        return elu(q) + 1, elu(k) + 1, v
