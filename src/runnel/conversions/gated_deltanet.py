"""Attention becomes Gated DeltaNet: its projections read and write a matrix that overwrites instead of adding.

No paper of its own: the transfer of "The Mamba in the Llama" (2024, 2408.15237), queries, keys, values and the output
projection copied, onto the recurrence of "Gated Delta Networks" (2024, 2412.06464).

    q_t, k_t, v_t = silu(W_Q u_t), silu(W_K u_t), silu(W_V u_t),  q and k of unit length
    S_t = a_t S_p (I - beta_t k_t k_t^T) + beta_t v_t k_t^T,   y_t = W_O (RMSNorm(S_t q_t) * silu(z_t))

Keys are divided by their length in any case, so that a per-head norm before it only leaves its learned scale. The
convolution begins as the identity; a, beta and z are new parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, silu

from runnel.conversions import Conversion, Projections, open_filters
from runnel.mixers.attention import Attention
from runnel.mixers.gated_deltanet import GatedDeltaNet
from runnel.patterns import Part

PAPERS: dict[str, str] = {}


@dataclass(frozen=True)
class Config:
    """conv: width of the convolution. beta_max: 2 allows negative eigenvalues."""

    conv: int = 4
    beta_max: float = 1.0

    def __post_init__(self) -> None:
        if self.conv < 1 or not 0 < self.beta_max <= 2:
            raise ValueError(f"gated_deltanet needs conv >= 1 and 0 < beta_max <= 2; got {self.conv}, {self.beta_max}")


class ToGatedDeltaNet(Conversion):
    config: Config

    def part(self, attention: Attention) -> Part:
        shapes = {"heads": attention.heads, "head_dim": attention.width}
        return Part("gated_deltanet", {**shapes, "conv": self.config.conv, "beta_max": self.config.beta_max})

    def transfer(self, attention: Attention, made: GatedDeltaNet) -> None:
        q, k, v, out = Projections.of(attention)
        made.qkv.weight.copy_(torch.cat([x.flatten(0, 1) for x in (q, k, v)]))
        open_filters(made.conv_weight)
        made.out.weight.copy_(out)


def reference(attention: Attention, made: GatedDeltaNet, u: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """The loop above on the attention's own projections; a, beta and z are the mixer's."""
    p = Projections.of(attention)
    q, k, v = [silu(torch.einsum("btd,hkd->bthk", u, w)) for w in (p.q, p.k, p.v)]
    q, k = normalize(q, dim=-1) * attention.width**-0.5, normalize(k, dim=-1)
    beta, log_decay = made._rates(u)
    s, outputs = u.new_zeros(len(u), attention.heads, attention.width, attention.width), []  # (B, H, V, K)
    for t in range(u.shape[1]):
        s = s * log_decay[:, t].exp()[..., None, None]
        error = v[:, t] - (s @ k[:, t, :, :, None])[..., 0]
        s = s + beta[:, t, :, None, None] * error[..., :, None] * k[:, t, :, None, :]
        outputs.append((s @ q[:, t, :, :, None])[..., 0])
    return (made.norm(torch.stack(outputs, dim=1)).flatten(-2) * silu(made.gate(u))) @ p.out.mT
