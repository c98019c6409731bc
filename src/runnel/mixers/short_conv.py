"""Short convolution: a few taps over time between two gates, all that many layers of a hybrid need.

Report: "LFM2 Technical Report" (2025, 2511.23404).

    B, C, x = W_in u;   y = C * conv(B * x);   u' = W_out y

| code | paper |
|---|---|
| width | k, taps of the depthwise causal convolution |

Its whole state is the last k - 1 products B * x. It comes from Hyena's operator of order 2 without the long filter
("Hyena Hierarchy", 2023, 2302.10866, figure 1).
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
from runnel.state import Memory

PAPERS = {"LFM2 Technical Report": "2511.23404"}


@dataclass(frozen=True)
class Config:
    width: int = 3
    bias: bool = False

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"short_conv needs width >= 1; got {self.width}")


class State(NamedTuple):
    tail: Tensor  # (B, width - 1, D)


class ShortConv(Mixer):
    variants = ({"width": 1}, {"width": 4, "bias": True})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.input = linear(d_model, 3 * d_model, config.bias)
        self.conv_weight = parameter(conv.initial_filters(d_model, config.width))
        self.conv_bias = parameter(torch.zeros(d_model)) if config.bias else None
        self.out = linear(d_model, d_model, config.bias)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.conv_weight.shape[1] - 1, self.conv_weight.shape[0]))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], Memory]:
        b, c, value = self.input(x).chunk(3, dim=-1)
        y, tail = conv.causal_conv(b * value, self.conv_weight, self.conv_bias, state.tail, lineage)
        return self.out(c * y), State(tail)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        b, c, value = self.input(x).chunk(3, dim=-1)
        taps, past = self.conv_weight.flip(1), self.conv_weight.shape[1]
        rows = []
        for t in range(x.shape[1]):
            y = sum(taps[:, j] * (b * value)[:, t - j] for j in range(min(past, t + 1)))
            rows.append(self.out(c[:, t] * (y if self.conv_bias is None else y + self.conv_bias)))
        return torch.stack(rows, dim=1)
