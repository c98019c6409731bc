"""Attention becomes gated linear attention, whose gates are read off the keys.

Paper: "Liger: Linearizing Large Language Models to Gated Recurrent Structures" (2025, 2503.01496), its gates: the
pretrained key projection, pooled. Here they begin so and are then parameters like any others; where nothing is added to
the transformer's parameters, that is the mixer `liger`.

    q_t, k_t, v_t = W_Q u_t, W_K u_t, W_V u_t
    a_t = sigmoid(spread(pool(W_K) u_t))^(1/tau),  tau = 16
    S_t = Diag(a_t) S_p + k_t v_t^T,   y_t = W_O (silu(W_r u_t) * RMSNorm(S_t^T q_t))

| code | paper |
|---|---|
| rank | neighbouring rows of W_K are averaged to so many: the width of GLA's two-stage gate |

pool averages equal runs of neighbouring key channels, spread repeats each mean over its run: both are linear, so that
they are exactly the two matrices of GLA's gate. W_r is new.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, silu

from runnel.conversions import Conversion, Projections
from runnel.mixers.attention import Attention
from runnel.mixers.gla import GatedLinearAttention
from runnel.patterns import Part

PAPERS = {"Liger: Linearizing Large Language Models to Gated Recurrent Structures": "2503.01496"}


@dataclass(frozen=True)
class Config:
    """rank: of the gate, a divisor of the width of all keys; None: the largest one up to 64."""

    rank: int | None = None


class ToGLA(Conversion):
    config: Config

    def part(self, attention: Attention) -> Part:
        keys, d_model = attention.heads * attention.width, attention.out.out_features
        if keys != d_model:
            raise ValueError(
                f"gla needs heads * head_dim = d_model; got {attention.heads} * {attention.width} and {d_model}"
            )
        rank = max(r for r in range(1, min(64, keys) + 1) if keys % r == 0)
        rank = self.config.rank or rank
        if keys % rank:
            raise ValueError(f"rank must divide the {keys} channels of the keys; got {rank}")
        return Part("gla", {"head_dim": attention.width, "expand_k": 1.0, "gate_rank": rank})

    def transfer(self, attention: Attention, made: GatedLinearAttention) -> None:
        q, k, v, out = Projections.of(attention)
        made.qk.weight.copy_(torch.cat([q.flatten(0, 1), k.flatten(0, 1)]))
        made.v.weight.copy_(v.flatten(0, 1))
        narrow, wide = gate_of(made)
        run = wide.out_features // wide.in_features
        narrow.weight.copy_(k.flatten(0, 1).unflatten(0, (-1, run)).mean(1))
        wide.weight.copy_(torch.eye(wide.in_features).repeat_interleave(run, dim=0))
        wide.bias.zero_()
        made.out.weight.copy_(out)


def gate_of(made: GatedLinearAttention) -> tuple[nn.Linear, nn.Linear]:
    narrow, wide = made.gate
    assert isinstance(narrow, nn.Linear) and isinstance(wide, nn.Linear)
    return narrow, wide


def reference(attention: Attention, made: GatedLinearAttention, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The loop above on the attention's own projections; W_r is the mixer's."""
    p = Projections.of(attention)
    q, k, v = [torch.einsum("btd,hkd->bthk", u, w) for w in (p.q, p.k, p.v)]
    flat = k.flatten(-2)
    run = flat.shape[-1] // gate_of(made)[0].out_features
    pooled = flat.unflatten(-1, (-1, run)).mean(-1, keepdim=True).expand(*flat.shape[:-1], -1, run).flatten(-2)
    a = (logsigmoid(pooled) / made.temperature).exp().view_as(k)
    s, outputs = u.new_zeros(()), []
    for t in range(u.shape[1]):
        s = a[:, t, :, :, None] * s + k[:, t, :, :, None] * v[:, t, :, None, :]
        outputs.append((q[:, t, :, :, None] * attention.width**-0.5 * s).sum(-2))
    return (made.norm(torch.stack(outputs, dim=1)).flatten(-2) * silu(made.r(u))) @ p.out.mT
