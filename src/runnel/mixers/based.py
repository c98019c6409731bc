"""Based: linear attention whose feature map is the second-order Taylor series of softmax's exponential.

Paper: "Simple linear attention language models balance the recall-throughput tradeoff" (2024, 2402.18668).

    phi(x) = (1, x / d'^(1/4), (x_a x_b)_ab / sqrt(2 d')),   so that
    phi(q) . phi(k) = 1 + s + s^2 / 2,  s = q . k / sqrt(d')                         (1)
    y_t = W_o sum_j (phi(q_t) . phi(k_j)) v_j / sum_j phi(q_t) . phi(k_j)            (2)

| code | paper |
|---|---|
| feature_dim | d' = 16, the width to which queries and keys are projected before phi |
| head_dim | width of the values of a head |

The products x_a x_b and x_b x_a share one channel with the weight of both: 1 + d' + d'(d'+1)/2 channels instead of
1 + d' + d'^2. The paper's architecture alternates this layer with sliding-window attention and short gated
convolutions, which also bring the order of tokens: write `"(based, attention(window=64))"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.features import taylor
from runnel.ops.outer import mean_scan

PAPERS = {"Simple linear attention language models balance the recall-throughput tradeoff": "2402.18668"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    feature_dim: int = 16

    def __post_init__(self) -> None:
        if self.feature_dim < 1:
            raise ValueError(f"based needs feature_dim >= 1; got {self.feature_dim}")


class State(NamedTuple):
    memory: Tensor  # (B, H, 1 + d' + d'(d'+1)/2, V+1): the last column is the normaliser


class Based(Mixer):
    variants = ({"head_dim": 4, "feature_dim": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.value_width, self.feature_dim = head_width(d_model, config.head_dim), config.feature_dim
        self.heads = d_model // self.value_width
        self.qk = linear(d_model, 2 * self.heads * self.feature_dim)
        self.v = linear(d_model, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        width = 1 + self.feature_dim + self.feature_dim * (self.feature_dim + 1) // 2
        return State(self.zeros(batch_size, self.heads, width, self.value_width + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        y, memory = mean_scan(taylor(q), taylor(k), v, state.memory, lineage)
        return self.out(y.flatten(-2)), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            s = (q[:, t, None] * k[:, : t + 1]).sum(-1) * self.feature_dim**-0.5  # (B, t+1, H)
            weights = 1 + s + s**2 / 2
            outputs.append((weights[..., None] * v[:, : t + 1]).sum(1) / weights.sum(1)[..., None])
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = self.qk(x).unflatten(-1, (2, self.heads, self.feature_dim)).unbind(-3)
        return q, k, self.v(x).unflatten(-1, (self.heads, self.value_width))
