"""The mLSTM of xLSTM 7B: no convolution, narrow keys, gates with a cap.

Paper: "xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference" (2025, 2503.13427), section 3.

    q, k, v = W_q x, W_k x, W_v x;   k scaled by 1/sqrt(K)
    i, f = a tanh(W x_t / a), with biases; one of each per head,  a = 15             (gate soft-capping)
    h_t: the matrix cell (`runnel.ops.matrix_cell`)
    y_t = W_out (LayerNorm per head of h_t * sigmoid(W_o x_t))

| code | paper |
|---|---|
| key_factor | width of all keys / d = 1/2 |
| cap | a |

`mlstm` is the same cell in the block of the first xLSTM paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, logsigmoid

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.matrix_cell import Cell, Tokens, matrix_cell, reference
from runnel.ops.stable import Level
from runnel.state import Memory

PAPERS = {"xLSTM 7B: A Recurrent LLM for Fast and Efficient Inference": "2503.13427"}


@dataclass(frozen=True)
class Config:
    heads: int = 4
    key_factor: float = 0.5
    value_factor: float = 1.0
    cap: float = 15.0
    norm_eps: float = 1e-6


class XLSTMLarge(Mixer):
    variants = ({"heads": 2, "key_factor": 1.0, "value_factor": 0.5, "cap": 2.0},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        keys, values = int(config.key_factor * d_model), int(config.value_factor * d_model)
        if min(keys, values) < 1 or keys % config.heads or values % config.heads:
            raise ValueError(
                f"xlstm_large needs heads that divide the widths of its keys and values, {keys} and {values}; "
                f"got {config.heads}"
            )
        self.config, self.sizes = config, (keys, keys, values, values)
        self.qkvo = linear(d_model, sum(self.sizes))
        self.gates = linear(d_model, 2 * config.heads)
        nn.init.zeros_(self.gates.weight)
        self.i_bias = parameter(
            torch.full((config.heads,), -10.0)
        )  # as in the authors' code: little is written at first
        self.f_bias = parameter(torch.linspace(3, 6, config.heads))
        self.norm = parameter(torch.ones(values))
        self.out = linear(values, d_model)

    def init_state(self, batch_size: int) -> Cell:
        heads = self.config.heads
        level = Level(*[self.zeros(batch_size, heads) for _ in Level._fields])
        keys, _, values, _ = self.sizes
        return Cell(level, self.zeros(batch_size, heads, keys // heads, values // heads + 1))

    def forward(
        self, x: Float[Tensor, "B T D"], state: Cell, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        tokens, o = self._project(x)
        y, cell = matrix_cell(tokens, state, lineage)
        return self._output(y, o), cell

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        tokens, o = self._project(x)
        return self._output(reference(tokens), o)

    def _project(self, x: Tensor) -> tuple[Tokens, Tensor]:
        """What the cell is given, and the output gate (B, T, H V)."""
        heads, cap = self.config.heads, self.config.cap
        q, k, v, o = self.qkvo(x).split(self.sizes, dim=-1)
        q, k, v = [y.unflatten(-1, (heads, -1)) for y in (q, k, v)]
        i, f = (cap * ((self.gates(x) + torch.cat([self.i_bias, self.f_bias])) / cap).tanh()).chunk(2, dim=-1)
        return Tokens(q, k * k.shape[-1] ** -0.5, v, i, logsigmoid(f)), o

    def _output(self, y: Tensor, o: Tensor) -> Tensor:
        normed = layer_norm(y, y.shape[-1:], eps=self.config.norm_eps).flatten(-2).to(o.dtype)
        return self.out(normed * self.norm * o.sigmoid())
