"""mLSTM: an LSTM with a matrix for a cell and exponential input gates, without a recurrence of its hidden state.

Paper: "xLSTM: Extended Long Short-Term Memory" (2024, 2405.04517).

    q, k = W_q, W_k of silu(conv(x)), k scaled by 1/sqrt(d);   v = W_v x             (eq. 22-24, figure 11)
    i, f (pre-activations) = w_i x_t + b_i, w_f x_t + b_f, one of each per head      (eq. 25, 26)
    m_t = max(log sigmoid(f) + m_p, i)                                               (eq. 15)
    i' = exp(i - m_t),   f' = exp(log sigmoid(f) + m_p - m_t)                        (eq. 16, 17)
    C_t = f' C_p + i' v_t k_t^T,   n_t = f' n_p + i' k_t                             (eq. 19, 20)
    h_t = sigmoid(W_o x_t) * C_t q_t / max(|n_t . q_t|, exp(-m_t))                   (eq. 21, 27)
    y_t = W GroupNorm(h_t)

The forget gate is the sigmoid one of the two that the paper allows. Deviates: the norm comes before the output gate,
as in the authors' code; the up and down projections of the paper's block are the channel block's work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops import conv
from runnel.ops.matrix_cell import Cell, Tokens, matrix_cell, reference
from runnel.ops.stable import Level

PAPERS = {"xLSTM: Extended Long Short-Term Memory": "2405.04517"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    cell: Cell


class MLSTM(Mixer):
    variants = ({"head_dim": 2}, {"conv": 1})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.qk, self.v, self.o = linear(d_model, 2 * d_model), linear(d_model, d_model), linear(d_model, d_model)
        self.gates = linear(d_model, 2 * self.heads)
        nn.init.zeros_(self.gates.weight)  # gates begin as their biases alone, as in the authors' code
        self.i_bias = parameter(torch.randn(self.heads) * 0.1)
        self.f_bias = parameter(torch.linspace(3, 6, self.heads))
        self.norm = nn.GroupNorm(self.heads, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        d_model, width = self.conv_weight.shape
        level = Level(*[self.zeros(batch_size, self.heads) for _ in Level._fields])
        memory = self.zeros(batch_size, self.heads, self.width, self.width + 1)
        return State(self.zeros(batch_size, width - 1, d_model), Cell(level, memory))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        smooth, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        y, cell = matrix_cell(self._project(x, smooth), state.cell, lineage)
        return self._output(y, x), State(tail, cell)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        smooth, _ = conv.reference(x, self.conv_weight, None, self.init_state(x.shape[0]).tail)
        return self._output(reference(self._project(x, smooth)), x)

    def _project(self, x: Tensor, smooth: Tensor) -> Tokens:
        q, k = self.qk(silu(smooth)).unflatten(-1, (2, self.heads, self.width)).unbind(-3)
        i, f = self.gates(x).chunk(2, dim=-1)
        v = self.v(x).unflatten(-1, (self.heads, self.width))
        return Tokens(q, k * self.width**-0.5, v, i + self.i_bias, logsigmoid(f + self.f_bias))

    def _output(self, y: Tensor, x: Tensor) -> Tensor:
        flat = y.to(x.dtype).flatten(-2)
        return self.out(self.norm(flat.flatten(0, 1)).view_as(flat) * self.o(x).sigmoid())
