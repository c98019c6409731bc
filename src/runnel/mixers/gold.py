"""GOLD, the attention of GoldFinch: its layers rebuild keys and values from one small key and the token itself.

Paper: "GoldFinch: High Performance RWKV/Transformer Hybrid with Linear Pre-Fill and Extreme KV-Cache Compression"
(2024, 2407.12077). e_t is the RMS norm of the token's embedding, x_t the input of the first such layer.

    c_t = W_KD x_t,   k^D_t = rms(W_KU [e_t, c_t])       all that is kept is c_t and the token; TokenCat
    lerp_s(a; b) = a + (a_p - a) (mu_s + tanh((b + (b_p - b) mu) A_s) B_s),   adapt_s(a) = a + tanh(a C_s) D_s
    q_t = LN(W_Q lerp_q(x_t; x_t)),   x_t now that of the layer
    k_t = LN(adapt_k(lerp_k(k^D_t; e_t))),   v_t = LN(adapt_v(lerp_v(e_t; e_t)))
    y_t = W_O LN(softmax attention of q_t to all k_j, v_j with j <= t)

The first layer gives the link `gold`, and has the memory of all: D / compression numbers and the token, for each token.

| code | paper |
|---|---|
| down, up; compression | W_KD, W_KU; D over the width of c |
| shrink, widen; narrow, adapt | A, B of q, k and v, of width `rank`; C, D of k and v, of width `adapt_rank` |

Deviates: c is made of the layer's normalised input. That a prompt need not go through these layers is not made use of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad, rms_norm

from runnel.lineage import Lineage
from runnel.links import TOKENS, Linked, Links, Wiring
from runnel.mixer import head_width, linear, parameter
from runnel.ops import attend as ops
from runnel.ops import conv
from runnel.state import Memory

TITLE = "GoldFinch: High Performance RWKV/Transformer Hybrid with Linear Pre-Fill and Extreme KV-Cache Compression"
PAPERS = {TITLE: "2407.12077"}
GOLD = "gold"


@dataclass(frozen=True)
class Config:
    head_dim: int | None = None
    compression: int = 16
    rank: int = 32
    adapt_rank: int = 64

    def __post_init__(self) -> None:
        if min(self.compression, self.rank, self.adapt_rank) < 1:
            raise ValueError(f"gold needs compression, rank and adapt_rank >= 1; got {self}")


class State(NamedTuple):
    tail: Tensor  # (B, 1, D)
    memory: Memory  # of the first layer: c (B, S, 1, C), tokens (B, S, 1, 1) and positions (B, S); () of the others


class Cache(NamedTuple):
    """k^D and e side by side (B, S + T, 2 D), in memory and of the call; those of tokens before; positions (B, S)."""

    own: Tensor
    before: Tensor
    positions: Tensor


class Gold(Linked):
    places = ("{}", "{}*2")

    def __init__(self, d_model: int, config: Config, wiring: Wiring) -> None:
        super().__init__()
        self.inner, self.width = d_model, head_width(d_model, config.head_dim)
        self.takes, self.gives = ((GOLD,), {}) if GOLD in wiring.given else ((TOKENS,), {GOLD: None})
        if self.gives:
            self.small = max(1, d_model // config.compression)
            self.down, self.up = linear(d_model, self.small), linear(d_model + self.small, d_model)
        ramp = torch.arange(d_model) / d_model
        self.mu_x, self.mu = [parameter(ramp.repeat(count, 1)) for count in (2, 3)]  # for q, k and v; of q, k, v
        low = ((3, config.rank), (2, config.adapt_rank))
        self.shrink, self.narrow = [parameter(torch.zeros(n, d_model, rank)) for n, rank in low]
        self.widen, self.adapt = [parameter(torch.empty(n, rank, d_model).uniform_(-0.01, 0.01)) for n, rank in low]
        self.q, self.out = linear(d_model, d_model), linear(d_model, d_model)
        self.q_norm, self.k_norm, self.v_norm, self.norm = [nn.LayerNorm(d_model) for _ in range(4)]

    def init_state(self, batch_size: int) -> State:
        memory: Memory = ()
        if self.gives:
            empty = ops.KeyValues.empty(batch_size, 1, self.small, self.out.weight)
            memory = empty._replace(v=empty.positions[..., None, None])
        return State(self.zeros(batch_size, 1, self.inner), memory)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: State, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], State, Links]:
        if lineage.part is not None:
            raise ValueError("gold rebuilds keys from tokens of the whole row, which cannot be cut into slices")
        before, tail = conv.shift(x, state.tail, lineage)
        cache, after = (links[GOLD], ()) if not self.gives else self._remember(x, state.memory, links, lineage)
        held, (k, v) = cache.positions.shape[1], self._keys_values(cache)
        memory = ops.KeyValues(k[:, :held], v[:, :held], cache.positions)
        y, _ = ops.attend(self._queries(x, before), k[:, held:], v[:, held:], memory, lineage)
        return self._output(y), State(tail, after), {GOLD: cache} if self.gives else {}

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        q = self._queries(x, pad(x[:, :-1], (0, 0, 1, 0)))
        if not self.gives:
            return self._output(ops.reference(q, *self._keys_values(links[GOLD])))
        ids, table = links[TOKENS]
        own = [self._rebuilt(self.down(x[:, t]), ids[:, t, 0], table) for t in range(x.shape[1])]
        before = [torch.zeros_like(own[0]), *own[:-1]]
        cache = Cache(torch.stack(own, dim=1), torch.stack(before, dim=1), ids[:, :0, 0])
        return self._output(ops.reference(q, *self._keys_values(cache)))

    def _remember(self, x: Tensor, memory: ops.KeyValues, links: Links, lineage: Lineage) -> tuple[Cache, Memory]:
        """What all layers read, and the memory after the call."""
        (ids, table), c = links[TOKENS], self.down(x)
        old = self._rebuilt(memory.k[:, :, 0], memory.v[:, :, 0, 0], table)
        old, new = old * (memory.positions >= 0)[..., None], self._rebuilt(c, ids[..., 0], table)
        later = pad(old, (0, 0, 1, 0))  # zero before the first
        before = torch.cat([later[:, :-1], conv.shift(new, later[:, -1:], lineage)[0]], dim=1)
        after = ops.remember(c[:, :, None], ids[:, :, None], memory, lineage)
        return Cache(torch.cat([old, new], dim=1), before, memory.positions), after

    def _rebuilt(self, c: Float[Tensor, "*B C"], ids: Int[Tensor, "*B"], table: Tensor) -> Float[Tensor, "*B E"]:
        """k^D and e."""
        e = rms_norm(table[ids], table.shape[1:], eps=1e-6)
        key = self.up(torch.cat([e, c.to(e.dtype)], dim=-1))
        return torch.cat([rms_norm(key, table.shape[1:], eps=1e-6), e], dim=-1)

    def _weights(self, part: int, x: Tensor, before: Tensor) -> Tensor:
        """How much of the token before there is in q, k, v (part 0, 1, 2), read from x."""
        mixed = torch.lerp(x, before, self.mu_x[min(part, 1)].to(x.dtype))
        return self.mu[part] + (mixed @ self.shrink[part]).tanh() @ self.widen[part]

    def _queries(self, x: Tensor, before: Tensor) -> Float[Tensor, "B T H K"]:
        q = self.q(x + (before - x) * self._weights(0, x, before))
        return self.q_norm(q).unflatten(-1, (-1, self.width))

    def _keys_values(self, cache: Cache) -> tuple[Float[Tensor, "B S H K"], Float[Tensor, "B S H K"]]:
        own, before, made = cache.own.chunk(2, dim=-1), cache.before.chunk(2, dim=-1), []
        for part, norm in enumerate((self.k_norm, self.v_norm)):
            x = own[part] + (before[part] - own[part]) * self._weights(part + 1, own[1], before[1])
            x = x + (x @ self.narrow[part]).tanh() @ self.adapt[part]
            made.append(norm(x).unflatten(-1, (-1, self.width)))
        return made[0], made[1]

    def _output(self, y: Tensor) -> Tensor:
        return self.out(self.norm(y.flatten(-2)))
