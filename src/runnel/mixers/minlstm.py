"""minLSTM: an LSTM whose gates look only at the input and share what is kept and written between them.

Paper: "Were RNNs All We Needed?" (2024, 2410.01201).

    f_t, i_t = sigmoid(W_f x_t + b_f), sigmoid(W_i x_t + b_i)                        (section 3.2)
    f'_t = f_t / (f_t + i_t),   i'_t = i_t / (f_t + i_t)
    h_t = f'_t * h_p + i'_t * W_h x_t

| code | paper |
|---|---|
| expand | state width / d |
| conv | width of the causal convolution before the cell ("Conv4", appendix C); 1: only a scale per channel |
| forget_bias | b_f at the start, above 0 for a long memory |

f' + i' = 1 makes the scale of h independent of time; f' is computed as one sigmoid, of the difference of the gates'
logarithms, so that two gates near zero are no trouble. As in the page minGRU, the scan is taken directly, not in log
space, hence the candidate keeps its sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv
from runnel.ops.scan import diagonal_scan

PAPERS = {"Were RNNs All We Needed?": "2410.01201"}


@dataclass(frozen=True)
class Config:
    expand: float = 1.5
    conv: int = 4
    forget_bias: float = 0.0


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    h: Tensor  # (B, expand * D)


class MinLSTM(Mixer):
    variants = ({"conv": 1, "forget_bias": 2.0},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_model, self.d_state = d_model, max(1, int(config.expand * d_model))
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.gates_and_candidate = linear(d_model, 3 * self.d_state)
        self.bias = parameter(torch.tensor([[config.forget_bias], [0.0]]).repeat(1, self.d_state))
        self.out = linear(self.d_state, d_model)

    def init_state(self, batch_size: int) -> State:
        tail = self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.d_model)
        return State(tail, self.zeros(batch_size, self.d_state))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        f, i, candidate = self._project(x)
        balance = logsigmoid(f) - logsigmoid(i)
        h, last = diagonal_scan(balance.sigmoid(), (-balance).sigmoid() * candidate, state.h, lineage)
        return self.out(h), State(tail, last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        zero = self.init_state(x.shape[0])
        f, i, candidate = self._project(conv.reference(x, self.conv_weight, None, zero.tail)[0])
        h, outputs = zero.h, []
        for t in range(x.shape[1]):
            forget, write = f[:, t].sigmoid(), i[:, t].sigmoid()
            h = forget / (forget + write) * h + write / (forget + write) * candidate[:, t]
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pre-activations of f and i, and the candidate, each (B, T, expand * D)."""
        f, i, candidate = self.gates_and_candidate(x).chunk(3, dim=-1)
        return f + self.bias[0], i + self.bias[1], candidate
