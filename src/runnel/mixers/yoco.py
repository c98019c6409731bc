"""YOCO's cross-decoder: attention of many layers over the keys and values of one, which alone are remembered.

Paper: "You Only Cache Once: Decoder-Decoder Architectures for Language Models" (2024, 2405.05254), section 2.

    K, V = W_K x, W_V x   of the input of the first such layer: once for all         (eq. 2)
    q_t = W_Q^l x_t in every layer l, q and K rotated by their position              (eq. 3)
    y_t = W_O^l sum over j <= t of softmax_j(q_t . k_j / sqrt(K)) v_j                (eq. 3)

A pattern is a decoder-decoder when its upper half is of these layers and its lower half of others, whose state does not
grow: `"(attention(window=1024)*12, yoco*12)"`, or `"(retnet*12, yoco*12)"`. The first of them gives the link
`keys_values` and has the memory; the others take it, and have none: the state of the whole upper half is that of one
layer of attention.

| code | paper |
|---|---|
| kv_heads | number of key and value heads; each serves heads / kv_heads query heads |

Deviates: K and V are made of the first layer's normalised input, not of a norm of their own (a gain on either is a part
of W_K and W_V). That a prompt need not go through the upper half is not made use of.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from runnel.lineage import Lineage
from runnel.links import Linked, Links, Wiring
from runnel.mixer import grouped_heads, linear
from runnel.ops import attend as ops
from runnel.ops.rope import rope
from runnel.state import Memory

PAPERS = {"You Only Cache Once: Decoder-Decoder Architectures for Language Models": "2405.05254"}
KEYS_VALUES = "keys_values"


@dataclass(frozen=True)
class Config:
    heads: int | None = None
    head_dim: int | None = None
    kv_heads: int | None = None
    rope_base: float = 10_000.0


class Yoco(Linked):
    variants = ({"kv_heads": 1, "heads": 2, "head_dim": 4},)
    places = ("{}", "{}*3")

    def __init__(self, d_model: int, config: Config, wiring: Wiring) -> None:
        super().__init__()
        heads, groups, width = grouped_heads("yoco", d_model, config.heads, config.head_dim, config.kv_heads)
        wiring.agree(KEYS_VALUES, {"kv_heads": groups, "head_dim": width})
        self.config, self.groups, self.width = config, groups, width
        self.q = linear(d_model, heads * width)
        if KEYS_VALUES in wiring.given:
            self.takes = (KEYS_VALUES,)
        else:
            self.gives = {KEYS_VALUES: None}
            self.kv = linear(d_model, 2 * groups * width)
        self.out = linear(heads * width, d_model)

    def init_state(self, batch_size: int) -> Memory:
        return () if self.takes else ops.KeyValues.empty(batch_size, self.groups, self.width, self.out.weight)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B T D"], state: Memory, lineage: Lineage, links: Links
    ) -> tuple[Float[Tensor, "B T D"], Memory, Links]:
        q, (k, v, memory) = self._queries(x, lineage.positions), self._keys_values(x, state, lineage.positions, links)
        y, after = ops.attend(q, k, v, memory, lineage)
        y = self.out(y.flatten(-2))
        return (y, (), {}) if self.takes else (y, after, {KEYS_VALUES: (k, v, memory)})

    def reference(self, x: Float[Tensor, "B T D"], links: Links) -> Float[Tensor, "B T D"]:  # type: ignore[override]
        positions = torch.arange(x.shape[1])[None]
        k, v, _ = self._keys_values(x, (), positions, links)
        return self.out(ops.reference(self._queries(x, positions), k, v).flatten(-2))

    def _queries(self, x: Tensor, positions: Tensor) -> Tensor:
        return rope(self.q(x).unflatten(-1, (-1, self.width)), positions, self.config.rope_base)

    def _keys_values(self, x: Tensor, state: Memory, positions: Tensor, links: Links) -> Memory:
        """Keys and values (B, T, G, K) of the tokens, and the memory of those before."""
        if self.takes:
            return links[KEYS_VALUES]
        k, v = self.kv(x).unflatten(-1, (-1, self.width)).chunk(2, dim=-2)
        return rope(k, positions, self.config.rope_base), v, state
