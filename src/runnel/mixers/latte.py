"""Latte: attention through a few latent vectors, with a constant state and softmax weights on both sides.

Paper: "Latent Attention for Linear Time Transformers" (2024, 2402.17512), the causal form.

    p(l | t) = softmax_l(W_q x_t),   p(s | l, t) = exp(k_sl) / sum_{j <= t} exp(k_jl),  k_s = W_k x_s  (1)
    y_t = sum_l p(l | t) sum_{s <= t} p(s | l, t) v_s                                (2)
    stable form: running maximum, sum of weights and weighted sum of values of every latent

| code | paper |
|---|---|
| latents | L / H, latents of a head |
| level, memory | the running maxima and normalisers; the value sums relative to them |

The two distributions multiply to attention weights that sum to one. Deviates: an output projection follows the heads,
as for the other mixers here. The layer has no order of its own (a sum over the past); the paper adds positions to
the input, here other layers of the pattern bring them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear
from runnel.ops.outer import outer_scan
from runnel.ops.stable import Level, weigh

PAPERS = {"Latent Attention for Linear Time Transformers": "2402.17512"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    latents: int = 32

    def __post_init__(self) -> None:
        if self.latents < 1:
            raise ValueError(f"latte needs latents >= 1; got {self.latents}")


class State(NamedTuple):
    level: Level  # both (B, H, L)
    memory: Tensor  # (B, H, L, V)


class Latte(Mixer):
    variants = ({"head_dim": 4, "latents": 3},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads, self.latents = d_model // self.width, config.latents
        self.qk = linear(d_model, 2 * self.heads * self.latents)
        self.v = linear(d_model, d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, self.heads, self.latents) for _ in Level._fields])
        return State(level, self.zeros(batch_size, self.heads, self.latents, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        p, k, v = self._project(x)
        latent, level = weigh(k, torch.zeros_like(k), state.level, lineage)
        y, memory = outer_scan(p / latent.total, latent.write, v, latent.log_keep, state.memory, lineage)
        return self.out(y.to(x.dtype).flatten(-2)), State(level, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        p, k, v = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            of_token = k[:, : t + 1].softmax(1)  # p(s | l, t): (B, t+1, H, L)
            weights = (p[:, t, None] * of_token).sum(-1, keepdim=True)
            outputs.append((weights * v[:, : t + 1]).sum(1))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(l | t) and the logits k (B, T, H, L), v (B, T, H, V)."""
        q, k = self.qk(x).unflatten(-1, (2, self.heads, self.latents)).unbind(-3)
        return q.softmax(-1), k, self.v(x).unflatten(-1, (self.heads, self.width))
