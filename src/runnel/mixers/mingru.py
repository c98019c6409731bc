"""minGRU: a GRU whose gate and candidate look only at the input, so that training is a scan.

Paper: "Were RNNs All We Needed?" (2024, 2410.01201).

    z_t = sigmoid(W_z x_t)                                                          (section 3.1)
    h_t = (1 - z_t) * h_p + z_t * W_h x_t

| code | paper |
|---|---|
| expand | state width / d |
| conv | width of the causal convolution before the cell ("Conv4", appendix C); 1: only a scale per channel |

Deviates: the scan is taken directly, not in log space (ours never divides, so it needs no positive candidates), hence
the candidate keeps its sign, as in the paper's algorithm 4 before the log-space rewrite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops import conv
from runnel.ops.scan import diagonal_scan

PAPERS = {"Were RNNs All We Needed?": "2410.01201"}


@dataclass(frozen=True)
class Config:
    expand: float = 1.5
    conv: int = 4


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    h: Tensor  # (B, expand * D)


class MinGRU(Mixer):
    variants = ({"conv": 1},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_model, self.d_state = d_model, max(1, int(config.expand * d_model))
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.gate_and_candidate = linear(d_model, 2 * self.d_state)
        self.out = linear(self.d_state, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(
            self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.d_model), self.zeros(batch_size, self.d_state)
        )

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        x, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        gate, candidate = self.gate_and_candidate(x).chunk(2, dim=-1)
        z = gate.sigmoid()
        h, last = diagonal_scan(1 - z, z * candidate, state.h, lineage)
        return self.out(h), State(tail, last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x, _ = conv.reference(
            x, self.conv_weight, None, x.new_zeros(x.shape[0], self.conv_weight.shape[1] - 1, self.d_model)
        )
        h, outputs = x.new_zeros(()), []
        for t in range(x.shape[1]):
            gate, candidate = self.gate_and_candidate(x[:, t]).chunk(2, dim=-1)
            h = (1 - gate.sigmoid()) * h + gate.sigmoid() * candidate
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)
