"""RetNet: linear attention whose heads forget at fixed rates, from some thirty tokens to thousands.

Paper: "Retentive Network: A Successor to Transformer for Large Language Models" (2023, 2307.08621).

    q_t, k_t = W_q x_t, W_k x_t, rotated by the position t;   v_t = W_v x_t          (eq. 5, Theta)
    S_t = gamma S_p + k_t v_t^T,   o_t = S_t^T q_t                                   (eq. 6)
    gamma_h = 1 - 2^(-5-h),  h = 0, 1, ... the head                                  (eq. 8)
    y_t = W_o (silu(W_g x_t) * GroupNorm_h(o_t))                                     (eq. 8)

| code | paper |
|---|---|
| expand_v | d_v / d = 2 (table of section 3.1) |
| rope | xPos without its own decay: Theta and its conjugate |

Deviates: the norm over a head is RMS, as in the authors' code (the paper writes GroupNorm). It also absorbs the paper's
normalisation of retention scores (section 2.4), which only rescales o_t.
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
from runnel.ops.outer import outer_scan
from runnel.ops.rope import rope

PAPERS = {"Retentive Network: A Successor to Transformer for Large Language Models": "2307.08621"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    expand_v: int = 2

    def __post_init__(self) -> None:
        if self.expand_v < 1:
            raise ValueError(f"retnet needs expand_v >= 1; got {self.expand_v}")


class State(NamedTuple):
    memory: Tensor  # (B, H, K, V)


class RetNet(Mixer):
    variants = ({"head_dim": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.key_width = head_width(d_model, config.head_dim)
        if self.key_width % 2:
            raise ValueError(f"retnet needs an even head_dim, to rotate pairs; got {self.key_width}")
        self.heads, self.value_width = d_model // self.key_width, config.expand_v * self.key_width
        values = self.heads * self.value_width
        self.qk, self.v, self.gate = linear(d_model, 2 * d_model), linear(d_model, values), linear(d_model, values)
        self.norm = RMSNorm(self.value_width)
        self.out = linear(values, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.key_width, self.value_width))

    def log_decay(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """log gamma of every head, the same at every token."""
        heads = torch.arange(self.heads, dtype=torch.float64, device=x.device)
        return torch.log1p(-(2.0 ** (-5 - heads))).to(x.dtype).expand(*x.shape[:2], -1)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x, lineage.positions)
        y, memory = outer_scan(q, k, v, self.log_decay(x), state.memory, lineage)
        return self._output(y, x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x, torch.arange(x.shape[1])[None])
        gamma = self.log_decay(x)[0, 0].exp()[:, None, None]
        s, outputs = self.init_state(x.shape[0]).memory, []
        for t in range(x.shape[1]):
            s = gamma * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), x)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k = self.qk(x).unflatten(-1, (2, self.heads, self.key_width)).unbind(-3)  # (B, T, H, K)
        v = self.v(x).unflatten(-1, (self.heads, self.value_width))
        return rope(q * self.key_width**-0.5, positions), rope(k, positions), v

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y).flatten(-2) * silu(self.gate(x)))
