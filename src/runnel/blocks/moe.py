"""Mixture of experts: each token goes to its best few of many small SwiGLU perceptrons.

Papers: "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer" (2017, 1701.06538);
"Switch Transformers" (2021, 2101.03961) for the balance loss.

    p = softmax(W_r x);   y = sum over the top-k experts e of (p_e / sum of the top-k p) E_e(x)     (+ S(x))
    balance = n sum_e f_e P_e,   f_e the share of routes to e, P_e the mean of p_e   (Switch eq. 4-6)

Routing looks at one token only, so training, decoding and tree verification route alike. The balance loss never changes
the output: its gradient is added to that of the router's probabilities (weight `balance`).

| code | paper |
|---|---|
| experts, active | n, k |
| expand | width of one expert / d |
| hidden | width of one expert, where it is not a round multiple of d |
| rescaled | divide by the sum of the top-k p, or not, as Jamba |
| shared | width of S, an expert that every token goes to; 0 for none. shared_gate: times sigmoid(w . x), as Qwen |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

from runnel.mixer import linear
from runnel.ops.precision import widen

PAPERS = {
    "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer": "1701.06538",
    "Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity": "2101.03961",
}


@dataclass(frozen=True)
class Config:
    experts: int = 8
    active: int = 2
    expand: float = 4 / 3
    balance: float = 0.01
    hidden: int | None = None
    rescaled: bool = True
    shared: int = 0
    shared_gate: bool = False


class MoE(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        if not 1 <= config.active <= config.experts:
            raise ValueError(f"moe needs 1 <= active <= experts; got {config.active} of {config.experts}")
        if config.shared_gate and not config.shared:
            raise ValueError("moe needs a shared expert for its shared_gate; got shared=0")
        hidden = config.hidden or 8 * max(1, round(config.expand * d_model / 8))
        self.config = config
        self.router = linear(d_model, config.experts)
        self.up = nn.ModuleList(linear(d_model, 2 * hidden) for _ in range(config.experts))
        self.out = nn.ModuleList(linear(hidden, d_model) for _ in range(config.experts))
        if config.shared:
            self.up.append(linear(d_model, 2 * config.shared))
            self.out.append(linear(config.shared, d_model))
        self.shared_gate = linear(d_model, 1) if config.shared_gate else None

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        flat = x.flatten(0, 1)
        weights, chosen = self._route(flat)
        y = torch.zeros_like(flat)
        for e in range(self.config.experts):
            token, slot = (chosen == e).nonzero(as_tuple=True)
            if token.numel():
                out = self._expert(e, flat[token]) * weights[token, slot, None].to(x.dtype)
                y = y.index_add(0, token, out.to(y.dtype))
        return (y + self._shared(flat)).view_as(x) if self.config.shared else y.view_as(x)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Token by token: every expert, then the best few."""
        y = torch.zeros_like(x)
        for b in range(x.shape[0]):
            for t in range(x.shape[1]):
                p = self.router(x[b, t]).softmax(-1)
                best = p.argsort(descending=True)[: self.config.active]
                total = p[best].sum() if self.config.rescaled else 1.0
                y[b, t] = sum(p[e] / total * self._expert(int(e), x[b, t]) for e in best)
                if self.config.shared:
                    y[b, t] += self._shared(x[b, t])
        return y

    def _route(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and expert indices, each (tokens, active)."""
        p = widen(self.router(flat)).softmax(-1)
        chosen = p.topk(self.config.active).indices
        share = torch.zeros_like(p).scatter(1, chosen, 1.0).mean(0) / self.config.active
        best = _Balanced.apply(p, share, self.config.balance).gather(1, chosen)
        return best / best.sum(-1, keepdim=True) if self.config.rescaled else best, chosen

    def _shared(self, x: Tensor) -> Tensor:
        y = self._expert(self.config.experts, x)
        return y if self.shared_gate is None else self.shared_gate(x).sigmoid() * y

    def _expert(self, e: int, x: Tensor) -> Tensor:
        gate, value = self.up[e](x).chunk(2, dim=-1)
        return self.out[e](silu(gate) * value)


class _Balanced(torch.autograd.Function):
    """The identity on p (tokens, n); backward adds the gradient of weight * n * sum_e share_e mean(p_e)."""

    @staticmethod
    def forward(ctx: Any, p: Tensor, share: Tensor, weight: float) -> Tensor:
        ctx.slope = weight * p.shape[1] / p.shape[0] * share
        return p.view_as(p)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad + ctx.slope, None, None
