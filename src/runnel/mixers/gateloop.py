"""GateLoop: linear attention whose memory decays and turns by complex numbers that every token chooses.

Paper: "GateLoop: Fully Data-Controlled Linear Recurrence for Sequence Modeling" (2023, 2311.01927).

    a_t = sigmoid(alpha_t) exp(i beta_t),   alpha, beta = W_alpha x, W_beta x        (1)
    S_t = Diag(a_t) S_p + k_t v_t^T,   y_t = Re(S_t^T q_t)                           (2)
    y'_t = W_o (RMSNorm(y_t) * silu(W_g x_t))                                        (3)

| code | paper |
|---|---|
| head_dim | d_h; 1, the paper's choice ("max heads"), makes the state a vector |
| memory (B, H, K, K, 2) | S, as pairs (real, imaginary) |
| decay_bias | alpha's bias at the start, spread so that channels remember from 2 to 1,000 tokens |

Written out (the paper's surrogate attention), token t reads j with weight q_t . k_j times the product of a over (j, t]:
the phases are a relative position that depends on what was read in between. With a head width above 1, S is written
out over time.
Deviates: real q, k and v; the bias, where the paper spreads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, parameter
from runnel.ops.precision import widen
from runnel.ops.scan import complex_scan, polar

PAPERS = {"GateLoop: Fully Data-Controlled Linear Recurrence for Sequence Modeling": "2311.01927"}


@dataclass(frozen=True)
class Config:
    head_dim: int = 1


class State(NamedTuple):
    memory: Tensor  # (B, H, K, K, 2)


class GateLoop(Mixer):
    variants = ({"head_dim": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.qkv, self.transition = linear(d_model, 3 * d_model), linear(d_model, 2 * d_model)
        self.decay_bias = parameter(torch.logit(1 - 1 / torch.logspace(0.3, 3, d_model)).view(self.heads, self.width))
        self.gate = linear(d_model, d_model)
        self.norm = RMSNorm(d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.width, self.width, 2))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        a = self.transitions(x)[..., None]  # (B, T, H, K, 1)
        write = widen(k[..., :, None] * v[..., None, :]).to(a.dtype)
        s, memory = complex_scan(a.expand_as(write), write, state.memory, lineage)
        return self._output((q[..., None] * s.real).sum(-2), x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        a, s, outputs = self.transitions(x), torch.zeros((), dtype=torch.cdouble), []
        for t in range(x.shape[1]):
            s = a[:, t, :, :, None] * s + torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
            outputs.append(torch.einsum("bhk,bhkv->bhv", q[:, t].to(s.dtype), s).real)
        return self._output(torch.stack(outputs, dim=1), x)

    def transitions(self, x: Tensor) -> Tensor:
        """a, (B, T, H, K) complex, inside the unit circle."""
        alpha, beta = widen(self.transition(x)).unflatten(-1, (2, self.heads, self.width)).unbind(-3)
        return polar((alpha + self.decay_bias).sigmoid(), beta)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, self.width)).unbind(-3)  # each (B, T, H, K)
        return q, k, v

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.norm(y.flatten(-2)) * silu(self.gate(x)))
