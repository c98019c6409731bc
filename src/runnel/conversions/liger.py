"""Attention becomes Liger: the same weights, read as a gated recurrence beside a window of attention.

Paper: "Liger: Linearizing Large Language Models to Gated Recurrent Structures" (2025, 2503.01496).

    every weight of the layer = the attention's of the same name;   gates = pool(W_K x_t), no weight of their own

What is computed is on the page of the mixer. Deviates: the paper tunes low-rank additions to the projections (LoRA);
here the projections of the converted layers themselves are trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import sigmoid

from runnel.conversions import Conversion, same, shapes
from runnel.mixers import liger
from runnel.mixers.attention import Attention
from runnel.patterns import Part

PAPERS = {"Liger: Linearizing Large Language Models to Gated Recurrent Structures": "2503.01496"}


@dataclass(frozen=True)
class Config:
    """window: of the attention that stays inside the layer."""

    window: int = 64


class ToLiger(Conversion):
    carries = ("bias", "out_bias")
    config: Config

    def part(self, attention: Attention) -> Part:
        return Part("liger", {**shapes(attention), "window": self.config.window, **same(attention, liger.Config)})

    def transfer(self, attention: Attention, made: liger.Liger) -> None:
        made.load_state_dict(attention.state_dict())


def reference(attention: Attention, made: liger.Liger, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The recurrence token by token from the attention's weights, beside the attention itself within the window.

    For texts no longer than the window, and attention without norms of queries and keys.
    """
    sizes = (attention.heads, attention.groups, attention.groups)
    q, k, v = attention.qkv(u).unflatten(-1, (-1, attention.width)).split(sizes, dim=-2)
    s, outputs = u.new_zeros(()), []
    for t in range(u.shape[1]):
        heads = []
        for h in range(attention.heads):
            g = h // (attention.heads // attention.groups)
            heads.append((q[:, t, h].softmax(-1), k[:, t, g].softmax(-1), v[:, t, g], sigmoid(k[:, t, g]) ** (1 / 16)))
        read, key, value, a = [torch.stack(parts, dim=1) for parts in zip(*heads, strict=True)]
        s = a[..., None] * s + key[..., :, None] * value[..., None, :]
        outputs.append((read[..., None] * s).sum(-2))
    recurrent = attention.out(torch.stack(outputs, dim=1).flatten(-2))
    return 0.5 * (recurrent + attention.reference(u))
