"""Medusa: several heads guess the next few tokens at once, each from the target's last hidden vector alone.

Paper: "Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads" (2024, 2401.10774), section
2.1.1; frozen training (Medusa-1) is the objective `medusa`.

    p_k = softmax(W2_k (SiLU(W1_k h) + h)),  W1_k = 0 and W2_k = the target's head at first        (1)

| code | paper |
|---|---|
| heads | K |
| guess(h, x_1..x_k) | p_t^(k), of the token k + 1 places after the one that h has read |
| body[k], laws[k] | W1_k, W2_k |

Deviates: `layers` residual blocks instead of one are possible, as in the authors' code. The tree is any builder of
`runnel.trees`; the paper's is a template that was calibrated. Typical acceptance is a rule of `runnel.acceptance`;
training the target too (Medusa-2) would change it, and is not here.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.trained.heads import Heads, HeadsConfig

PAPERS = {"Medusa: Simple LLM Inference Acceleration Framework with Multiple Decoding Heads": "2401.10774"}
TRAINED = True


@dataclass(frozen=True)
class Config(HeadsConfig):
    """layers >= 1: residual blocks of a head."""

    layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1; got {self.layers}")


class Medusa(Heads):
    config: Config

    def make(self, d_model: int) -> None:
        self.reader = None
        heads, layers = self.config.heads, self.config.layers
        self.body = nn.ModuleList(
            nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(layers)) for _ in range(heads)
        )
        for parameter in self.body.parameters():
            nn.init.zeros_(parameter)
        self.laws = nn.ModuleList(copy.deepcopy(self.target.head) for _ in range(heads))

    def guess(self, hidden: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B i"]) -> Float[Tensor, "*B V"]:
        head = tokens.shape[-1] - 1
        for layer in self.blocks(head):
            hidden = hidden + silu(layer(hidden))  # eq. (1)
        return self.laws[head](hidden)

    def blocks(self, head: int) -> list[nn.Linear]:
        return list(self.body[head])  # type: ignore[call-overload]


@torch.no_grad()
def reference(drafter: Medusa, hidden: Float[Tensor, "D"], head: int) -> Float[Tensor, "V"]:
    """Eq. (1) for one vector, number by number."""
    x = hidden.tolist()
    for layer in drafter.blocks(head - 1):
        rows, bias = layer.weight.tolist(), layer.bias.tolist()
        moved = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(rows, bias, strict=True)]
        x = [v + float(silu(torch.tensor(m, dtype=hidden.dtype))) for v, m in zip(x, moved, strict=True)]
    return drafter.laws[head - 1](torch.tensor(x, dtype=hidden.dtype))
