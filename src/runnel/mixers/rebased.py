"""ReBased: linear attention with a learnable quadratic kernel, which can give a token no weight at all.

Paper: "Linear Transformers with Learnable Kernel Functions are Better In-Context Models" (2024, 2402.10644).

    q', k' = gamma * LayerNorm(q) + beta, each with its own gamma and beta           (1)
    phi(x) . phi(y) = (x . y)^2                                                      (2)
    y_t = W_o sum_j (q'_t . k'_j)^2 v_j / (sum_j (q'_t . k'_j)^2 + eps)              (3)

| code | paper |
|---|---|
| feature_dim | d = 16, the width to which queries and keys are projected |
| floor | eps: weight of the zero vector, so that a query that nothing answers reads nothing |

The Taylor kernel of Based (1 + s + s^2/2 >= 1/2) cannot forget a token; a square can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.features import pairs
from runnel.ops.outer import outer_scan

PAPERS = {"Linear Transformers with Learnable Kernel Functions are Better In-Context Models": "2402.10644"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    feature_dim: int = 16
    floor: float = 1e-2

    def __post_init__(self) -> None:
        if self.feature_dim < 2 or self.floor <= 0:
            raise ValueError(f"rebased needs feature_dim >= 2 and floor > 0; got {self.feature_dim}, {self.floor}")


class State(NamedTuple):
    memory: Tensor  # (B, H, d(d+1)/2, V+1): the last column is the normaliser


class ReBased(Mixer):
    variants = ({"head_dim": 4, "feature_dim": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.value_width, self.feature_dim = head_width(d_model, config.head_dim), config.feature_dim
        self.heads, self.floor = d_model // self.value_width, config.floor
        self.qk = linear(d_model, 2 * self.heads * self.feature_dim)
        self.q_norm, self.k_norm = nn.LayerNorm(self.feature_dim), nn.LayerNorm(self.feature_dim)
        self.v = linear(d_model, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        width = self.feature_dim * (self.feature_dim + 1) // 2
        return State(self.zeros(batch_size, self.heads, width, self.value_width + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        ones = pad(v, (0, 1), value=1.0)
        y, memory = outer_scan(pairs(q), pairs(k), ones, None, state.memory, lineage)
        return self.out((y[..., :-1] / (y[..., -1:] + self.floor)).flatten(-2)), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            weights = (q[:, t, None] * k[:, : t + 1]).sum(-1, keepdim=True) ** 2  # (B, t+1, H, 1)
            outputs.append((weights * v[:, : t + 1]).sum(1) / (weights.sum(1) + self.floor))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q' and k' (B, T, H, d), their inner products of the order of one, and v (B, T, H, V)."""
        q, k = self.qk(x).unflatten(-1, (2, self.heads, self.feature_dim)).unbind(-3)
        v = self.v(x).unflatten(-1, (self.heads, self.value_width))
        return self.q_norm(q) * self.feature_dim**-0.5, self.k_norm(k), v
