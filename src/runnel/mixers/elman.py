"""Elman's network: the simple recurrent network, a tanh layer that reads its own last output.

Paper: "Finding Structure in Time" (Elman, 1990, Cognitive Science 14; not on arXiv).

    h_t = tanh(W x_t + b + R h_p),   y_t = W_o h_t

| code | paper |
|---|---|
| input | W and b, from input to hidden units |
| recurrent | R, from context to hidden units |
| width | hidden units; None: d |

The cell is `torch.nn.RNNCell`, with its two biases added up. It is truly nonlinear: no one scan fits, so that
its form is the loop (or rounds of scans, `ops.newton`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.mixer import Cell, CellConfig


@dataclass(frozen=True)
class Config(CellConfig):
    """See `CellConfig`."""


class State(NamedTuple):
    h: Tensor  # (B, width)


class Elman(Cell):
    gates = 1

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.width))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        h, outputs = self.init_state(x.shape[0]).h, []
        for t in range(x.shape[1]):
            h = (self.input(x[:, t]) + h @ self.recurrent.T).tanh()
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)

    def step(self, inputs: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        h = (inputs[0] + self.recalled(state.h)).tanh()
        return h, State(h)
