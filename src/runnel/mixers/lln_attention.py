"""Linear log-normal attention: exponential features whose scales make linear attention as concentrated as softmax.

Paper: "Linear Log-Normal Attention with Unbiased Concentration" (2023, 2311.13541).

    Phi_Q(q) = exp(alpha q),   Phi_K(k) = exp(beta k), entry by entry                (1)
    y_t = W_o sum_j (Phi_Q(q_t) . Phi_K(k_j)) v_j / sum_j Phi_Q(q_t) . Phi_K(k_j)    (2)
    alpha sigma_q = beta sigma_k such that the log of both kinds of weights has one variance,
    sigma_q^2 sigma_k^2 for softmax: moment matching                                 (3)

| code | paper |
|---|---|
| variance | sigma_q^2 sigma_k^2, what softmax would have at the start |
| level, memory (B, H, K, V+1) | sums relative to the maximum of their channel; the last column: the normaliser |
| window | the block-diagonal softmax branch of LLN+Diag, averaged with this one; None: without it |

`ops/concentration.py` has the paper's meters, entropy and spectral gap. Deviates: alpha and beta are matched at the
start for queries and keys of unit RMS (which they are normalised to), then learned per head; the paper measures sigma
over the batch, future tokens included. The softmax branch slides, where the paper's blocks stand still.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, parameter
from runnel.ops import attend
from runnel.ops.concentration import matched_scale
from runnel.ops.outer import mean_scan
from runnel.ops.stable import Level, weigh
from runnel.state import Memory

PAPERS = {"Linear Log-Normal Attention with Unbiased Concentration": "2311.13541"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    variance: float = 1.0
    window: int | None = None

    def __post_init__(self) -> None:
        if self.variance <= 0 or (self.window is not None and self.window < 1):
            raise ValueError(f"lln_attention needs variance > 0 and window >= 1; got {self.variance}, {self.window}")


class State(NamedTuple):
    level: Level  # both (B, H, K)
    memory: Tensor  # (B, H, K, V+1)
    near: Memory  # the keys and values of the softmax branch, or () without one


class LLNAttention(Mixer):
    variants = ({"head_dim": 4}, {"window": 3})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.window = head_width(d_model, config.head_dim), config.window
        self.heads = d_model // self.width
        self.qkv = linear(d_model, 3 * d_model)
        self.q_norm, self.k_norm = RMSNorm(self.width), RMSNorm(self.width)
        scale = matched_scale(self.width, config.variance)
        self.alpha, self.beta = [parameter(torch.full((self.heads, 1), scale)) for _ in range(2)]
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, self.heads, self.width) for _ in Level._fields])
        near: Memory = ()
        if self.window is not None:
            near = attend.KeyValues.empty(batch_size, self.heads, self.width, self.out.weight)
        return State(level, self.zeros(batch_size, self.heads, self.width, self.width + 1), near)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        channel, level = weigh(self.beta * k, torch.zeros_like(k), state.level, lineage)
        log_q = self.alpha * q + channel.maximum  # weights are relative to the maxima of their channels
        features = (log_q - log_q.detach().amax(-1, keepdim=True)).exp()
        y, memory = mean_scan(features, channel.write, v, state.memory, lineage, channel.log_keep)
        y, near = y.to(x.dtype), state.near
        if self.window is not None:
            nearby, near = attend.attend(q, k, v, state.near, lineage, window=self.window)
            y = (y + nearby) / 2
        return self.out(y.flatten(-2)), State(level, memory, near)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        log_weights = (self.alpha * q)[:, :, None] + (self.beta * k)[:, None]  # (B, t, j, H, K)
        outputs = []
        for t in range(x.shape[1]):
            weights = log_weights[:, t, : t + 1].exp().sum(-1, keepdim=True)  # (B, t+1, H, 1)
            outputs.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
        y = torch.stack(outputs, dim=1)
        if self.window is not None:
            y = (y + attend.reference(q, k, v, self.window)) / 2
        return self.out(y.flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)  # each (B, T, H, K)
        return self.q_norm(q), self.k_norm(k), v
