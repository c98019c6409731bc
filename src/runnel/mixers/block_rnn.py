"""Block-diagonal linear RNN: every token brings small dense matrices, so that the state can permute as automata do.

Paper: "Advancing Regular Language Reasoning in Linear Recurrent Neural Networks" (2023, 2309.07412).

    A_t = blockdiag(A_1, ..., A_H),   A_h = g_h(x_t) in R^(K x K)                    (1)
    A_h <- A_h / max over columns j of |A_hj|_p                                      (2)
    h_t = A_t h_p + v(x_t),   y_t = W_o h_t                                          (3)

| code | paper |
|---|---|
| block | K, width of the blocks |
| p | of the norm; 1.2 in the paper |
| transition, value | g and v: a layer, relu, a layer |

Diagonal transitions commute, and so lose the order of what acted on the state: they cannot follow a group of
permutations that do not commute. As in the authors' code the columns of a block are centred before they are normalised.
Only p = 1 bounds every product of transitions (columns of norm one cannot lengthen h in the 1-norm); above it the paper
trades that for a wider range.
Deviates: the state begins at zero, where the paper learns it; zero is what resets rely on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.lineage import Lineage
from runnel.mixer import Mixer, linear
from runnel.ops.dense import dense_scan

PAPERS = {"Advancing Regular Language Reasoning in Linear Recurrent Neural Networks": "2309.07412"}


@dataclass(frozen=True)
class Config:
    block: int = 2
    p: float = 1.2

    def __post_init__(self) -> None:
        if self.block < 2 or self.p < 1:
            raise ValueError(f"block_rnn needs block >= 2 and p >= 1; got block {self.block}, p {self.p}")


class State(NamedTuple):
    h: Tensor  # (B, H, K)


class BlockRNN(Mixer):
    variants = ({"block": 4, "p": 1.0},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        if d_model % config.block:
            raise ValueError(f"block must divide d_model; got block {config.block}, d_model {d_model}")
        self.block, self.p, self.heads = config.block, config.p, d_model // config.block
        entries = d_model * config.block
        self.transition = nn.Sequential(linear(d_model, entries, True), nn.ReLU(), linear(entries, entries, True))
        self.value = nn.Sequential(linear(d_model, d_model, True), nn.ReLU(), linear(d_model, d_model, True))
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        return State(self.zeros(batch_size, self.heads, self.block))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        h, last = dense_scan(self.transitions(x), self._values(x), state.h, lineage)
        return self.out(h.flatten(-2).to(x.dtype)), State(last)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        h, outputs = self.init_state(x.shape[0]).h, []
        for t in range(x.shape[1]):
            a, v = self.transitions(x[:, t]), self._values(x[:, t])
            h = torch.stack([torch.einsum("bij,bj->bi", a[:, i], h[:, i]) for i in range(self.heads)], dim=1) + v
            outputs.append(self.out(h.flatten(1)))
        return torch.stack(outputs, dim=1)

    def transitions(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B H K K"]:
        """Blocks whose columns sum to zero, the largest of them of p-norm one."""
        blocks = self.transition(x).unflatten(-1, (self.heads, self.block, self.block))
        blocks = blocks - blocks.mean(-2, keepdim=True)
        largest = blocks.norm(p=self.p, dim=-2).amax(-1)[..., None, None]
        return blocks / largest.clamp(min=1e-6)

    def _values(self, x: Tensor) -> Tensor:
        return self.value(x).unflatten(-1, (self.heads, self.block))
