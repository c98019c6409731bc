"""Attention becomes Mamba-2: values are its inputs, keys its B, queries its C, and one state is kept per head.

Paper: "The Mamba in the Llama: Distilling and Accelerating Hybrid Models" (2024, 2408.15237), section 2.2, algorithm 1.

    x_t = W_V u_t,  B_t = W_K u_t,  C_t = W_Q u_t,  out = W_O                        (algorithm 1, lines 4 to 6)
    h_t = a_t h_p + dt_t B_t x_t^T,   y_t = W_O (RMSNorm((C_t h_t + D x_t) * silu(z_t)))

| code | paper |
|---|---|
| groups, heads | both the number of query heads: keys and values of a group are repeated for its heads |
| z, dt, a, D | new parameters, not in the transformer |

Rotation and the softmax end; the norm after the recurrence, per head, stands for the softmax's denominator. Deviates:
the convolution over x, B and C begins as the identity (the authors leave it random), so that only the silu is between
the teacher's projections and the recurrence; D begins at 0, since attention has no skip. A bias of
the projections becomes that of the convolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import rms_norm, silu, softplus

from runnel.conversions import Conversion, Projections, open_filters, per_head
from runnel.mixers.attention import Attention
from runnel.mixers.mamba2 import Mamba2
from runnel.patterns import Part

PAPERS = {"The Mamba in the Llama: Distilling and Accelerating Hybrid Models": "2408.15237"}


@dataclass(frozen=True)
class Config:
    """conv: width of the convolution."""

    conv: int = 4

    def __post_init__(self) -> None:
        if self.conv < 1:
            raise ValueError(f"mamba2 needs conv >= 1; got {self.conv}")


class ToMamba2(Conversion):
    carries = ("bias", "out_scale")
    config: Config

    def part(self, attention: Attention) -> Part:
        heads, width = attention.heads, attention.width
        options = {"heads": heads, "head_dim": width, "d_state": width, "groups": heads, "norm_groups": heads}
        scale = attention.config.out_scale
        return Part("mamba2", {**options, "conv": self.config.conv, **({} if scale == 1 else {"out_scale": scale})})

    def transfer(self, attention: Attention, made: Mamba2) -> None:
        q, k, v, out = Projections.of(attention)
        made.input.weight[made.inner : made.inner + made.mixed] = torch.cat([x.flatten(0, 1) for x in (v, k, q)])
        open_filters(made.conv_weight)
        if attention.qkv.bias is not None:
            q, k, v = per_head(attention, attention.qkv.bias).split(attention.heads)
            made.conv_bias.copy_(torch.cat([v, k, q]).flatten())  # type: ignore[union-attr]
        made.skip.zero_()
        made.out.weight.copy_(out)


def reference(attention: Attention, made: Mamba2, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The paper's loop on the attention's own projections; z, dt and a are the mixer's."""
    p, bias = Projections.of(attention), attention.qkv.bias
    shifts = (0, 0, 0) if bias is None else per_head(attention, bias).split(attention.heads)
    c, b, x = [silu(torch.einsum("btd,hkd->bthk", u, w) + s) for w, s in zip((p.q, p.k, p.v), shifts, strict=True)]
    z, dt = made.input(u)[..., : made.inner], softplus(made.input(u)[..., -made.heads :] + made.dt_bias)
    h, outputs = u.new_zeros(len(u), made.heads, made.width, made.width), []
    for t in range(u.shape[1]):
        decay = (-dt[:, t] * made.log_a.exp()).exp()[..., None, None]
        h = decay * h + dt[:, t, :, None, None] * b[:, t, :, :, None] * x[:, t, :, None, :]
        outputs.append((c[:, t, :, :, None] * h).sum(-2))
    gated = torch.stack(outputs, dim=1) * silu(z).unflatten(-1, (made.heads, -1))
    return rms_norm(gated, gated.shape[-1:], eps=made.config.norm_eps).flatten(-2) @ p.out.mT
