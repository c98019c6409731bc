"""Log-linear attention: a gated linear attention with logarithmically many states, each read with its own weight.

Paper: "Log-Linear Attention" (2025, 2506.04761), on a memory with one decay per head, as Mamba-2's.

    y_t = sum_l lambda_t^(l) q_t^T S_t^(l),   S_t^(l) = sum over j in bucket l of t of (a_{j+1} ... a_t) k_j v_j^T  (1)
    bucket l of t: the tokens whose position differs from t's first in bit l - 1; l = 0: the token itself
    lambda_t = softplus(s W_l x_t), one per head and level;   a_t = sigmoid(W_a x_t + b)^(1/16)  (2)
    y = W_o (RMSNorm(y) * silu(W_g x))                                               (3)

| code | paper |
|---|---|
| levels | L: 16 tell apart 32,768 tokens; what is older shares the last level |
| memory (B, L-1, H, K, V) | S^(l), l >= 1, by the bits of the number of tokens seen |
| level_scale | s, the authors' learned multiplier, one at the start |

With all lambda equal it is gated linear attention with one decay per head. Deviates: the decay is GLA's gate, the norm
and the output gate are those of the other linear attentions here (the paper keeps each base model's own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, parameter
from runnel.ops import log_linear

PAPERS = {"Log-Linear Attention": "2506.04761"}
TEMPERATURE = 16.0
"""Root of the forget gate, as in GLA: gates begin near one."""


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    levels: int = 16

    def __post_init__(self) -> None:
        if not 2 <= self.levels <= 48:
            raise ValueError(f"log_linear_attention needs 2 <= levels <= 48; got {self.levels}")


class State(NamedTuple):
    memory: Tensor  # (B, L-1, H, K, K)


class LogLinearAttention(Mixer):
    variants = ({"head_dim": 2, "levels": 4},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.levels = head_width(d_model, config.head_dim), config.levels
        self.heads = d_model // self.width
        self.qkv, self.gate = linear(d_model, 3 * d_model), linear(d_model, d_model)
        self.decay = linear(d_model, self.heads)
        self.decay_bias = parameter(torch.zeros(self.heads))
        self.level = linear(d_model, self.heads * self.levels)
        self.level_scale = parameter(torch.ones(self.heads, self.levels))
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.levels - 1, self.heads, self.width, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        y, memory = log_linear.log_linear_scan(*self._project(x), state.memory, lineage)
        return self._output(y, x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self._output(log_linear.reference(*self._project(x)), x)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """q, k, v (B, T, H, K), log a (B, T, H) and lambda (B, T, H, L)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        log_decay = logsigmoid(self.decay(x) + self.decay_bias) / TEMPERATURE
        scales = softplus(self.level(x).unflatten(-1, (self.heads, self.levels)) * self.level_scale)
        return q * self.width**-0.5, k, v, log_decay, scales

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * silu(self.gate(x)))
