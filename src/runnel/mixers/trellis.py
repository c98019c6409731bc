"""TrellisNet: convolutions of width 2 in a stack with tied weights and the input at every level: an unrolled net.

Paper: "Trellis Networks for Sequence Modeling" (2018, 1810.06682).

    a_t = W_1 [x_(t-1), z_(t-1)] + W_2 [x_t, z_t] + b       the same at every level  (1)
    i, f, g, o = the four parts of a_t
    c'_t = sigmoid(f) * c_(t-1) + sigmoid(i) * tanh(g)      the next level up        (2)
    z'_t = sigmoid(o) * tanh(c'_t),   y = W_o z at the top                           (3)

| code | paper |
|---|---|
| levels | M or L, how many levels; a level sees one token further back, so y_t sees levels + 1 tokens |
| width | channels of z and of c; None: d |
| x, z | the parts of W_1 and W_2 on the input, computed once, and on the level below |
| tails | (z, c) of the last token at every level but the top: what streaming keeps |

With W_1 only on z and W_2 only on x it is an LSTM that forgets everything `levels` tokens ago. Deviates: none of the
paper's regularisers (weight normalisation, dropout along depth, losses at lower levels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear
from runnel.ops import conv
from runnel.state import Memory

PAPERS = {"Trellis Networks for Sequence Modeling": "1810.06682"}


@dataclass(frozen=True)
class Config:
    levels: int = 8
    width: int | None = None

    def __post_init__(self) -> None:
        if self.levels < 1 or (self.width is not None and self.width < 1):
            raise ValueError(f"trellis needs levels >= 1 and width >= 1; got levels {self.levels}, width {self.width}")


class State(NamedTuple):
    x: Tensor  # (B, 1, D)
    tails: tuple[Memory, ...]  # levels - 1 times (B, 1, 2 * width)


class Trellis(Mixer):
    variants = ({"levels": 1}, {"levels": 3, "width": 5})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.d_model, self.levels, self.width = d_model, config.levels, config.width or d_model
        self.x = linear(2 * d_model, 4 * self.width, bias=True)
        self.z = linear(2 * self.width, 4 * self.width)
        self.out = linear(self.width, d_model)

    def init_state(self, batch_size: int) -> State:
        tails = tuple(self.zeros(batch_size, 1, 2 * self.width) for _ in range(self.levels - 1))
        return State(self.zeros(batch_size, 1, self.d_model), tails)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        shifted, last = conv.shift(x, state.x, lineage)
        injected = self.x(torch.cat([shifted, x], dim=-1))
        z, c = self._gate(injected, torch.zeros_like(injected[..., : self.width]))
        tails = []
        for tail in state.tails:
            before, after = conv.shift(torch.cat([z, c], dim=-1), tail, lineage)
            z_before, c_before = before.chunk(2, dim=-1)
            z, c = self._gate(injected + self.z(torch.cat([z_before, z], dim=-1)), c_before)
            tails.append(after)
        return self.out(z), State(last, tuple(tails))

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        nothing = x.new_zeros(x.shape[0], self.width)
        above = [(nothing, nothing)] * self.levels  # (z, c) of the token before, at every level from the bottom
        x_before, outputs = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            level = [(nothing, nothing)]
            for z_before, c_before in above:
                a = self.x(torch.cat([x_before, x[:, t]], -1)) + self.z(torch.cat([z_before, level[-1][0]], -1))
                level.append(self._gate(a, c_before))
            outputs.append(self.out(level.pop()[0]))
            above, x_before = level, x[:, t]
        return torch.stack(outputs, dim=1)

    def _gate(self, a: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """z and c of a level, from its pre-activations and the c of the level below, a token before."""
        i, f, g, o = a.chunk(4, dim=-1)
        c = torch.addcmul(f.sigmoid() * c, i.sigmoid(), g.tanh())
        return o.sigmoid() * c.tanh(), c
