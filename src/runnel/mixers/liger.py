"""Liger: a gated recurrence that has no parameter which attention does not have; its gates are read off the keys.

Paper: "Liger: Linearizing Large Language Models to Gated Recurrent Structures" (2025, 2503.01496), with the recurrence
of gated linear attention.

    q_t, k_t, v_t = W x_t, as in attention;   a_t = sigmoid(pool(k_t))^(1/tau),  tau = 16
    S_t = Diag(a_t) S_p + softmax(k_t) v_t^T,   o_t = S_t^T softmax(q_t)
    y_t = W_o ((1/2) o_t + (1/2) attention within the last `window` tokens)

| code | paper |
|---|---|
| memory (B, H, K, K) | S |
| window | of the sliding-window attention inside the layer, 64 |
| GATE | tau |

The softmax over the channels of a head is the feature map. pool is the identity, as in the authors' code, where gates
are as wide as keys. The window's queries and keys are rotated, the recurrence's are not. The other options are those of
attention, and so are the names of the weights: a layer of the one can be read as one of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from runnel.lineage import Lineage
from runnel.mixer import linear
from runnel.mixers import AttentionConfig, AttentionWeights
from runnel.ops import attend as ops
from runnel.ops.outer import outer_scan

PAPERS = {"Liger: Linearizing Large Language Models to Gated Recurrent Structures": "2503.01496"}
GATE = 16.0


@dataclass(frozen=True, kw_only=True)
class Config(AttentionConfig):
    window: int = 64

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"liger needs window >= 1; got {self.window}")


class State(NamedTuple):
    seen: ops.KeyValues
    memory: Tensor  # (B, H, K, K)


class Liger(AttentionWeights):
    variants = (
        {"heads": 4, "head_dim": 2, "kv_heads": 2, "window": 3},
        {"window": 2, "qk_norm": True, "bias": True, "out_bias": True, "rotated": 2, "norm_offset": 1.0},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__(d_model, config)
        self.config = config
        self.out = linear(self.heads * self.width, d_model, config.out_bias)

    def init_state(self, batch_size: int) -> State:
        seen = ops.KeyValues.empty(batch_size, self.groups, self.width, self.out.weight)
        return State(seen, self.zeros(batch_size, self.heads, self.width, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._heads_of(x)
        near, seen = ops.attend(*self._turned(q, k, lineage.positions), v, state.seen, lineage, self.config.window)
        o, memory = outer_scan(*self._recurrence(q, k, v), state.memory, lineage)
        return self._output(o, near), State(seen, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._heads_of(x)
        near = ops.reference(*self._turned(q, k, torch.arange(x.shape[1])[None]), v, self.config.window)
        q, k, v, log_decay = self._recurrence(q, k, v)
        s, outputs = x.new_zeros(()), []
        for t in range(x.shape[1]):
            s = log_decay[:, t].exp()[..., None] * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), near)

    def _turned(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self._rotated(q, positions), self._rotated(k, positions)

    def _recurrence(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of q and k, values and log-decays, each (B, T, H, K)."""
        k, v = self._for_all(k), self._for_all(v)
        return q.softmax(-1), k.softmax(-1), v, logsigmoid(k) / GATE

    def _output(self, o: Tensor, near: Tensor) -> Tensor:
        return self.out((0.5 * (o + near)).flatten(-2).to(self.out.weight.dtype))
