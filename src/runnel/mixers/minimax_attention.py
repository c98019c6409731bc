"""MiniMax's lightning attention: linear attention with a fixed decay per head, as in its checkpoints.

Paper: "MiniMax-01: Scaling Foundation Models with Lightning Attention" (2025, 2501.08313), section 2.2.

    q_t, k_t, v_t = silu(W x_t)
    S_t = lambda S_p + k_t v_t^T,   o_t = S_t^T q_t
    lambda_h = exp(-2^(-8 h / H) f(l)),   h = 1..H;   y_t = W_o (RMSNorm(o_t) * sigmoid(W_g x_t))

| code | paper |
|---|---|
| rate | f(l) = 1 - l / (L - 1) + 1e-5, l the layer of L: deeper layers forget less |
| heads, head_dim | H and the width of a head; H head_dim need not be d |

It differs from `lightning_attention` (the attention of TransNormerLLM) in the slopes, which are ALiBi's, and in what
stands around the recurrence: values through silu, one norm with weights, a sigmoid for the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear
from runnel.mixers import slopes
from runnel.ops.outer import outer_scan
from runnel.state import Memory

PAPERS = {"MiniMax-01: Scaling Foundation Models with Lightning Attention": "2501.08313"}


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    rate: float = 1.0
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"minimax_attention needs rate > 0; got {self.rate}")


class State(NamedTuple):
    memory: Tensor  # (B, H, K, K)


class MiniMaxAttention(Mixer):
    variants = ({"heads": 3, "head_dim": 2, "rate": 0.3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim) if config.heads is None else config.head_dim or 64
        self.heads, self.rate = config.heads or d_model // self.width, config.rate
        self.qkv = linear(d_model, 3 * self.heads * self.width)
        self.gate = linear(d_model, self.heads * self.width)
        self.norm = RMSNorm(self.heads * self.width, config.norm_eps)
        self.out = linear(self.heads * self.width, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width))

    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """log lambda of every head, the same at every token."""
        return (-self.rate * slopes(self.heads, x)).expand(*x.shape[:2], -1)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        q, k, v = self._project(x)
        y, memory = outer_scan(q, k, v, self.log_decay(x), state.memory, lineage)
        return self._output(y, x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        decay = self.log_decay(x)[0, 0].exp()[:, None, None]
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = decay * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), x)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, each (B, T, H, K)."""
        q, k, v = silu(self.qkv(x)).unflatten(-1, (3, self.heads, self.width)).unbind(-3)
        return q, k, v

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y.flatten(-2)) * self.gate(x).sigmoid())
