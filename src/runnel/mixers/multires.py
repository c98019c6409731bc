"""MultiresConv: a causal wavelet tree, in which every level halves the resolution of what the level below remembers.

Paper: "Sequence Modeling with Multiresolution Convolutional Memory" (2023, 2305.01638).

    a^0 = x;   a^(l+1)_t, b^(l+1)_t = sum over k of h0_k, h1_k a^l_(t - 2^l k)       (eq. 5, 6)
    z_t = w_0 a^J_t + sum over l of w_l b^l_t + w_x x_t      fading: the newest of each level (eq. 8)
    y_t = W_o gelu(z_t)

| code | paper |
|---|---|
| low, high (D, K) | h0 and h1, shared by all levels |
| levels | J: the oldest token that is seen is (K - 1) (2^J - 1) tokens old |
| weights (D, J + 2) | w_0, w_l from the coarsest level to the finest, w_x |
| tails | of each level, what its taps still reach |

The number of parameters does not depend on how far the tree sees. Deviates: filters begin at random (as one of the
paper's options); mixing over channels is the projection's and the block's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear, parameter
from runnel.ops.conv import ancestors_of
from runnel.ops.precision import widen

PAPERS = {"Sequence Modeling with Multiresolution Convolutional Memory": "2305.01638"}


@dataclass(frozen=True)
class Config:
    filters: int = 2
    levels: int = 7

    def __post_init__(self) -> None:
        if self.filters < 2:
            raise ValueError(f"multires needs filters >= 2 taps wide; got {self.filters}")
        if not 1 <= self.levels <= 12:
            raise ValueError(f"multires needs 1 <= levels <= 12; got {self.levels}")


class State(NamedTuple):
    tails: tuple[Tensor, ...]  # of level l: (B, 2^l (K-1), D)


class MultiresConv(Mixer):
    variants = ({"filters": 3, "levels": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.levels = config.levels
        self.low, self.high = [
            parameter((torch.rand(d_model, config.filters) * 2 - 1) * config.filters**-0.5) for _ in range(2)
        ]
        spread = (2 / (config.levels + 2)) ** 0.5
        self.weights = parameter((torch.rand(d_model, config.levels + 2) * 2 - 1) * spread)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        d_model, taps = self.low.shape
        return State(tuple(self.zeros(batch_size, 2**level * (taps - 1), d_model) for level in range(self.levels)))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        coarse = widen(x)
        z, tails = self.weights[:, -1] * coarse, []
        for level, tail in enumerate(state.tails):
            taps, tail = ancestors_of(coarse, tail.shape[1] + 1, tail, lineage)
            tails.append(tail)
            seen = torch.stack(taps[:: 2**level], dim=-1)  # (B, T, D, K), the token itself first
            coarse, fine = (seen * self.low).sum(-1), (seen * self.high).sum(-1)
            z = z + self.weights[:, self.levels - level] * fine
        return self._output(z + self.weights[:, 0] * coarse, x), State(tuple(tails))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        coarse, z = x, self.weights[:, -1] * x
        for level in range(self.levels):
            lows, highs = [], []
            for t in range(x.shape[1]):
                ages = [(k, t - 2**level * k) for k in range(self.low.shape[1]) if t >= 2**level * k]
                lows.append(torch.stack([self.low[:, k] * coarse[:, at] for k, at in ages]).sum(0))
                highs.append(torch.stack([self.high[:, k] * coarse[:, at] for k, at in ages]).sum(0))
            coarse, fine = torch.stack(lows, dim=1), torch.stack(highs, dim=1)
            z = z + self.weights[:, self.levels - level] * fine
        return self._output(z + self.weights[:, 0] * coarse, x)

    def _output(self, z: Tensor, x: Tensor) -> Tensor:
        return self.out(gelu(z.to(x.dtype)))
