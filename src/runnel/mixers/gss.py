"""GSS: a gated unit whose long memory is a state space over a quarter of the channels, cheap enough for language.

Paper: "Long Range Language Modeling via Gated State Spaces" (2022, 2206.13947).

    v = gelu(W_v x),   u = LayerNorm(gelu(W_u x))  u four times narrower than x      (1)
    y_t = Re(sum over n of C_n (exp(L_n) - 1) / L_n h_tn) + D u_t,   h_tn = exp(L_n) h_pn + u_t  (2)
    y' = W_o (W_y y * v)                                                             (3)

| code | paper |
|---|---|
| narrow | H = E / 4, channels of the state space |
| expand | F / E = 4, width of the gated branch |
| d_state | N, shared poles; 512 in the paper |
| log_decay, log_frequency (N) | Lambda_re, Lambda_im: L = -exp(Lambda_re) + i exp(Lambda_im) |
| c (H, N, 2) | C, as pairs (real, imaginary) |

The paper's finding is that Gaussian Lambda need no HiPPO here, and no step size either. The kernel is the simplified
DSS of the paper's pseudocode. The hybrid with local attention is a pattern: `"(gss*3, attention(window=512))*4"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.lti import lti_scan, zero_order_hold
from runnel.ops.scan import from_pairs

PAPERS = {"Long Range Language Modeling via Gated State Spaces": "2206.13947"}


@dataclass(frozen=True)
class Config:
    narrow: int | None = None
    expand: int = 4
    d_state: int = 64

    def __post_init__(self) -> None:
        if (self.narrow is not None and self.narrow < 2) or min(self.expand, self.d_state) < 1:
            raise ValueError(f"gss needs narrow >= 2, expand and d_state >= 1; got {self}")


class State(NamedTuple):
    memory: Tensor  # (B, H, N, 2)


class GSS(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        narrow, wide = config.narrow or max(2, d_model // 4), config.expand * d_model
        self.u, self.v = linear(d_model, narrow), linear(d_model, wide)
        self.norm = nn.LayerNorm(narrow)
        self.log_decay = parameter(torch.randn(config.d_state), lr_scale=0.5)
        self.log_frequency = parameter(torch.randn(config.d_state), lr_scale=0.5)
        self.c = parameter(torch.randn(narrow, config.d_state, 2) * (2 * config.d_state) ** -0.5)
        self.skip = parameter(torch.randn(narrow))
        self.widen = linear(narrow, wide)
        self.out = linear(wide, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, *self.c.shape))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        u = self.norm(gelu(self.u(x)))
        log_a, c = self.system()
        y, memory = lti_scan(u, log_a.expand_as(c), c, state.memory, lineage)
        return self._output(y + self.skip * u, x), State(memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        u = self.norm(gelu(self.u(x)))
        log_a, c = self.system()
        h, outputs = torch.zeros_like(c), []
        for t in range(x.shape[1]):
            h = log_a.exp() * h + u[:, t, :, None]
            outputs.append((c * h).real.sum(-1) + self.skip * u[:, t])
        return self._output(torch.stack(outputs, dim=1), x)

    def system(self) -> tuple[Tensor, Tensor]:
        """L (N,) and C (exp(L) - 1) / L (H, N), complex."""
        poles = torch.complex(-self.log_decay.exp(), self.log_frequency.exp())
        log_a, gain = zero_order_hold(poles, torch.ones_like(self.log_decay))
        return log_a, from_pairs(self.c) * gain

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        return self.out(self.widen(y) * gelu(self.v(x)))
