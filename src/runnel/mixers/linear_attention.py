"""Linear attention: softmax replaced by a positive feature map, so that the past is one matrix and one normaliser.

Paper: "Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention" (2020, 2006.16236).

    S_t = S_p + phi(k_t) v_t^T,   z_t = z_p + phi(k_t),   phi(x) = elu(x) + 1        (eq. 18, 19, 7)
    y_t = S_t^T phi(q_t) / (z_t . phi(q_t))                                          (eq. 20)

| code | paper |
|---|---|
| memory (B, H, K, V+1) | s and z: the normaliser is one more value column, of ones |
| conv | width of the causal convolution of the input; 1: only a scale per channel |

Deviates: a sum over the past has no order of its own. The paper adds learned absolute positions to the input, which end
somewhere; here a short causal convolution tells neighbours apart at any length, as in the linear recurrences since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import elu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops import conv
from runnel.ops.outer import mean_scan

PAPERS = {"Transformers are RNNs: Fast Autoregressive Transformers with Linear Attention": "2006.16236"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    memory: Tensor  # (B, H, K, V+1)


class LinearAttention(Mixer):
    variants = ({"conv": 1},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim, target=32)
        self.heads = d_model // self.width
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.qkv = linear(d_model, 3 * d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        d_model, width = self.conv_weight.shape
        memory = self.zeros(batch_size, self.heads, self.width, self.width + 1)
        return State(self.zeros(batch_size, width - 1, d_model), memory)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        q, k, v = self._project(x)
        y, memory = mean_scan(q, k, v, state.memory, lineage)
        return self.out(y.flatten(-2)), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x, _ = conv.reference(x, self.conv_weight, None, self.init_state(x.shape[0]).tail)
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
