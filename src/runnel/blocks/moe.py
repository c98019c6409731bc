"""Mixture of experts: each token goes to its best few of many small perceptrons.

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
| gated, activation | E(x) = W_2 (f(W x) * V x); not gated: W_2 f(W x), as in Nemotron |
| scores, scale | p = "softmax" or "sigmoid" of W_r x; what the weights of experts are multiplied by |
| corrected | experts are chosen by p + b, and weighted by p: b is what keeps the load even (2408.15664) |
| groups, reached | experts are chosen from the groups whose two best are best, as in DeepSeek-V3 (2412.19437) |
| shared | width of S, an expert that every token goes to; 0 for none. shared_gate: times sigmoid(w . x), as Qwen |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from runnel.mixer import linear, parameter
from runnel.ops.activations import activation
from runnel.ops.balance import Balanced
from runnel.ops.precision import widen

PAPERS = {
    "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer": "1701.06538",
    "Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient Sparsity": "2101.03961",
}
SCORES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": partial(torch.softmax, dim=-1), "sigmoid": torch.sigmoid}


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
    gated: bool = True
    activation: str = "silu"
    scores: str = "softmax"
    scale: float = 1.0
    corrected: bool = False
    groups: int = 1
    reached: int = 1


class MoE(nn.Module):
    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        if not 1 <= config.active <= config.experts:
            raise ValueError(f"moe needs 1 <= active <= experts; got {config.active} of {config.experts}")
        if config.shared_gate and not config.shared:
            raise ValueError("moe needs a shared expert for its shared_gate; got shared=0")
        if config.scores not in SCORES:
            raise ValueError(f"moe needs scores of {sorted(SCORES)}; got {config.scores!r}")
        size = config.experts // config.groups
        if config.groups > 1 and (
            config.experts % config.groups or size < 2 or not config.active <= size * config.reached <= config.experts
        ):
            required = f"groups of two or more of its {config.experts} experts, those reached with {config.active}"
            raise ValueError(f"moe needs {required}; got {config.groups} groups, {config.reached} reached")
        hidden = config.hidden or 8 * max(1, round(config.expand * d_model / 8))
        self.config, self.activation, parts = config, activation(config.activation), 1 + config.gated
        self.router = linear(d_model, config.experts)
        self.correction = parameter(torch.zeros(config.experts)) if config.corrected else None
        self.up = nn.ModuleList(linear(d_model, parts * hidden) for _ in range(config.experts))
        self.out = nn.ModuleList(linear(hidden, d_model) for _ in range(config.experts))
        if config.shared:
            self.up.append(linear(d_model, parts * config.shared))
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
                p = SCORES[self.config.scores](self.router(x[b, t]))
                best = self._wanted(p[None])[0].argsort(descending=True)[: self.config.active]
                total = (p[best].sum() if self.config.rescaled else 1.0) / self.config.scale
                y[b, t] = sum(p[e] / total * self._expert(int(e), x[b, t]) for e in best)
                if self.config.shared:
                    y[b, t] += self._shared(x[b, t])
        return y

    def _route(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and expert indices, each (tokens, active)."""
        config, p = self.config, SCORES[self.config.scores](widen(self.router(flat)))
        chosen = self._wanted(p.detach()).topk(config.active).indices
        share = torch.zeros_like(p).scatter(1, chosen, 1.0).mean(0) / config.active
        best = Balanced.apply(p, share, config.balance).gather(1, chosen)
        best = best / best.sum(-1, keepdim=True) if config.rescaled else best
        return best if config.scale == 1 else best * config.scale, chosen

    def _wanted(self, p: Tensor) -> Tensor:
        """By what the best experts are chosen: p with the correction, minus infinity in groups that are not reached."""
        groups, wanted = self.config.groups, p if self.correction is None else p + self.correction.detach()
        if groups == 1:
            return wanted
        split = wanted.unflatten(-1, (groups, -1))
        reached = split.topk(2).values.sum(-1).topk(self.config.reached).indices
        outside = torch.ones(split.shape[:2], dtype=torch.bool, device=p.device).scatter(1, reached, False)
        return split.masked_fill(outside[..., None], -torch.inf).flatten(1)

    def _shared(self, x: Tensor) -> Tensor:
        y = self._expert(self.config.experts, x)
        return y if self.shared_gate is None else self.shared_gate(x).sigmoid() * y

    def _expert(self, e: int, x: Tensor) -> Tensor:
        made = self.up[e](x)
        if not self.config.gated:
            return self.out[e](self.activation(made))
        gate, value = made.chunk(2, dim=-1)
        return self.out[e](self.activation(gate) * value)
