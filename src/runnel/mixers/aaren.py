"""Aaren: softmax attention with one learned query per head, so that attention is a recurrent network of constant size.

Paper: "Attention as an RNN" (2024, 2405.13956).

    s_t = q . k_t / sqrt(K),  q learned, the same at every token                     (1)
    m_t = max(m_p, s_t)                                                              (2)
    u_t = u_p exp(m_p - m_t) + exp(s_t - m_t)                                        (3)
    w_t = w_p exp(m_p - m_t) + v_t exp(s_t - m_t)                                    (4)
    y_t = W_o (w_t / u_t)                                                            (5)

| code | paper |
|---|---|
| level | m and u, one of each per head |
| numerator (B, H, V) | w |

The paper scans (m, u, w) with one associative operator; here the maximum is scanned first, and u and w are linear scans
given it. Deviates: the projections of the query token are folded into the learned query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.mixer import Mixer, head_width, linear, parameter
from runnel.ops.scan import diagonal_scan
from runnel.ops.stable import Level, weigh

PAPERS = {"Attention as an RNN": "2405.13956"}


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None


class State(NamedTuple):
    level: Level  # both (B, H)
    numerator: Tensor  # (B, H, V)


class Aaren(Mixer):
    variants = ({"head_dim": 2},)

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        self.width = head_width(d_model, config.head_dim)
        self.heads = d_model // self.width
        self.query = parameter(torch.randn(self.heads, self.width))
        self.kv = linear(d_model, 2 * d_model)
        self.out = linear(d_model, d_model)

    def init_state(self, batch_size: int) -> State:
        level = Level(*[self.zeros(batch_size, self.heads) for _ in Level._fields])
        return State(level, self.zeros(batch_size, self.heads, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        scores, v = self._project(x)
        head, level = weigh(scores, torch.zeros_like(scores), state.level, lineage)
        write, keep, total = [z[..., None] for z in (head.write, head.log_keep.exp(), head.total)]
        w, numerator = diagonal_scan(keep.expand_as(v), write * v, state.numerator, lineage)
        return self.out((w / total).to(x.dtype).flatten(-2)), State(level, numerator)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        scores, v = self._project(x)
        outputs = []
        for t in range(x.shape[1]):
            weights = scores[:, : t + 1].softmax(1)[..., None]  # (B, t+1, H, 1)
            outputs.append((weights * v[:, : t + 1]).sum(1))
        return self.out(torch.stack(outputs, dim=1).flatten(-2))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The scores s (B, T, H) and the values (B, T, H, V)."""
        k, v = self.kv(x).unflatten(-1, (2, self.heads, self.width)).unbind(-3)
        return (k * self.query).sum(-1) * self.width**-0.5, v
