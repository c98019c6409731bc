"""GRU: a recurrent cell of two gates, one for how much to renew, one for how much of the past the candidate sees.

Paper: "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation" (2014,
1406.1078).

    r_t, z_t = sigmoid(W_r x_t + b_r + R_r h_p), sigmoid(W_z x_t + b_z + R_z h_p)    (eq. 5, 6)
    n_t = tanh(W_n x_t + b_n + r_t * (R_n h_p + c_n))                                (eq. 8)
    h_t = (1 - z_t) * n_t + z_t * h_p,   y_t = W_o h_t                               (eq. 7)

| code | paper |
|---|---|
| input, recurrent | W and U, rows of r, z, n in turn |
| candidate_bias | c_n |
| width | hidden units; None: d |

evaluation="newton" is that of "Parallelizing non-linear sequential models over the sequence length" (2023, 2309.12252).
The cell is `torch.nn.GRUCell`, which gates R_n h after the product where the paper gates h before it (the form that
fast kernels share), with biases of its own; those of r and z are added up here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.mixer import Cell, CellConfig, parameter

PAPERS = {
    "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation": "1406.1078",
    "Parallelizing non-linear sequential models over the sequence length": "2309.12252",
}


@dataclass(frozen=True)
class Config(CellConfig):
    """See `CellConfig`."""


class State(NamedTuple):
    h: Tensor  # (B, width)


class GRU(Cell):
    gates = 3

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__(d_model, config)
        self.candidate_bias = parameter(torch.zeros(self.width))

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.width))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        r_matrix, z_matrix, n_matrix = self.recurrent.chunk(3)
        h, outputs = self.init_state(x.shape[0]).h, []
        for t in range(x.shape[1]):
            r, z, n = self.input(x[:, t]).chunk(3, dim=-1)
            r, z = (r + h @ r_matrix.T).sigmoid(), (z + h @ z_matrix.T).sigmoid()
            n = (n + r * (h @ n_matrix.T + self.candidate_bias)).tanh()
            h = (1 - z) * n + z * h
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)

    def step(self, inputs: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        r, z, n = inputs[0].chunk(3, dim=-1)
        past_r, past_z, past_n = self.recalled(state.h).chunk(3, dim=-1)
        n = (n + (r + past_r).sigmoid() * (past_n + self.candidate_bias)).tanh()
        h = torch.lerp(n, state.h, (z + past_z).sigmoid())
        return h, State(h)
