"""Lightning attention: linear attention with one fixed decay per head, in blocks, for any length at constant speed.

Paper: "Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language Models"
(2024, 2401.04658), the attention of TransNormerLLM (2023, 2307.14995).

    q_t, k_t = silu(W_q x_t), silu(W_k x_t);   v_t, u_t = W_v x_t, W_u x_t
    S_t = lambda S_p + k_t v_t^T,   o_t = S_t^T q_t               (blocks: algorithm 1)
    lambda_h = exp(-(8 h / H) (1 - l / L))                        (TransNormerLLM, l the layer of L)
    y_t = W_o (SRMSNorm(o_t) * u_t)                               (TransNormerLLM)

| code | paper |
|---|---|
| depth | l / L, how deep the layer stands in the network: deeper layers forget less |
| norm | SRMSNorm: o / rms(o), without weights |

The blocks of algorithm 1 are the chunks of `ops/outer.py`. Deviates: no rotary positions in the first layer; the
decays tell positions apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.outer import outer_scan

PAPERS = {
    "Lightning Attention-2: A Free Lunch for Handling Unlimited Sequence Lengths in Large Language Models": "2401.04658"
}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    depth: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.depth < 1:
            raise ValueError(f"lightning_attention needs 0 <= depth < 1; got {self.depth}")


class State(NamedTuple):
    memory: Tensor  # (B, H, K, K)


class LightningAttention(Mixer):
    variants = ({"head_dim": 2, "depth": 0.5},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads, self.depth = d_model // self.width, config.depth
        self.qkvu = linear(d_model, 4 * d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width))

    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """log lambda of every head, the same at every token."""
        heads = torch.arange(self.heads, dtype=x.dtype, device=x.device)
        return (-8 * heads / self.heads * (1 - self.depth)).expand(*x.shape[:2], -1)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v, u = self._project(x)
        y, memory = outer_scan(q, k, v, self.log_decay(x), state.memory, lineage)
        return self._output(y, u), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v, u = self._project(x)
        decay = self.log_decay(x)[0, 0].exp()[:, None, None]
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = decay * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), u)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v, each (B, T, H, K), and the gate u (B, T, D)."""
        q, k, v, u = self.qkvu(x).chunk(4, dim=-1)
        q, k, v = [part.unflatten(-1, (self.heads, self.width)) for part in (silu(q), silu(k), v)]
        return q, k, v, u

    def _output(self, y: Tensor, u: Tensor) -> Tensor:
        flat = y.flatten(-2)
        return self.out(rms_norm(flat, flat.shape[-1:], eps=1e-6) * u)
