"""sLSTM: an LSTM with exponential gates, a normaliser and a recurrence within heads; truly nonlinear, so no scan fits.

Paper: "xLSTM: Extended Long Short-Term Memory" (2024, 2405.04517).

    z, i, f, o (pre-activations) = W x_t + R h_p + b     (z and o from x, i and f from silu(conv(x)))
    m_t = max(log sigmoid(f) + m_p, i)                                               (eq. 15)
    i' = exp(i - m_t),   f' = exp(log sigmoid(f) + m_p - m_t)                        (eq. 16, 17)
    c_t = f' c_p + i' tanh(z),   n_t = f' n_p + i'                                   (eq. 8, 9)
    h_t = sigmoid(o) c_t / n_t                                                       (eq. 10)
    y_t = W_o GroupNorm(h_t)

| code | paper |
|---|---|
| recurrent (H, K, 4K) | R, block-diagonal over heads |
| m | stabiliser, part of the state; an empty cell (n = 0) carries nothing, so m is then i |

The forget gate is the sigmoid one of the two that the paper allows (eq. 14). Deviates: an output projection stands in
for the up/down projection of the paper's block; that is the channel block's work here.
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
from runnel.ops.unroll import unroll

PAPERS = {"xLSTM: Extended Long Short-Term Memory": "2405.04517"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    conv: int = 4


class Cell(NamedTuple):
    h: Tensor  # (B, D), like the others
    c: Tensor
    n: Tensor
    m: Tensor


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    cell: Cell


class SLSTM(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_model, self.width = d_model, head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.z_and_o, self.i_and_f = linear(d_model, 2 * d_model), linear(d_model, 2 * d_model)
        self.recurrent = parameter(torch.randn(self.heads, self.width, 4 * self.width) * self.width**-0.5 / 2)
        bias = torch.zeros(
            4, d_model
        )  # z, o, i, f; forgetting starts spread over time scales (as in the authors' code)
        bias[3] = torch.linspace(3, 6, self.width).repeat(self.heads)
        self.bias = parameter(bias)
        self.norm = nn.GroupNorm(self.heads, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        cell = Cell(*[self.zeros(batch_size, self.d_model) for _ in Cell._fields])
        return State(self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.d_model), cell)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        smooth, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        h, cell = unroll(self._step, (self._gates(x, smooth),), state.cell, lineage)
        return self._output(h.to(x.dtype)), State(tail, cell)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        zero = self.init_state(x.shape[0])
        gates = self._gates(x, conv.reference(x, self.conv_weight, None, zero.tail)[0])
        h, c, n, m = zero.cell
        outputs = []
        for t in range(x.shape[1]):
            recurrent = torch.cat(
                [h.unflatten(-1, (self.heads, -1))[:, i] @ r for i, r in enumerate(self.recurrent)], -1
            )
            recurrent = recurrent.view(-1, self.heads, 4, self.width).transpose(1, 2).flatten(-2)
            z, o, i, f = (gates[:, t] + recurrent).unbind(1)
            log_f = logsigmoid(f)
            new_m = i if t == 0 else torch.maximum(log_f + m, i)
            c = (log_f + m - new_m).exp() * c + (i - new_m).exp() * z.tanh()
            n = (log_f + m - new_m).exp() * n + (i - new_m).exp()
            h, m = o.sigmoid() * c / n, new_m
            outputs.append(h)
        return self._output(torch.stack(outputs, dim=1))

    def _gates(self, x: Tensor, smooth: Tensor) -> Tensor:
        """(B, T, 4, D): what the input adds to z, o, i, f."""
        gates = torch.cat([self.z_and_o(x), self.i_and_f(silu(smooth))], dim=-1)
        return gates.unflatten(-1, (4, self.d_model)) + self.bias

    def _step(self, inputs: tuple[Tensor, ...], cell: Cell) -> tuple[Tensor, Cell]:
        h = cell.h.view(-1, self.heads, self.width).transpose(0, 1)  # (H, M, K)
        recurrent = (h @ self.recurrent.to(h.dtype)).view(self.heads, -1, 4, self.width).permute(1, 2, 0, 3).flatten(-2)
        z, o, i, f = (inputs[0] + recurrent).unbind(1)
        carried = torch.where(cell.n == 0, -torch.inf, logsigmoid(f) + cell.m)  # an empty cell has nothing to carry
        m = torch.maximum(carried, i)
        keep, write = (carried - m).exp(), (i - m).exp()
        c, n = keep * cell.c + write * z.tanh(), keep * cell.n + write
        h = o.sigmoid() * c / n
        return h, Cell(h, c, n, m)

    def _output(self, h: Tensor) -> Tensor:
        return self.out(self.norm(h.flatten(0, 1)).view_as(h))
