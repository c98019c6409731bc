"""Experts in balance by transport: in training a batch's tokens are spread evenly, later each goes where it likes best.

Paper: "BlackMamba: Mixture of Experts for State-Space Models" (2024, 2402.01771), section 4; the transport is that of
"Unified Scaling Laws for Routed Language Models" (2022, 2202.01169).

    s = W_r x,   P = the plan nearest to exp(s) with rows that sum to 1 and columns to N / n, over N tokens    (1)
    e = argmax_e P_e in training,   argmax_e s_e otherwise;   y = sigmoid(s_e) E_e(x)                          (2)

A plan over a batch looks ahead, so that only training may follow it: a block routes by (2, otherwise), token by token,
until `train()` is called, as `runnel train` does between validations. `agreement` says how often both choose alike.

| code | paper |
|---|---|
| experts | n; every token goes to one |
| rounds | of Sinkhorn's algorithm for P; 0: the same routes in training |
| hidden | width of one expert; None: about 8/3 d |

Deviates: padding counts as tokens in (1), as in `moe`'s balance. No jitter, no capacity: no token is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from runnel.mixer import linear
from runnel.ops.activations import activation
from runnel.ops.balance import sinkhorn
from runnel.ops.precision import widen

PAPERS = {"BlackMamba: Mixture of Experts for State-Space Models": "2402.01771"}


@dataclass(frozen=True)
class Config:
    experts: int = 8
    rounds: int = 8
    hidden: int | None = None
    activation: str = "silu"

    def __post_init__(self) -> None:
        if self.experts < 1 or self.rounds < 0:
            raise ValueError(f"sinkhorn_moe needs experts >= 1 and rounds >= 0; got {self.experts}, {self.rounds}")


class SinkhornMoE(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        hidden = config.hidden or 8 * max(1, round(d_model / 3))
        self.config, self.activation = config, activation(config.activation)
        self.router = linear(d_model, config.experts)
        self.up = nn.ModuleList(linear(d_model, 2 * hidden) for _ in range(config.experts))
        self.out = nn.ModuleList(linear(hidden, d_model) for _ in range(config.experts))
        self.training = False

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        flat = x.flatten(0, 1)
        scores = widen(self.router(flat))
        chosen = self._balanced(scores) if self.training else scores.argmax(-1)
        weights = scores.gather(1, chosen[:, None]).sigmoid().to(x.dtype)
        y = torch.zeros_like(flat)
        for e in range(self.config.experts):
            (token,) = (chosen == e).nonzero(as_tuple=True)
            if token.numel():
                y = y.index_add(0, token, (weights[token] * self._expert(e, flat[token])).to(y.dtype))
        return y.view_as(x)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token, as outside training."""
        rows = []
        for token in x.flatten(0, 1):
            scores = self.router.weight @ token
            best = int(scores.argmax())
            rows.append(scores[best].sigmoid() * self._expert(best, token))
        return torch.stack(rows).view_as(x)

    @torch.no_grad()
    def agreement(self, x: Float[Tensor, "B T D"]) -> float:
        """The share of the tokens of a batch that training would send where decoding does."""
        scores = widen(self.router(x.flatten(0, 1)))
        return float((self._balanced(scores) == scores.argmax(-1)).double().mean())

    def _balanced(self, scores: Float[Tensor, "N E"]) -> Int[Tensor, "N"]:
        return sinkhorn(scores, self.config.rounds).argmax(-1)

    def _expert(self, e: int, x: Tensor) -> Tensor:
        gate, value = self.up[e](x).chunk(2, dim=-1)
        return self.out[e](self.activation(gate) * value)
