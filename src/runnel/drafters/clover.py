"""Clover: heads that hand their state on, attend to the branch's tokens, and look at an augmented hidden vector.

Paper: "Clover: Regressive Lightweight Speculative Decoding with Sequential Knowledge" (2024, 2405.00263), section 3.

    h_0 = the augmenting block's output at the target's last hidden vector                                     (1)
    h_i = h_{i-1} + W_o sum over j <= i of softmax_j(W_q n(h_{i-1}) . W_k e(x_j) / sqrt(D)) W_v e(x_j)         (2)
    z_i = h_i + SiLU(M_i [h_i; e(x_i)] + b_i),   p_i(x_{i+1} | ...) = softmax(head(z_i))                       (3)

| code | paper |
|---|---|
| reader, augment | augmenting block: one more layer over the target's vectors, read once a round |
| eq. (2) | regressive connection and attention decoder, one for all heads: the state asks the tokens |
| body[i] | M_i, b_i: the perceptron of head i |
| n | root-mean-square norm |

e and head are the target's, frozen. Deviates: W_o and M_i begin as zero, so that every head begins as the target's.
`augment` is any pattern of mixers; the paper's is attention.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.mixer import RMSNorm, linear
from runnel.trained.heads import Heads, HeadsConfig
from runnel.trained.stack import Stack

PAPERS = {"Clover: Regressive Lightweight Speculative Decoding with Sequential Knowledge": "2405.00263"}
TRAINED = True


@dataclass(frozen=True)
class Config(HeadsConfig):
    """augment: a pattern of `runnel.patterns`, or None for heads on the target's own vector."""

    augment: str | None = "attention"


class Clover(Heads):
    config: Config

    def make(self, d_model: int) -> None:
        self.reader = None if self.config.augment is None else Stack.build(self.config.augment, d_model)
        self.norm = RMSNorm(d_model)
        self.query, self.key, self.value, self.out = [linear(d_model, d_model) for _ in range(4)]
        self.body = nn.ModuleList(nn.Linear(2 * d_model, d_model) for _ in range(self.config.heads))
        for parameter in [self.out.weight, *self.body.parameters()]:
            nn.init.zeros_(parameter)

    def guess(self, hidden: Float[Tensor, "*B D"], tokens: Int[Tensor, "*B i"]) -> Float[Tensor, "*B V"]:
        count, width = tokens.shape[-1], hidden.shape[-1]
        embedded = self.embed(tokens)
        keys, values = self.key(embedded) / math.sqrt(width), self.value(embedded)
        for seen in range(1, count + 1):
            query = self.query(self.norm(hidden))
            weights = torch.einsum("...d,...jd->...j", query, keys[..., :seen, :]).softmax(-1)
            hidden = hidden + self.out(torch.einsum("...j,...jd->...d", weights, values[..., :seen, :]))  # eq. (2)
        moved = self.body[count - 1](torch.cat([hidden, embedded[..., -1, :]], dim=-1))
        return self.law(hidden + silu(moved))  # eq. (3)


@torch.no_grad()
def reference(drafter: Clover, hidden: Float[Tensor, "D"], tokens: list[int]) -> Float[Tensor, "V"]:
    """Eq. (2) and (3) for one place, token by token."""
    embedded = list(drafter.embed(torch.tensor(tokens)))
    h = hidden
    for last in range(len(tokens)):
        query = drafter.query.weight @ drafter.norm(h)
        scores = [math.exp(float(query @ (drafter.key.weight @ e)) / math.sqrt(len(h))) for e in embedded[: last + 1]]
        read = torch.zeros_like(h)
        for score, e in zip(scores, embedded[: last + 1], strict=True):
            read += score / sum(scores) * (drafter.value.weight @ e)
        h = h + drafter.out.weight @ read
    layer: nn.Linear = drafter.body[len(tokens) - 1]  # type: ignore[assignment]
    moved = layer.weight @ torch.cat([h, embedded[-1]]) + layer.bias
    return drafter.target.head(h + moved * torch.sigmoid(moved))
