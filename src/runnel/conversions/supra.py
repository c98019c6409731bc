"""Attention becomes linear attention with a learned feature map, a decay and a norm: SUPRA.

Paper: "Linearizing Large Language Models" (2024, 2405.06640), section 3.

    W_Q, W_K, W_V, W_O and the rotation = the attention's;   phi = relu(W x + b) begins with W = 1, b = 0

What is computed is on the page of the mixer. A norm of queries and keys ends; its learned scale goes into the
projections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm

from runnel.conversions import Conversion, Projections, same, shapes
from runnel.mixers import supra
from runnel.mixers.attention import Attention
from runnel.ops.rope import rope
from runnel.patterns import Part

PAPERS = {"Linearizing Large Language Models": "2405.06640"}


@dataclass(frozen=True)
class Config:
    pass


class ToSupra(Conversion):
    config: Config

    def part(self, attention: Attention) -> Part:
        return Part("supra", {**shapes(attention), **same(attention, supra.Config)})

    def transfer(self, attention: Attention, made: supra.Supra) -> None:
        q, k, v, out = Projections.of(attention)
        once = slice(None, None, attention.heads // attention.groups)
        made.qkv.weight.copy_(torch.cat([x.flatten(0, 1) for x in (q, k[once], v[once])]))
        made.out.weight.copy_(out)


def reference(attention: Attention, made: supra.Supra, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The paper's layer with phi = relu, as a sum over the past of every token."""
    p, positions = Projections.of(attention), torch.arange(u.shape[1])
    turning = (attention.config.rope_base, attention.scaling, attention.config.rotated)
    q, k = [rope(torch.einsum("btd,hkd->bthk", u, w).relu(), positions[None], *turning) for w in (p.q, p.k)]
    v = torch.einsum("btd,hkd->bthk", u, p.v)
    slope = 2 ** (-8 * torch.arange(1, attention.heads + 1, dtype=u.dtype) / attention.heads)
    ages = (positions[:, None] - positions).to(u.dtype)
    decay = (-slope[:, None, None] * ages).exp() * (ages >= 0)  # (H, T, T)
    weights = torch.einsum("bthk,bshk->bhts", q, k) * attention.width**-0.5 * decay
    o = torch.einsum("bhts,bshk->bthk", weights, v)
    return layer_norm(o, o.shape[-1:]).flatten(-2) @ p.out.mT
