"""RG-LRU: the recurrent block of Griffin and RecurrentGemma, a real diagonal recurrence with gates on input and decay.

Papers: "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models" (2024,
2402.19427); "RecurrentGemma: Moving Past Transformers for Efficient Open Language Models" (2024, 2404.07839).

    u = conv(W_x x + b_x),   r_t, i_t = sigmoid(W_r u_t + b_r), sigmoid(W_i u_t + b_i)  (Griffin, eq. 1, 2)
    log a_t = -c r_t softplus(L),   c = 8:  a = sigmoid(-L)^(c r_t)                  (eq. 3, 6)
    h_t = a_t * h_p + sqrt(1 - a_t^2) * (i_t * u_t)                                  (eq. 4)
    y_t = W_o (h_t * gelu(W_y x_t + b_y))

| code | paper |
|---|---|
| width | of the recurrence ("lru_width"); None: d |
| head_dim | blocks of W_r and W_i, which are block-diagonal |
| decay | L ("a_param"): a^c begins with its square uniform in [0.9^2, 0.999^2] |

As in RecurrentGemma's code, the first token of a document is written without the factor sqrt(1 - a^2): it decays
nothing. The models interleave it with local attention: `"(rg_lru*2, attention(window=2048, kv_heads=1))*8"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops import conv
from runnel.ops.scan import diagonal_scan

PAPERS = {
    "Griffin: Mixing Gated Linear Recurrences with Local Attention for Efficient Language Models": "2402.19427",
    "RecurrentGemma: Moving Past Transformers for Efficient Open Language Models": "2404.07839",
}
SHARPNESS = 8.0
"""c in log a = -c r softplus(L)."""


@dataclass(frozen=True)
class Config:
    width: int | None = None
    head_dim: int | None = None
    conv: int = 4


class State(NamedTuple):
    tail: Tensor  # (B, W-1, width)
    h: Tensor  # (B, width)


class RGLRU(Mixer):
    variants = ({"width": 6, "head_dim": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = config.width or d_model
        block = head_width(self.width, config.head_dim, target=256)
        self.x_and_y = linear(d_model, 2 * self.width, bias=True)
        self.conv_weight = parameter(conv.initial_filters(self.width, config.conv))
        self.conv_bias = parameter(torch.zeros(self.width))
        self.gates = parameter(torch.randn(2, self.width // block, block, block) * block**-0.5)  # of r and i
        self.gate_bias = parameter(torch.zeros(2, self.width))
        squared = torch.rand(self.width) * (0.999**2 - 0.9**2) + 0.9**2
        self.decay = parameter(torch.expm1(-squared.log() / 2).log())  # softplus of it is -log of the root
        self.out = linear(self.width, d_model, bias=True)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.width)
        return State(tail, self.zeros(batch_size, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        u, y = self.x_and_y(x).chunk(2, dim=-1)
        u, tail = conv.causal_conv(u, self.conv_weight, self.conv_bias, state.tail, lineage)
        r, i = self._gates(u)
        log_a = -SHARPNESS * r * softplus(self.decay)
        scale = (-torch.expm1(2 * log_a)).clamp(min=1e-12).sqrt()  # clamped, so that its gradient stays finite
        first = lineage.positions[..., None] == 0
        h, last = diagonal_scan(log_a.exp(), torch.where(first, 1, scale) * i * u, state.h, lineage)
        return self._output(h, y), State(tail, last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        u, y = self.x_and_y(x).chunk(2, dim=-1)
        zero = self.init_state(x.shape[0])
        u = conv.reference(u, self.conv_weight, self.conv_bias, zero.tail)[0]
        root = (-self.decay).sigmoid()
        h, outputs = zero.h, []
        for t in range(x.shape[1]):
            r, i = self._gates(u[:, t])
            a = root ** (SHARPNESS * r)
            h = i * u[:, t] if t == 0 else a * h + (1 - a**2).sqrt() * i * u[:, t]
            outputs.append(self._output(h, y[:, t]))
        return torch.stack(outputs, dim=1)

    def _gates(self, u: Tensor) -> tuple[Tensor, Tensor]:
        blocks = u.unflatten(-1, self.gates.shape[1:3])  # (..., H, K)
        r, i = torch.einsum("...hk,ghkj->g...hj", blocks, self.gates.to(u.dtype)).flatten(-2)
        return (r + self.gate_bias[0]).sigmoid(), (i + self.gate_bias[1]).sigmoid()

    def _output(self, h: Tensor, y: Tensor) -> Tensor:
        return self.out(h.to(y.dtype) * gelu(y, approximate="tanh"))
