"""HGRN: a gated linear RNN with a complex state, whose layers forget the more slowly the higher they stand.

Paper: "Hierarchically Gated Recurrent Neural Network for Sequence Modeling" (2023, 2311.04823).

    c_t = silu(W_re x_t) + i silu(W_im x_t)                                          (1)
    f_t = gamma + (1 - gamma) * sigmoid(W_f x_t)       the forget gate, bounded below(2)
    h_t = f_t * exp(i theta) * h_p + (1 - f_t) * c_t                                 (3)
    y_t = W_o LayerNorm([Re h_t, Im h_t] * sigmoid(W_g x_t))                         (4)

| code | paper |
|---|---|
| low, high | the range in which this layer learns gamma, channel by channel |
| gate_rank | width between the two factors of W_f, and of W_g |
| theta | starts as the frequencies of rotary positions, and is learned |

Deviates: the paper makes gamma rise with depth by a cumulative softmax over layers. A mixer does not know its depth, so
a layer is given a range, and ranges that rise give bounds that rise: `"hgrn(high=0.5), hgrn(low=0.5, high=0.9)"`. With
low = high = 0 there is no bound, which the paper finds to forget too much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.precision import widen
from runnel.ops.scan import complex_scan, from_pairs, polar

PAPERS = {"Hierarchically Gated Recurrent Neural Network for Sequence Modeling": "2311.04823"}


@dataclass(frozen=True)
class Config:
    low: float = 0.0
    high: float = 0.5
    gate_rank: int = 16

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high < 1:
            raise ValueError(f"hgrn needs 0 <= low <= high < 1; got low {self.low}, high {self.high}")


class State(NamedTuple):
    h: Tensor  # (B, D, 2)


class HGRN(Mixer):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_model, self.low, self.high = d_model, config.low, config.high
        self.candidate = linear(d_model, 2 * d_model)
        self.forget = nn.Sequential(linear(d_model, config.gate_rank), linear(config.gate_rank, d_model))
        self.gate = nn.Sequential(linear(d_model, config.gate_rank), linear(config.gate_rank, 2 * d_model))
        self.bound = parameter(torch.zeros(d_model))
        self.theta = parameter(10000 ** (-2 * torch.arange(d_model) / d_model))
        self.norm = nn.LayerNorm(2 * d_model)
        self.out = linear(2 * d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.d_model, 2))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        f, c = self._project(x)
        h, last = complex_scan(polar(f, self.theta), (1 - f) * c, state.h, lineage)
        return self._output(h, x), State(last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        real, imaginary = silu(self.candidate(x)).unflatten(-1, (self.d_model, 2)).unbind(-1)
        gamma = self.gamma()
        h_real, h_imaginary, states = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            f = gamma + (1 - gamma) * self.forget(x[:, t]).sigmoid()
            cos, sin = f * self.theta.cos(), f * self.theta.sin()
            h_real, h_imaginary = cos * h_real - sin * h_imaginary, sin * h_real + cos * h_imaginary
            h_real, h_imaginary = h_real + (1 - f) * real[:, t], h_imaginary + (1 - f) * imaginary[:, t]
            states.append(torch.complex(h_real, h_imaginary))
        return self._output(torch.stack(states, dim=1), x)

    def gamma(self) -> Tensor:
        """(D,): the lower bounds of the forget gates."""
        return self.low + (self.high - self.low) * self.bound.sigmoid()

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f, and c as complex numbers, each (B, T, D)."""
        gamma = self.gamma()
        f = gamma + (1 - gamma) * widen(self.forget(x)).sigmoid()
        return f, from_pairs(widen(silu(self.candidate(x))).unflatten(-1, (self.d_model, 2)))

    def _output(self, h: Tensor, x: Tensor) -> Tensor:
        parts = torch.cat([h.real, h.imag], dim=-1).to(x.dtype)
        return self.out(self.norm(parts * self.gate(x).sigmoid()))
