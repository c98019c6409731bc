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
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from runnel.lineage import Lineage
from runnel.mixer import Mixer, RMSNorm, grouped_heads, linear
from runnel.ops import attend as ops
from runnel.ops.outer import outer_scan
from runnel.ops.rope import rope, scaling

PAPERS = {"Liger: Linearizing Large Language Models to Gated Recurrent Structures": "2503.01496"}
GATE = 16.0


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    window: int = 64
    rope_base: float = 10_000.0
    rope: dict[str, Any] | None = None
    rotated: int | None = None
    qk_norm: bool = False
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    bias: bool = False
    out_bias: bool = False

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"liger needs window >= 1; got {self.window}")


class State(NamedTuple):
    seen: ops.KeyValues
    memory: Tensor  # (B, H, K, K)


class Liger(Mixer):
    variants = (
        {"heads": 4, "head_dim": 2, "kv_heads": 2, "window": 3},
        {"window": 2, "qk_norm": True, "bias": True, "out_bias": True, "rotated": 2, "norm_offset": 1.0},
    )

    def __init__(self, d_model: int, config: Config) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("liger", d_model, config.heads, config.head_dim, config.kv_heads)
        self.config, self.heads, self.groups, self.width = config, heads, groups, width
        self.scaling = None if config.rope is None else scaling(config.rope)
        self.qkv = linear(d_model, (heads + 2 * groups) * width, config.bias)
        norm = (width, config.norm_eps, config.norm_offset)
        self.q_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.k_norm = RMSNorm(*norm) if config.qk_norm else nn.Identity()
        self.out = linear(heads * width, d_model, config.out_bias)

    def init_state(self, batch_size: int) -> State:
        seen = ops.KeyValues.empty(batch_size, self.groups, self.width, self.out.weight)
        return State(seen, self.zeros(batch_size, self.heads, self.width, self.width))

    def forward(
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage
    ) -> tuple[Float[Tensor, "B T D"], State]:
        q, k, v = self._project(x)
        near, seen = ops.attend(*self._turned(q, k, lineage.positions), v, state.seen, lineage, self.config.window)
        o, memory = outer_scan(*self._recurrence(q, k, v), state.memory, lineage)
        return self._output(o, near), State(seen, memory)

    def reference(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        q, k, v = self._project(x)
        near = ops.reference(*self._turned(q, k, torch.arange(x.shape[1])[None]), v, self.config.window)
        q, k, v, log_decay = self._recurrence(q, k, v)
        s, outputs = x.new_zeros(()), []
        for t in range(x.shape[1]):
            s = log_decay[:, t].exp()[..., None] * s + k[:, t, :, :, None] * v[:, t, :, None, :]
            outputs.append((q[:, t, :, :, None] * s).sum(-2))
        return self._output(torch.stack(outputs, dim=1), near)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sizes = (self.heads, self.groups, self.groups)
        q, k, v = self.qkv(x).unflatten(-1, (-1, self.width)).split(sizes, dim=-2)  # (B, T, H or G, K)
        return self.q_norm(q), self.k_norm(k), v

    def _turned(self, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        base, part = self.config.rope_base, self.config.rotated
        return rope(q, positions, base, self.scaling, part), rope(k, positions, base, self.scaling, part)

    def _recurrence(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features of q and k, values and log-decays, each (B, T, H, K)."""
        k, v = [y.repeat_interleave(self.heads // self.groups, dim=-2) for y in (k, v)]
        return q.softmax(-1), k.softmax(-1), v, logsigmoid(k) / GATE

    def _output(self, o: Tensor, near: Tensor) -> Tensor:
        return self.out((0.5 * (o + near)).flatten(-2).to(self.out.weight.dtype))
