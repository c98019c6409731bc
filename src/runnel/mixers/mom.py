"""Mixture of memories: several matrix memories, of which every token writes to and reads from only a few.

Paper: "MoM: Linear Sequence Modeling with Mixture-of-Memories" (2025, 2502.13685), over the gated delta rule, the
update with which the paper's main results are made.

    s_t = softmax(W_g x_t);   the k largest are the token's memories, g_t their scores made to sum to one  (1)
    k^m, v^m = W_k^m x_t, W_v^m x_t and its rates beta^m, a^m, for every memory m    (2)
    M^m_t = gated delta rule (M^m_p; k^m, v^m, beta^m, a^m)   for the token's memories;  M^m_p for the others  (3)
    o_t = sum over its memories of g^m_t (M^m_t)^T q_t, plus a shared memory that every token uses  (4)
    y_t = W_o (RMSNorm(o_t) * silu(W_z x_t))                                         (5)

| code | paper |
|---|---|
| memories, active | M = 4 and k = 2 |
| memory (B, (M+1) H, K, K) | the memories side by side, like heads; the shared one is the last |

A memory that a token does not use is left as it is: write nothing (beta = 0), forget nothing (a = 1). That is the
paper's packing of every memory's tokens into a sequence of its own, computed in place, at the cost of all memories.
Deviates: the short convolution reads the text, not the tokens of one memory; no balancing loss (the trainer's matter).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, silu, softplus

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, head_width, linear, log_uniform_inverse_softplus, parameter
from runnel.ops import conv
from runnel.ops.delta import delta_scan

PAPERS = {"MoM: Linear Sequence Modeling with Mixture-of-Memories": "2502.13685"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    memories: int = 4
    active: int = 2
    conv: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.active <= self.memories:
            raise ValueError(f"mom needs 1 <= active <= memories; got {self.active} of {self.memories}")


class State(NamedTuple):
    tail: Tensor  # (B, W-1, D)
    memory: Tensor  # (B, (M+1) H, K, K)


class MixtureOfMemories(Mixer):
    variants = ({"memories": 1, "active": 1}, {"head_dim": 4, "memories": 3, "active": 1})

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width, self.active = head_width(d_model, config.head_dim), config.active
        self.heads, self.count = d_model // self.width, config.memories + 1
        self.conv_weight = parameter(conv.initial_filters(d_model, config.conv))
        self.router = linear(d_model, config.memories)
        self.q, self.gate = linear(d_model, d_model), linear(d_model, d_model)
        self.kv = linear(d_model, self.count * 2 * d_model)
        self.rates = linear(d_model, self.count * 2 * self.heads)  # to softplus of the decay, and to beta
        self.decay_bias = parameter(log_uniform_inverse_softplus(self.heads, 1e-3, 1e-1))
        self.log_a = parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.norm = RMSNorm(self.width)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        d_model, width = self.conv_weight.shape
        memory = self.zeros(batch_size, self.count * self.heads, self.width, self.width)
        return State(self.zeros(batch_size, width - 1, d_model), memory)

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        smooth, tail = conv.causal_conv(x, self.conv_weight, None, state.tail, lineage)
        shares = self._route(x)
        q, k, v, beta, log_decay = self._project(x, smooth)
        used = shares > 0
        beta, log_decay = torch.where(used, beta, 0), torch.where(used, log_decay, 0)
        q, k, v, beta, log_decay = [z.flatten(2, 3) for z in (q.expand_as(k), k, v, beta, log_decay)]
        y, memory = delta_scan(q, k, v, beta, log_decay, state.memory, lineage)
        return self._output(y.unflatten(2, (self.count, self.heads)), shares, x), State(tail, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        zero = self.init_state(x.shape[0])
        smooth, _ = conv.reference(x, self.conv_weight, None, zero.tail)
        shares = self._route(x)
        q, k, v, beta, log_decay = self._project(x, smooth)
        s = list(zero.memory.unflatten(1, (self.count, self.heads)).unbind(1))
        outputs = []
        for t in range(x.shape[1]):
            for m in range(self.count):
                key, b = k[:, t, m, :, :, None], beta[:, t, m, :, None, None]
                kept = log_decay[:, t, m].exp()[..., None, None] * s[m]
                new = kept + b * key @ (v[:, t, m, :, None, :] - key.mT @ kept)
                s[m] = torch.where(shares[:, t, m, :, None, None] > 0, new, s[m])
            outputs.append(torch.stack([(q[:, t, 0, :, None, :] @ memory)[..., 0, :] for memory in s], dim=1))
        return self._output(torch.stack(outputs, dim=1), shares, x)

    def _route(self, x: Tensor) -> Tensor:
        """(B, T, M+1, 1): what each memory counts for; zero for those that the token does not use."""
        best, chosen = self.router(x).softmax(-1).topk(self.active, dim=-1)
        shares = torch.zeros_like(self.router(x)).scatter(-1, chosen, best / best.sum(-1, keepdim=True))
        return torch.cat([shares, torch.ones_like(shares[..., :1])], dim=-1)[..., None]

    def _project(self, x: Tensor, smooth: Tensor) -> tuple[Tensor, ...]:
        """q (B, T, 1, H, K), k, v (B, T, M+1, H, K), beta and log a (B, T, M+1, H)."""
        k, v = silu(self.kv(smooth)).unflatten(-1, (self.count, 2, self.heads, self.width)).unbind(-3)
        q = silu(self.q(smooth)).unflatten(-1, (1, self.heads, self.width))
        decay, beta = self.rates(x).unflatten(-1, (self.count, 2, self.heads)).unbind(-2)
        log_decay = -self.log_a.exp() * softplus(decay + self.decay_bias)
        return normalize(q, dim=-1) * self.width**-0.5, normalize(k, dim=-1), v, beta.sigmoid(), log_decay

    def _output(self, y: Tensor, shares: Tensor, x: Tensor) -> Tensor:
        """y (B, T, M+1, H, K): what every memory answers."""
        return self.out(self.norm((shares[..., None] * y).sum(2)).flatten(-2) * silu(self.gate(x)))
