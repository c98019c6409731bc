"""Linear attention with a local branch: a causal convolution of the values, which a tree must read along its paths.

Paper: "When Linear Attention Meets Autoregressive Decoding: Towards More Effective and Efficient Linearized Large
Language Models" (2024, 2406.07368).

    a_t = sum_j (phi(q_t) . phi(k_j)) v_j / sum_j phi(q_t) . phi(k_j),   phi(x) = elu(x) + 1  (1)
    l_t = sum_{w < W} c_w v_{t-w}:  a depthwise convolution, masked to the past      (2)
    y_t = W_o (a_t + l_t)                                                            (3)

| code | paper |
|---|---|
| conv | W = 32, the causal half of a kernel of 63; one kernel per head |
| conv_weight (H, W) | c, zero at the start |

A convolution over a flattened draft tree would mix siblings (the paper's point); here it reads ancestors
(`ops/conv.py`), so that verifying is exact. The paper augments seven kinds of linear attention; this is the plain one.
Its grouped form of the linear part is the chunked form of `ops/outer.py`.
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

PAPERS = {
    "When Linear Attention Meets Autoregressive Decoding: Towards More Effective and Efficient Linearized Large "
    "Language Models": "2406.07368"
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 32

    def __post_init__(self) -> None:
        if self.conv < 1:
            raise ValueError(f"linear_attention_conv needs conv >= 1; got {self.conv}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D), the last values
    memory: Tensor  # (B, H, K, V+1): the last column is the normaliser


class LinearAttentionConv(Mixer):
    variants = ({"head_dim": 2, "conv": 4},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.qkv = linear(d_model, 3 * d_model)
        self.conv_weight = parameter(torch.zeros(self.heads, config.conv))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.heads * self.width)
        return State(tail, self.zeros(batch_size, self.heads, self.width, self.width + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        y, memory = mean_scan(q, k, v, state.memory, lineage)
        near, tail = conv.causal_conv(v.flatten(-2), self._filters(), None, state.tail, lineage)
        return self.out(y.flatten(-2) + near), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        near, _ = conv.reference(v.flatten(-2), self._filters(), None, self.init_state(x.shape[0]).tail)
        outputs = []
        for t in range(x.shape[1]):
            weights = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True)  # (B, t+1, H, 1)
            outputs.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
        return self.out(torch.stack(outputs, dim=1).flatten(-2) + near)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)  # each (B, T, H, K)
        return elu(q) + 1, elu(k) + 1, v

    def _filters(self) -> Tensor:
        """(D, W): every head's kernel for each of its channels."""
        return self.conv_weight.repeat_interleave(self.width, dim=0)
