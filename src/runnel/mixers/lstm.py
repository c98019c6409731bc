"""LSTM: the gated cell whose memory is added to rather than overwritten, so that errors travel far back through it.

Papers: "Long Short-Term Memory" (Hochreiter and Schmidhuber, 1997, Neural Computation 9; not on arXiv), with the forget
gate of Gers et al. (2000); in the form of "LSTM: A Search Space Odyssey" (2015, 1503.04069), without its peepholes.

    i_t, f_t, o_t = sigmoid(W x_t + b + R h_p)     input, forget and output gate     (Odyssey, section II)
    g_t = tanh(W_g x_t + b_g + R_g h_p)
    c_t = f_t * c_p + i_t * g_t,   h_t = o_t * tanh(c_t),   y_t = W_o h_t

| code | paper |
|---|---|
| g | z, the block input |
| input, recurrent | W with b, and R; rows of i, f, g, o in turn |
| forget_bias | b_f at the start: 1, so that the cell begins by remembering |
| width | hidden units; None: d |

The cell is `torch.nn.LSTMCell`, with its two biases added up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.mixer import Cell, CellConfig

PAPERS = {
    "LSTM: A Search Space Odyssey": "1503.04069",
    "Parallelizing non-linear sequential models over the sequence length": "2309.12252",
}


@dataclass(frozen=True)
class Config(CellConfig):
    forget_bias: float = 1.0


class State(NamedTuple):
    h: Tensor  # (B, width)
    c: Tensor  # (B, width)


class LSTM(Cell):
    gates = 4

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__(d_model, config)
        with torch.no_grad():
            self.input.bias[self.width : 2 * self.width] = config.forget_bias

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.width), self.zeros(batch_size, self.width))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        (h, c), outputs = self.init_state(x.shape[0]), []
        for t in range(x.shape[1]):
            gates = self.input(x[:, t]) + h @ self.recurrent.T
            i, f, g, o = gates.unflatten(-1, (4, self.width)).unbind(-2)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(self.out(h))
        return torch.stack(outputs, dim=1)

    def step(self, inputs: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        i, f, g, o = (inputs[0] + self.recalled(state.h)).chunk(4, dim=-1)
        c = torch.addcmul(f.sigmoid() * state.c, i.sigmoid(), g.tanh())
        h = o.sigmoid() * c.tanh()
        return h, State(h, c)
