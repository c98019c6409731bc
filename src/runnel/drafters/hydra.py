"""Hydra: heads that also see the tokens guessed before theirs on the same branch.

Paper: "Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding" (2024, 2402.05109), sections 3 and 4 (Hydra++).

    z_i = h + SiLU(W_i [h; e(x_1); ...; e(x_i)] + b_i),  then residual blocks z <- z + SiLU(W z + b)          (1)
    p_i(x_{i+1} | h, x_1, ..., x_i) = softmax(V_i z_i)                                                         (2)

| code | paper |
|---|---|
| heads | K |
| guess(h, x_1..x_i) | the head f_{H,i}, with x_1 the newest token, which the target itself has picked |
| body[i], laws[i] | the perceptron of head i and its vocabulary projection |
| layers | depth of the perceptron: 1 in section 3, 4 in Hydra++ |
| prefix | layers of the prefix attention (Hydra++), which reads the target's vectors before the heads do; or none |

e is the target's embedding, frozen. Deviates: V_i begins as the target's head and W_i as zero, as in Medusa, so that
the two differ in nothing but what their heads see.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.trained.heads import Heads, HeadsConfig
from runnel.trained.stack import Stack

PAPERS = {"Hydra: Sequentially-Dependent Draft Heads for Medusa Decoding": "2402.05109"}
TRAINED = True


@dataclass(frozen=True)
class Config(HeadsConfig):
    """layers >= 1: depth of a head. prefix: a pattern of `runnel.patterns`, such as "attention", or None."""

    layers: int = 1
    prefix: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1; got {self.layers}")


class Hydra(Heads):
    config: Config

    def make(self, d_model: int) -> None:
        heads, layers = self.config.heads, self.config.layers
        self.reader = None if self.config.prefix is None else Stack.build(self.config.prefix, d_model)
        widths = [[(i + 2) * d_model] + [d_model] * (layers - 1) for i in range(heads)]
        self.body = nn.ModuleList(nn.ModuleList(nn.Linear(width, d_model) for width in own) for own in widths)
        for parameter in self.body.parameters():
            nn.init.zeros_(parameter)
        self.laws = nn.ModuleList(copy.deepcopy(self.target.head) for _ in range(heads))

    def guess(self, hidden: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B i"]) -> Float[Tensor, "*B V"]:
        head = tokens.shape[-1] - 1
        first, *rest = self.perceptron(head)
        seen = torch.cat([hidden, self.embed(tokens).flatten(-2)], dim=-1)
        hidden = hidden + silu(first(seen))  # eq. (1)
        for layer in rest:
            hidden = hidden + silu(layer(hidden))
        return self.laws[head](hidden)  # eq. (2)

    def perceptron(self, head: int) -> list[nn.Linear]:
        return list(self.body[head])  # type: ignore[call-overload]


@torch.no_grad()
def reference(drafter: Hydra, hidden: Float[Tensor, "D"], tokens: list[int]) -> Float[Tensor, "V"]:
    """Eq. (1) and (2) for one place: the first product is a sum over what the head sees, one part after another."""
    first, *rest = drafter.perceptron(len(tokens) - 1)
    parts = [hidden, *drafter.embed(torch.tensor(tokens))]
    width, moved = len(hidden), first.bias.clone()
    for place, part in enumerate(parts):
        moved += first.weight[:, place * width : (place + 1) * width] @ part
    z = hidden + moved * torch.sigmoid(moved)
    for layer in rest:
        moved = layer.weight @ z + layer.bias
        z = z + moved * torch.sigmoid(moved)
    return drafter.laws[len(tokens) - 1](z)
