"""Elman's network: the simple recurrent network, a tanh layer that reads its own last output.

Paper: "Finding Structure in Time" (Elman, 1990, Cognitive Science 14; not on arXiv).

    h_t = tanh(W x_t + b + R h_p),   y_t = W_o h_t

| code | paper |
|---|---|
| input | W and b, from input to hidden units |
| recurrent | R, from context to hidden units; orthogonal at the start |
| width | hidden units; None: d |

The cell is `torch.nn.RNNCell`, with its two biases added up. It is truly nonlinear: no scan fits, the loop is the form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear as apply

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, recurrent_matrices
from runnel.ops.unroll import unroll
from runnel.state import Memory


@dataclass(frozen=True)
class Config:
    width: int | None = None

    def __post_init__(self) -> None:
        if self.width is not None and self.width < 1:
            raise ValueError(f"elman needs width >= 1; got {self.width}")


class State(NamedTuple):
    h: Tensor  # (B, width)


class Elman(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = config.width or d_model
        self.input = linear(d_model, self.width, bias=True)
        self.recurrent = recurrent_matrices(1, self.width)
        self.out = linear(self.width, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        h, last = unroll(self._step, (self.input(x),), state, lineage)
        return self.out(h.to(x.dtype)), last

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        h, outputs = self.init_state(x.shape[0]).h, []
        for t in range(x.shape[1]):
            h = (self.input(x[:, t]) + h @ self.recurrent.T).tanh()
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)

    def _step(self, inputs: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        h = (inputs[0] + apply(state.h, self.recurrent.to(state.h.dtype))).tanh()
        return h, State(h)
